package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/cmd/internal/cli"
)

// run runs slipway in this process and returns what it printed; it must succeed.
func run(t *testing.T, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	std := cli.Streams{In: strings.NewReader(facts), Out: &out, Err: &errs, Environ: []string{"PATH=/usr/sbin:/usr/bin"}}
	if code := cli.Main(t.Context(), args, std); code != 0 {
		t.Fatalf("slipway %s: exit code %d\n%s", strings.Join(args, " "), code, &errs)
	}
	return out.String(), errs.String()
}

// document is one of a YAML stream's, with the path that its comment names.
type document struct {
	path string
	data string
}

func documents(t *testing.T, stream string) []document {
	t.Helper()
	var docs []document
	for _, text := range strings.Split("\n"+stream, "\n---\n")[1:] {
		comment, data, _ := strings.Cut(text, "\n")
		path, ok := strings.CutPrefix(comment, "# ")
		if !ok {
			t.Fatalf("a document does not begin with its path:\n%s", text)
		}
		docs = append(docs, document{path, strings.TrimSuffix(data, "\n") + "\n"})
	}
	return docs
}

// strict is what kubectl and the kubelet decode with: unknown and doubled fields are errors.
func strict(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, kubeletv1beta1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

// TestDryRunPrintsWhatInitWrites holds for every variant: byte for byte, and as objects that Kubernetes accepts.
func TestDryRunPrintsWhatInitWrites(t *testing.T) {
	for name, flags := range map[string][]string{
		"defaults":   nil,
		"one family": {"--service-cidr", "fd00:10:96::/112", "--pod-network-cidr", "fd00:10:244::/64", "--apiserver-advertise-address", "2001:db8::10"},
		"flags": {"--node-name", "edge-7", "--service-dns-domain", "edge.example", "--apiserver-bind-port", "7443",
			"--control-plane-endpoint", "cp.example:8443", "--image-repository", "mirror.example/k8s", "--cert-dir", "/srv/pki"},
		"no etcd": {"--skip-phases", "etcd"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			common := append([]string{"--instance", "script", "--host-facts", "-"}, flags...)
			printed, _ := run(t, append([]string{"init", "--dry-run", "-o", "yaml"}, common...)...)
			run(t, append([]string{"init", "--root", root}, common...)...)

			var paths []string
			decoder := strict(t)
			for _, doc := range documents(t, printed) {
				paths = append(paths, doc.path)
				written, err := os.ReadFile(filepath.Join(root, doc.path))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(written), doc.data); diff != "" {
					t.Errorf("%s: - what init writes, + what --dry-run prints:\n%s", doc.path, diff)
				}
				if _, _, err := decoder.Decode([]byte(doc.data), nil, nil); err != nil {
					t.Errorf("%s: %v", doc.path, err)
				}
			}
			want := manifestsBelow(t, root)
			if diff := cmp.Diff(want, paths); diff != "" {
				t.Errorf("- documents that init writes, + that --dry-run prints:\n%s", diff)
			}
		})
	}
}

// manifestsBelow are the kubelet's configuration, and the manifests in a tree that init --root wrote.
func manifestsBelow(t *testing.T, root string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "etc/kubernetes-script/manifests"))
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/var/lib/kubelet-script/config.yaml"}
	for _, e := range entries {
		paths = append(paths, "/etc/kubernetes-script/manifests/"+e.Name())
	}
	slices.Sort(paths[1:])
	return paths
}

// TestInitYAMLIsTheSameAsDryRuns: -o yaml prints what the phases of the run rendered, whether they wrote it, only told,
// or found it there.
func TestInitYAMLIsTheSameAsDryRuns(t *testing.T) {
	root := t.TempDir()
	common := []string{"--instance", "script", "--host-facts", "-", "-o", "yaml"}
	preview, _ := run(t, append([]string{"init", "--dry-run"}, common...)...)
	for _, again := range []string{"writing", "again"} {
		written, _ := run(t, append([]string{"init", "--root", root}, common...)...)
		if diff := cmp.Diff(preview, written); diff != "" {
			t.Errorf("%s: - init --dry-run -o yaml, + init -o yaml:\n%s", again, diff)
		}
	}
	pods, _ := run(t, append([]string{"init", "phase", "control-plane", "--root", root}, common...)...)
	if got := documents(t, pods); len(got) != 3 || strings.Contains(pods, "KubeletConfiguration") {
		t.Errorf("init phase control-plane prints %d documents; want those of its three phases:\n%s", len(got), pods)
	}
}
