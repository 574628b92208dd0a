package objects_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/addon"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/joincommand"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/markcontrolplane"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/uploadcerts"
	"github.com/slipway-k8s/slipway/phases/uploadconfig"

	"github.com/slipway-k8s/slipway/phases/kubeconfig"
)

const key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

// TestPhasesWriteOnce runs all phases that write into the cluster, in their order, twice: the second run changes nothing
// and says nothing, and finds the same commands to join with.
func TestPhasesWriteOnce(t *testing.T) {
	s := kubeapitest.New(t)
	c := load(t, "", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nbootstrapTokens: [{usages: [authentication]}]\n---\n"+
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncontrolPlaneEndpoint: api.example.com\n")
	c.UploadCerts, c.CertificateKey = true, key
	c.AdvertiseAddress = netip.MustParseAddr("192.0.2.10")
	node := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "cp-1"},
		"spec": map[string]any{"unschedulable": true, "taints": []any{map[string]any{"key": "slipway.dev/static-pods-only", "effect": "NoSchedule"}}}}}
	if err := s.API(t, false).Create(t.Context(), node, func(kubeapi.Report) {}); err != nil {
		t.Fatal(err)
	}
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	run := func() (*phases.Join, string) {
		t.Helper()
		var told []string
		env := &phases.Env{Config: c, Files: files, API: s.API(t, false), Now: func() time.Time { return now }, Join: &phases.Join{},
			Report: func(e phases.Event) {
				if e.Kind == phases.Note || e.Kind == phases.Warning {
					told = append(told, e.Text)
				}
			}}
		plan, err := phases.Workflow{Phases: []phases.Phase{pki.New(), kubeconfig.New(), clusteradmins.New(), uploadconfig.New(), uploadcerts.New(),
			markcontrolplane.New(), bootstraptoken.New(), addon.New(), joincommand.New()}}.Plan(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := plan.Run(t.Context(), env, files.Preview); err != nil {
			t.Fatal(err)
		}
		return env.Join, strings.Join(told, "\n")
	}
	first, told := run()
	if n := strings.Count(told, "created "); n != 33 || !strings.Contains(told, "changed Node cp-1") {
		t.Errorf("%d objects made:\n%s", n, told)
	}
	if len(first.Commands) != 2 || first.Commands[0].ControlPlane || !strings.HasSuffix(first.Commands[1].Line, " --control-plane --certificate-key "+key) ||
		!strings.HasPrefix(first.Commands[0].Line, "kubeadm join api.example.com:6443 --token "+first.Tokens[0]+" --discovery-token-ca-cert-hash sha256:") {
		t.Errorf("%+v", first)
	}
	if strings.Contains(told, first.Tokens[0]) || strings.Contains(told, key) {
		t.Errorf("a secret is told:\n%s", told)
	}
	second, told := run()
	if told != "" || !slices.Equal(first.Commands, second.Commands) {
		t.Errorf("a second run says %q, and %+v instead of %+v", told, second, first)
	}
	got, err := s.API(t, false).Get(t.Context(), kubeapi.Ref{APIVersion: "v1", Kind: "Node", Name: "cp-1"})
	if err != nil {
		t.Fatal(err)
	}
	taints, _, _ := unstructured.NestedSlice(got.Object, "spec", "taints")
	if len(taints) != 1+len(c.Taints) || len(c.Taints) != 1 || c.Taints[0].Effect != corev1.TaintEffectNoSchedule || len(got.GetLabels()) != 2 {
		t.Errorf("the Node has %v, %v", taints, got.GetLabels())
	}
	contents, err := uploadcerts.Decrypt(s.Object("/api/v1/namespaces/kube-system/secrets/kubeadm-certs"), []byte(strings.Repeat("x", 32)))
	if err == nil {
		t.Errorf("another key decrypts the certificates: %v", contents)
	}
}
