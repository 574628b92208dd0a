package supervisor

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func cluster() *config.Cluster {
	return &config.Cluster{
		Paths: config.NewPaths(""), NodeName: "node-1",
		Images: config.Images{Etcd: "r/etcd:1", APIServer: "r/api:1", ControllerManager: "r/cm:1", Scheduler: "r/s:1", Pause: "r/pause:1"},
		Etcd:   config.Etcd{Local: &config.LocalEtcd{}},
		Facts:  config.HostFacts{Systemd: true, Executable: "/usr/local/bin/slipway"},
	}
}

func deps() Deps {
	return Deps{
		ContainerdConfig: func(c *config.Cluster) ([]byte, error) { return []byte("version = 2\n"), nil },
		LookPath:         func(name string) (string, error) { return "/usr/local/bin/" + name, nil },
	}
}

func TestFiles(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster, *Deps)
	}{
		{"systemd", func(*config.Cluster, *Deps) {}},
		{"no-init-system", func(c *config.Cluster, _ *Deps) { c.Facts.Systemd = false }},
		{"restricted", func(c *config.Cluster, _ *Deps) { c.Facts.RestrictOOMScore = true }},
		{"proxy", func(c *config.Cluster, _ *Deps) {
			c.Facts.ProxyEnv = map[string]string{"https_proxy": "http://user:50%@proxy:3128", "NO_PROXY": "10.0.0.0/8"}
		}},
		{"user-runtime", func(c *config.Cluster, _ *Deps) { c.CRISocket = "unix:///run/crio.sock" }},
		{"instance", func(c *config.Cluster, d *Deps) {
			c.Instance, c.Paths = "b", config.NewPaths("b")
			c.Facts.Executable = "/opt/100% slipway/$bin/slipway"
			d.LookPath = func(string) (string, error) { return "", fs.ErrNotExist }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, d := cluster(), deps()
			tc.change(c, &d)
			files, err := configFiles(c, d)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, f := range files {
				fmt.Fprintf(&got, "-- %s %o --\n%s", f.Path, f.Mode, f.Data)
			}
			golden := filepath.Join("testdata", tc.name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("files differ (-want +got); rewrite with go test ./phases/supervisor -update:\n%s", diff)
			}
		})
	}
}

// listener is a host that remembers what it was asked for, and fails where it is told to.
type listener struct {
	host.Host
	asked []string
	fail  error
}

func (l *listener) EnsureRuntime(_ context.Context, r host.Runtime, report func(host.Progress)) error {
	l.asked = append(l.asked, fmt.Sprintf("runtime %+v", r))
	report(host.Progress{Text: "containerd started"})
	return l.fail
}

func (l *listener) EnsureImages(_ context.Context, im host.Images, report func(host.Progress)) error {
	l.asked = append(l.asked, fmt.Sprintf("images %+v", im))
	report(host.Progress{Text: "pulling", Done: 1, Total: 2, Unit: "B"})
	return nil
}

func (l *listener) EnsureSupervisor(_ context.Context, s host.Supervisor, _ func(host.Progress)) error {
	l.asked = append(l.asked, fmt.Sprintf("supervisor %+v", s))
	return nil
}

func workflow() phases.Workflow {
	return phases.Workflow{Phases: []phases.Phase{Config(deps()), New(deps())}}
}

func run(t *testing.T, c *config.Cluster, l *listener, only []string) ([]string, error) {
	t.Helper()
	plan, err := workflow().Plan(only, nil)
	if err != nil {
		t.Fatal(err)
	}
	overlay := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	var events []string
	err = plan.Run(t.Context(), &phases.Env{Config: c, Files: overlay, Host: l, Report: func(e phases.Event) {
		if e.Kind == phases.Note || e.Kind == phases.Progress {
			events = append(events, fmt.Sprintf("%s: %s %s", e.Phase, e.Kind, e.Text))
		}
	}}, overlay.Commit)
	return events, err
}

func TestImagesStartTheirRuntimeFirst(t *testing.T) {
	asked := &listener{}
	c := cluster()
	c.ImagePullPolicy, c.ImagePullSerial = corev1.PullNever, true
	events, err := run(t, c, asked, []string{"supervisor/config", "supervisor/images"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"runtime {Own:true Socket:/run/slipway/containerd.sock Program:/usr/local/bin/containerd}",
		"images {Refs:[r/pause:1 r/api:1 r/cm:1 r/s:1 r/etcd:1] Archives:/var/lib/slipway/images Pull:false Serial:true Socket:/run/slipway/containerd.sock}",
	}
	if diff := cmp.Diff(want, asked.asked); diff != "" {
		t.Errorf("asked differs (-want +got):\n%s", diff)
	}
	if want := []string{"supervisor/images: progress pulling"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
}

func TestSuperviseTakesItsRuntimeFromTheKubeletConfiguration(t *testing.T) {
	asked := &listener{}
	c := cluster()
	c.Instance = "b"
	if _, err := run(t, c, asked, []string{"supervisor/supervise"}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"supervisor {KubeletConfig:/var/lib/kubelet/config.yaml NodeName:node-1 Instance:b Kubeconfig:/etc/kubernetes/kubelet.conf Runtime:}"}; !slices.Equal(asked.asked, want) {
		t.Errorf("asked %q, want %q", asked.asked, want)
	}
}

func TestRuntimeOfTheUserIsNamedByItsPath(t *testing.T) {
	asked := &listener{fail: errors.New("refused")}
	c := cluster()
	c.CRISocket = "unix:///run/crio.sock"
	events, err := run(t, c, asked, []string{"supervisor/containerd"})
	if err == nil || err.Error() != "phase supervisor/containerd: refused" {
		t.Errorf("got %v", err)
	}
	if want := []string{"runtime {Own:false Socket:/run/crio.sock Program:}"}; !slices.Equal(asked.asked, want) {
		t.Errorf("asked %q, want %q", asked.asked, want)
	}
	if want := []string{"supervisor/containerd: note containerd started"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
}

func TestExternalEtcdNeedsNoImage(t *testing.T) {
	c := cluster()
	c.Etcd = config.Etcd{External: &config.ExternalEtcd{}}
	if got := Images(c); slices.Contains(got, "r/etcd:1") || len(got) != 4 {
		t.Errorf("got %q", got)
	}
}
