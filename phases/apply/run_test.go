package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// errKilled is what every effect returns once the process of a test counts as killed.
var errKilled = errors.New("killed")

// machine is a node whose components run what their manifests say, and that keeps a trace of what is done to it. It is
// the store, the host and the rest of what an Apply acts through. A component does not become ready with a flag "bad".
type machine struct {
	host.Narrator
	t     *testing.T
	disk  artifact.Disk
	cfg   *config.Cluster
	trace []string
	left  int // effects until it counts as killed; negative: it never does
	sick  map[string]bool
}

func newMachine(t *testing.T, cfg *config.Cluster) *machine {
	return &machine{t: t, disk: installed(t, cfg), cfg: cfg, left: -1, sick: map[string]bool{}}
}

// copy returns another machine with the same files.
func (m *machine) copy(t *testing.T) *machine {
	t.Helper()
	other := &machine{t: t, disk: artifact.Disk{Root: t.TempDir()}, cfg: m.cfg, left: -1, sick: map[string]bool{}}
	err := fs.WalkDir(os.DirFS(m.disk.Root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		from, to := filepath.Join(m.disk.Root, path), filepath.Join(other.disk.Root, path)
		if d.IsDir() {
			return os.MkdirAll(to, info.Mode().Perm())
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, info.Mode().Perm()) // not synced: it is only a test's
	})
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func (m *machine) effect(format string, args ...any) error {
	if m.left == 0 {
		return errKilled
	}
	m.left--
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
	return nil
}

func (m *machine) ReadFile(path string) (artifact.File, error) { return m.disk.ReadFile(path) }

func (m *machine) Put(f artifact.File) error {
	if err := m.effect("put %s", f.Path); err != nil {
		return err
	}
	return m.disk.Put(f)
}

func (m *machine) Remove(path string) error {
	if err := m.effect("remove %s", path); err != nil {
		return err
	}
	return m.disk.Remove(path)
}

func (m *machine) ready(pods []string) error {
	for _, name := range pods {
		f, err := m.disk.ReadFile(filepath.Join(m.cfg.Paths.Manifests, name+".yaml"))
		if err != nil || m.sick[name] || strings.Contains(string(f.Data), "--bad=") {
			return &host.NotReady{Pod: name, Reason: name + " cannot start: it exited with code 1, 2 times", Log: []string{"unknown flag: --bad"}, Cause: "the flag", Next: "slipway logs"}
		}
	}
	return nil
}

func (m *machine) WaitReady(_ context.Context, w host.Wait, _ func(host.Progress)) error {
	how := ""
	if w.Steady > 0 {
		how = " steady"
	}
	if err := m.effect("wait%s %s", how, strings.Join(w.Pods, " ")); err != nil {
		return err
	}
	return m.ready(w.Pods)
}

// apply returns what acts on the machine for a configuration.
func (m *machine) apply(cfg *config.Cluster) *Apply {
	return &Apply{
		Env:     &phases.Env{Config: cfg, Files: m, Host: m, Now: time.Now, Report: func(phases.Event) {}},
		Timeout: time.Minute,
		Phase:   func(_ context.Context, name string) error { return m.effect("phase %s", name) },
		Restart: func(_ context.Context, component, _ string, _ time.Duration) error {
			if err := m.effect("restart %s", component); err != nil {
				return err
			}
			return m.ready([]string{component})
		},
	}
}

// change makes a change as the command does, and continues one that was interrupted.
func (m *machine) change(cfg *config.Cluster) error {
	m.t.Helper()
	r, err := LoadRecord(m.disk, cfg.Paths.ApplyRecord())
	if err != nil {
		m.t.Fatal(err)
	}
	if r != nil && r.Reason != "" {
		return m.apply(cfg).Back(m.t.Context(), r, errors.New(r.Reason))
	}
	is, err := Configured(cfg, controlplane.LocalCA(cfg))
	if err != nil {
		m.t.Fatal(err)
	}
	overlay := artifact.NewOverlay(m.disk)
	changes, err := r.Since(run(m.t, cfg, overlay, overlay.Preview), overlay.ReadFile)
	if err != nil {
		m.t.Fatal(err)
	}
	if r == nil {
		r = &Record{Node: cfg.NodeName, Ready: plane.Components()}
	}
	return m.apply(cfg).Forward(m.t.Context(), r, Plan(changes, cfg.Paths, is))
}

// files returns what is on the disk, by path.
func (m *machine) files() map[string]string {
	m.t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(m.disk.Root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := m.disk.ReadFile("/" + path)
		out["/"+path] = fmt.Sprintf("%04o %s", f.Mode.Perm(), f.Data)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// changed names the files that differ.
func changed(before, after map[string]string) []string {
	var out []string
	for path := range before {
		if after[path] != before[path] {
			out = append(out, path)
		}
	}
	for path := range after {
		if _, there := before[path]; !there {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

const (
	names = "apiServer: {certSANs: [api.example]}\n"
	good  = names + "scheduler: {extraArgs: [{name: v, value: '2'}]}\n"
	bad   = names + "etcd: {local: {extraArgs: [{name: quota-backend-bytes, value: '1'}]}}\nscheduler: {extraArgs: [{name: bad, value: '2'}]}\n"
	logs  = "KubeletConfiguration\ncontainerLogMaxSize: 5Mi"
)

func of(t *testing.T, lines string, more ...string) *config.Cluster {
	return configured(t, append([]string{"ClusterConfiguration\n" + lines}, more...)...)
}

func TestForwardGoesOneComponentAfterTheOther(t *testing.T) {
	m := newMachine(t, of(t, ""))
	before := m.files()
	if err := m.change(of(t, good, logs)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"put /var/lib/slipway/apply.json",
		"put /etc/kubernetes/pki/apiserver.crt",
		"put /var/lib/kubelet/config.yaml",
		"phase supervisor/supervise",
		"put /var/lib/slipway/apply.json", // about to restart it
		"restart kube-apiserver",
		"put /var/lib/slipway/apply.json",
		"put /etc/kubernetes/manifests/kube-scheduler.yaml",
		"wait kube-scheduler",
		"wait steady etcd kube-apiserver kube-controller-manager kube-scheduler",
		"remove /var/lib/slipway/apply.json",
	}
	if diff := cmp.Diff(want, m.trace); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	wantFiles := []string{"/etc/kubernetes/manifests/kube-scheduler.yaml", "/etc/kubernetes/pki/apiserver.crt", "/var/lib/kubelet/config.yaml"}
	if diff := cmp.Diff(wantFiles, changed(before, m.files())); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	m.trace = nil
	if err := m.change(of(t, good, logs)); err != nil {
		t.Fatal(err)
	}
	if got := m.trace[1 : len(m.trace)-1]; len(got) != 1 || !strings.HasPrefix(got[0], "wait steady") {
		t.Errorf("without a change: %q", m.trace)
	}
}

// TestWhatDoesNotRunIsTakenBack: all of it, in the order of dependency, with what came before the failure.
func TestWhatDoesNotRunIsTakenBack(t *testing.T) {
	m := newMachine(t, of(t, ""))
	before := m.files()
	err := m.change(of(t, bad))
	back := (*RolledBack)(nil)
	if !errors.As(err, &back) {
		t.Fatalf("got %v", err)
	}
	want := "kube-scheduler cannot start: it exited with code 1, 2 times\n  last log lines of kube-scheduler:\n    unknown flag: --bad\n  likely cause: the flag\n" +
		"  all is as it was before: 3 files were put back (0.0 s); ready are: etcd, kube-apiserver, kube-controller-manager, kube-scheduler"
	if back.Took = 0; back.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	i := slices.Index(m.trace, "wait kube-scheduler")
	if diff := cmp.Diff([]string{
		"put /var/lib/slipway/apply.json",
		"put /etc/kubernetes/pki/apiserver.crt",
		"put /etc/kubernetes/manifests/etcd.yaml",
		"wait etcd",
		"restart kube-apiserver",
		"put /etc/kubernetes/manifests/kube-scheduler.yaml",
		"wait kube-scheduler",
		"wait steady etcd kube-apiserver kube-controller-manager kube-scheduler",
		"remove /var/lib/slipway/apply.json",
	}, m.trace[i+1:]); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if diff := changed(before, m.files()); len(diff) > 0 {
		t.Errorf("changed: %q", diff)
	}
}

// TestWhatWasNotReadyIsNotWaitedFor: a return does not hang on what did not run before.
func TestWhatWasNotReadyIsNotWaitedFor(t *testing.T) {
	m := newMachine(t, of(t, ""))
	m.sick["kube-scheduler"] = true
	cfg := of(t, good)
	r := &Record{Node: cfg.NodeName, Ready: []string{"etcd", "kube-apiserver", "kube-controller-manager"}}
	is, err := Configured(cfg, controlplane.LocalCA(cfg))
	if err != nil {
		t.Fatal(err)
	}
	overlay := artifact.NewOverlay(m.disk)
	err = m.apply(cfg).Forward(t.Context(), r, Plan(run(t, cfg, overlay, overlay.Preview), cfg.Paths, is))
	if !errors.As(err, new(*RolledBack)) {
		t.Fatalf("got %v", err)
	}
}

// TestKilledAnywhere ends an apply after every one of its effects. Run again it gets to where it was going, forward or
// back; taken back, everything is as it was. Nothing is half written in between, and no record is left.
func TestKilledAnywhere(t *testing.T) {
	base := newMachine(t, of(t, ""))
	before := base.files()
	for name, tc := range map[string]struct {
		lines string
		back  bool // what the change itself comes to
	}{"good": {good, false}, "bad": {bad, true}} {
		for _, again := range []string{"again", "taken back", "with another configuration"} {
			t.Run(name+", "+again, func(t *testing.T) {
				m, after := base.copy(t), before
				for n := 0; ; n++ {
					m.trace, m.left = nil, n
					err := m.change(of(t, tc.lines))
					if err == nil || errors.As(err, new(*RolledBack)) {
						if n < 8 {
							t.Errorf("only %d effects", n)
						}
						return
					}
					if !errors.Is(err, errKilled) && !strings.Contains(err.Error(), "killed") {
						t.Fatalf("after %d effects: %v", n, err)
					}
					killed := m.trace
					m.trace, m.left = nil, -1
					r, err := LoadRecord(m.disk, m.cfg.Paths.ApplyRecord())
					if err != nil {
						t.Fatal(err)
					}
					if r == nil && n > 0 {
						t.Fatalf("after %q there is no record", killed)
					}
					switch again {
					case "again":
						err = m.change(of(t, tc.lines))
						if gone := errors.As(err, new(*RolledBack)); gone != tc.back || !gone && err != nil {
							t.Fatalf("after %q, run again: %v", killed, err)
						}
						if !tc.back {
							if !strings.Contains(m.files()["/etc/kubernetes/manifests/kube-scheduler.yaml"], "--v=2") {
								t.Fatalf("after %q, run again: the scheduler is the old one", killed)
							}
							if n > 1 && !slices.Contains(m.trace, "restart kube-apiserver") && !slices.Contains(killed, "restart kube-apiserver") {
								t.Fatalf("after %q, run again: the API server was not restarted: %q", killed, m.trace)
							}
							if err := m.change(of(t, "")); err != nil { // names stay in the certificate
								t.Fatal(err)
							}
							after = maps.Clone(before)
							after["/etc/kubernetes/pki/apiserver.crt"] = m.files()["/etc/kubernetes/pki/apiserver.crt"]
						}
					case "with another configuration":
						if err = m.change(of(t, "")); err != nil && !errors.As(err, new(*RolledBack)) {
							t.Fatalf("after %q, another configuration: %v", killed, err)
						}
						after = maps.Clone(before)
						after["/etc/kubernetes/pki/apiserver.crt"] = m.files()["/etc/kubernetes/pki/apiserver.crt"]
					default:
						if r == nil {
							continue
						}
						if err := m.apply(m.cfg).Back(t.Context(), r, errors.New("asked")); !errors.As(err, new(*RolledBack)) {
							t.Fatalf("after %q, taken back: %v", killed, err)
						}
					}
					if diff := changed(after, m.files()); len(diff) > 0 {
						t.Fatalf("after %q and then %q: changed: %q", killed, m.trace, diff)
					}
					m = base.copy(t)
					after = before
				}
			})
		}
	}
}

func TestRecordIsASecretFile(t *testing.T) {
	m := newMachine(t, of(t, ""))
	m.left = 1
	if err := m.change(of(t, good)); err == nil {
		t.Fatal("it was not killed")
	}
	f, err := m.disk.ReadFile("/var/lib/slipway/apply.json")
	if err != nil || f.Mode.Perm() != 0o600 {
		t.Errorf("mode %v, %v", f.Mode, err)
	}
	if err := m.disk.Put(artifact.File{Path: "/var/lib/slipway/apply.json", Data: []byte("{"), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRecord(m.disk, "/var/lib/slipway/apply.json"); err == nil || !strings.Contains(err.Error(), "remove it if you know") {
		t.Errorf("a damaged record: %v", err)
	}
}
