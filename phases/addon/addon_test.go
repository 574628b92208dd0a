package addon

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/config"
)

func cluster(patches ...config.Patch) *config.Cluster {
	return &config.Cluster{
		DNSDomain: "cluster.local", ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Images: config.Images{CoreDNS: "r/coredns:v1"}, Patches: patches,
	}
}

func TestPatchesChangeTheDeploymentOfCoreDNS(t *testing.T) {
	list, err := CoreDNS(cluster(
		config.Patch{Target: "corednsdeployment", Type: "strategic", File: "corednsdeployment.yaml",
			Data: []byte(`{"spec":{"replicas":1,"template":{"spec":{"containers":[{"name":"coredns","imagePullPolicy":"Never"}]}}}}`)},
		config.Patch{Target: "kube-apiserver", Type: "merge", File: "kube-apiserver+merge.yaml", Data: []byte(`{"spec":null}`)}))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, o := range list {
		if o.GetKind() != "Deployment" {
			continue
		}
		found = true
		replicas, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
		containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if replicas != 1 || len(containers) != 1 {
			t.Fatalf("%d replicas of %d containers", replicas, len(containers))
		}
		c := containers[0].(map[string]any)
		if c["imagePullPolicy"] != "Never" || c["image"] != "r/coredns:v1" {
			t.Errorf("the container is %v", c)
		}
	}
	if !found {
		t.Error("there is no Deployment")
	}
}

func TestPatchOfCoreDNSThatIsNoDeploymentIsRefusedByItsFile(t *testing.T) {
	_, err := CoreDNS(cluster(config.Patch{Target: "corednsdeployment", Type: "merge", File: "corednsdeployment+merge.yaml", Data: []byte(`{"spec":{"replica":1}}`)}))
	if err == nil || !strings.Contains(err.Error(), `"corednsdeployment+merge.yaml"`) || !strings.Contains(err.Error(), `"replica"`) {
		t.Errorf("the error is %v", err)
	}
}
