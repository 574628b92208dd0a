package podspec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Whatever a valid manifest says, the conversion answers, twice the same, and nothing of it lies outside of the pod's own
// directories but the host paths that the manifest names.
func FuzzPodspec(f *testing.F) {
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "value")
	}
	list, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if name, text, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			var value any
			if err := yaml.Unmarshal([]byte(text), &value); err != nil {
				f.Fatal(err)
			}
			typ, field, _ := strings.Cut(name, ".")
			f.Add(example(f, typ, field, value), "a/b")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		p, err := manifest.Parse(data, "f.yaml", "node-1")
		if err != nil {
			return
		}
		for _, n := range []Node{testNode(), ableNode(), {CgroupDriver: "systemd", Name: "node-1", KubeletRoot: "/k", PodLogsDir: "/l"}} {
			convert(t, p, n, text)
		}
	})
}

func convert(t *testing.T, p *manifest.StaticPod, n Node, text string) {
	_ = Unsupported(p.Pod, n)
	if one, two := Sandbox(p, 0, n), Sandbox(p, 0, n); !proto.Equal(one, two) {
		t.Fatal("two calls, two sandboxes")
	}
	if parent := CgroupParent(p.Pod, n); !strings.HasPrefix(filepath.Base(parent), "pod") && !strings.Contains(filepath.Base(parent), "-pod") || filepath.Clean(parent) != parent {
		t.Fatalf("cgroup %s", parent)
	}
	_ = PodCgroup(p.Pod, n)
	var host []string
	for _, v := range p.Pod.Spec.Volumes {
		if v.HostPath != nil {
			host = append(host, v.HostPath.Path)
		}
	}
	dir := PodDir(p.UID, n)
	own := func(path string) {
		for _, root := range []string{dir, LogDir(p, n)} {
			if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) && filepath.Clean(path) == path {
				return
			}
		}
		if !slices.Contains(host, path) || !filepath.IsAbs(path) {
			t.Fatalf("%q is neither the pod's nor named by the manifest", path)
		}
	}
	for root, path := range map[string]string{filepath.Join(n.KubeletRoot, "pods"): dir, n.PodLogsDir: LogDir(p, n)} {
		if rel, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(rel) || rel == "." || strings.Contains(rel, "/") {
			t.Fatalf("%q is not right below %q", path, root)
		}
	}
	entries := Layout(p, n)
	for c := range containers(p.Pod) {
		a := Attempt{Number: 1, PodIPs: []string{"192.0.2.1"}, Watched: text, Files: map[VolumeFile][]byte{}, Volumes: map[string]string{}}
		for _, file := range EnvFiles(p, c, n) {
			own(file.Volume)
			if !filepath.IsLocal(filepath.Clean(file.Path)) {
				t.Fatalf("variables from %q", file.Path)
			}
			a.Files[file] = []byte(text)
		}
		for _, v := range p.Pod.Spec.Volumes {
			if v.Image != nil {
				a.Volumes[v.Image.Reference] = "sha256:aa"
			}
		}
		if config, err := Container(p, c, a, n); err == nil {
			if !filepath.IsLocal(config.LogPath) {
				t.Fatalf("log %q", config.LogPath)
			}
			for _, m := range config.Mounts {
				if m.Image == nil {
					own(m.HostPath)
				} else if m.ImageSubPath != "" && !filepath.IsLocal(filepath.Clean(m.ImageSubPath)) {
					t.Fatalf("part %q of an image", m.ImageSubPath)
				}
			}
		}
		more, err := ContainerLayout(p, c, a, n)
		if err == nil {
			entries = append(entries, more...)
		}
		if strings.Contains(LogLink(p, c.Name, "id"), "/") {
			t.Fatalf("link %q", LogLink(p, c.Name, "id"))
		}
	}
	for _, h := range entries {
		own(h.Path)
		if h.Kind == BindSubPath {
			own(h.Volume)
			if !filepath.IsLocal(h.SubPath) {
				t.Fatalf("part %q of a volume", h.SubPath)
			}
		}
	}
}
