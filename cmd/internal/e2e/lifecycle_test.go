//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var controlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

const manifests = "/etc/kubernetes/manifests"

// TestBareMachineToControlPlaneAndBack is the main job: init, a cluster that real clients use, every promise of the
// supervisor about the pods it runs, and a reset that leaves the machine as it was.
func TestBareMachineToControlPlaneAndBack(t *testing.T) {
	before := take(t)
	planned := slipway(t, "init", "--dry-run", "-o", "yaml").must(t, "slipway init --dry-run")
	same(t, before, take(t))
	t.Run("init", func(t *testing.T) {
		t.Cleanup(func() { // not initialised(): the later subtests use the node
			if t.Failed() {
				slipway(t, "reset", "--force")
			}
		})
		r := slipway(t, "init", "--image-archives", archives()).must(t, "slipway init")
		t.Logf("init took %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)
	})
	if t.Failed() {
		return
	}
	t.Run("as planned", func(t *testing.T) { filesAreAsPlanned(t, planned.stdout) })
	t.Run("kubectl", kubectlWorks)
	t.Run("mirrors", podsAreShownInTheAPI)
	t.Run("names", namesAreTheKubelets)
	t.Run("status", statusShowsTheNode)
	t.Run("again", initAgainChangesNothing)
	t.Run("restart", exitedContainerIsRestarted)
	t.Run("adopt", supervisorKilledAdopts)
	t.Run("change", changedManifestReplacesThePod)
	t.Run("invalid", invalidManifestKeepsThePod)
	t.Run("remove", removedManifestStopsThePod)
	t.Run("reset", func(t *testing.T) {
		planned := slipway(t, "reset", "--dry-run").must(t, "slipway reset --dry-run")
		done := slipway(t, "reset", "--force").must(t, "slipway reset")
		t.Logf("reset took %v\n%s", done.took.Round(time.Millisecond), done.stdout)
		if planned.stdout != done.stdout {
			t.Errorf("reset --dry-run printed\n%s\nreset did\n%s", planned.stdout, done.stdout)
		}
		same(t, before, take(t))
		slipway(t, "reset", "--force").must(t, "a second reset")
	})
}

// filesAreAsPlanned compares every document that the dry run printed below its path with the file, byte for byte.
func filesAreAsPlanned(t *testing.T, printed string) {
	documents := strings.Split(printed, "---\n# ")[1:]
	if len(documents) != 5 {
		t.Fatalf("the dry run printed %d documents, want the KubeletConfiguration and four manifests:\n%s", len(documents), printed)
	}
	for _, d := range documents {
		path, want, _ := strings.Cut(d, "\n")
		got, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("a planned file: %v", err)
		}
		if string(got) != want {
			t.Errorf("%s is not what the dry run printed:\n%s", path, cmp.Diff(want, string(got)))
		}
	}
}

func kubectlWorks(t *testing.T) {
	ready := superKubectl(t, "get", "--raw", "/readyz?verbose").must(t, "kubectl get --raw /readyz")
	if !strings.Contains(ready.stdout, "readyz check passed") {
		t.Errorf("readyz: %s", ready.stdout)
	}
	superKubectl(t, "create", "namespace", "harbour").must(t, "creating a namespace")
	superKubectl(t, "-n", "harbour", "create", "configmap", "tide", "--from-literal=level=high").must(t, "creating a ConfigMap")
	superKubectl(t, "-n", "harbour", "create", "secret", "generic", "key", "--from-literal=word=anchor").must(t, "creating a Secret")
	if got := superKubectl(t, "-n", "harbour", "get", "configmap", "tide", "-o", "jsonpath={.data.level}").stdout; got != "high" {
		t.Errorf("the ConfigMap reads back %q", got)
	}
	if got := superKubectl(t, "-n", "harbour", "get", "secret", "key", "-o", "jsonpath={.data.word}").stdout; got != "YW5jaG9y" {
		t.Errorf("the Secret reads back %q", got)
	}
	superKubectl(t, "delete", "namespace", "harbour", "--wait", "--timeout=60s").must(t, "deleting the namespace, which the controller manager finishes")
}

// podsAreShownInTheAPI reads the mirror pods as any user would, and deletes one: it comes back, and its container never
// notices.
func podsAreShownInTheAPI(t *testing.T) {
	shown := func() string {
		r := superKubectl(t, "-n", "kube-system", "get", "pods", "-o", "wide", "--no-headers")
		for _, name := range controlPlane {
			if !slices.ContainsFunc(strings.Split(r.stdout, "\n"), func(line string) bool {
				f := strings.Fields(line)
				return len(f) > 3 && strings.HasPrefix(f[0], name+"-") && f[1] == "1/1" && f[2] == "Running"
			}) {
				return name + " is not shown as Running 1/1:\n" + r.stdout + r.stderr
			}
		}
		return ""
	}
	eventually(t, 10*time.Second, "the mirror pods", shown)
	before := ps(t)
	pod := before["kube-scheduler"].Pod
	superKubectl(t, "-n", "kube-system", "delete", "pod", pod, "--wait=false").must(t, "deleting a mirror pod")
	eventually(t, 10*time.Second, "the mirror pod's return", shown)
	unchanged(t, before, controlPlane...)
}

// namesAreTheKubelets looks at the containers through another client, by the names and labels that crictl and nerdctl
// expect.
func namesAreTheKubelets(t *testing.T) {
	r := run(t, time.Minute, "ctr", "-a", "/run/slipway/containerd.sock", "-n", "k8s.io", "containers", "list").must(t, "ctr containers list")
	for _, image := range []string{"registry.k8s.io/etcd:", "registry.k8s.io/kube-apiserver:", "registry.k8s.io/pause:"} {
		if !strings.Contains(r.stdout, image) {
			t.Errorf("ctr shows no container of %s:\n%s", image, r.stdout)
		}
	}
	for _, name := range controlPlane {
		dirs, _ := filepath.Glob("/var/log/pods/kube-system_" + name + "-*/" + name + "/0.log")
		links, _ := filepath.Glob("/var/log/containers/" + name + "-*_kube-system_" + name + "-*.log")
		if len(dirs) != 1 || len(links) != 1 {
			t.Errorf("%s: log files %q, links %q; want one of each", name, dirs, links)
		}
		groups, _ := filepath.Glob("/sys/fs/cgroup/memory/kubepods/burstable/pod*")
		if v2, _ := filepath.Glob("/sys/fs/cgroup/kubepods*/*burstable*/*pod*"); len(groups)+len(v2) < 4 {
			t.Errorf("pod cgroups %q %q; want one per pod", groups, v2)
		}
	}
}

func statusShowsTheNode(t *testing.T) {
	r := slipway(t, "status").must(t, "slipway status")
	for _, want := range append([]string{"Running", "admin.conf", "apiserver-etcd-client", "364 days", manifests}, controlPlane...) {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("slipway status does not show %q:\n%s", want, r.stdout)
		}
	}
	if r := slipway(t, "logs", "etcd", "--tail", "5").must(t, "slipway logs"); strings.Count(r.stdout, "\n") != 5 {
		t.Errorf("slipway logs --tail 5 printed\n%s", r.stdout)
	}
}

func initAgainChangesNothing(t *testing.T) {
	before := ps(t)
	r := slipway(t, "init", "--image-archives", archives(), "-o", "json").must(t, "a second init")
	if strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("a second init changed %s", r.stdout)
	}
	if d := slipway(t, "diff"); d.code != 0 || d.stdout != "" {
		t.Errorf("slipway diff after init: exit code %d\n%s", d.code, d.stdout)
	}
	unchanged(t, before, controlPlane...)
}

// unchanged fails the test where a container is not the one it was.
func unchanged(t *testing.T, before map[string]container, names ...string) {
	t.Helper()
	after := ps(t)
	for _, name := range names {
		if before[name].ID != after[name].ID || before[name].Attempt != after[name].Attempt {
			t.Errorf("%s was %+v, is %+v", name, before[name], after[name])
		}
	}
}

func exitedContainerIsRestarted(t *testing.T) {
	before := ps(t)
	id := strings.TrimPrefix(before["kube-scheduler"].ID, "containerd://")
	run(t, time.Minute, "ctr", "-a", "/run/slipway/containerd.sock", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id).must(t, "killing the scheduler")
	start := time.Now()
	eventually(t, 10*time.Second, "the scheduler's next attempt", func() string {
		if c := ps(t)["kube-scheduler"]; c.Attempt != before["kube-scheduler"].Attempt+1 || c.State != "Running" {
			return c.State
		}
		return ""
	})
	t.Logf("running again after %v", time.Since(start).Round(time.Millisecond))
	eventually(t, 30*time.Second, "health after the restart", healthy(t, controlPlane...))
	unchanged(t, before, "etcd", "kube-apiserver", "kube-controller-manager")
}

// supervisorPID reads the pid file that init leaves where there is no init system.
func supervisorPID(t *testing.T) int {
	t.Helper()
	r := run(t, time.Minute, "pgrep", "-f", "^"+slipwayBinary()+" supervise").must(t, "finding the supervisor")
	pid := 0
	for _, c := range strings.TrimSpace(r.stdout) {
		pid = 10*pid + int(c-'0')
	}
	return pid
}

func supervisorKilledAdopts(t *testing.T) {
	before := ps(t)
	if err := syscall.Kill(supervisorPID(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the supervisor's end", func() string {
		if r := slipway(t, "ps"); r.code == 0 {
			return "it still answers"
		}
		return ""
	})
	superKubectl(t, "get", "--raw", "/readyz").must(t, "the API without a supervisor")
	slipway(t, "init", "phase", "supervisor", "supervise").must(t, "starting the supervisor again")
	eventually(t, 10*time.Second, "adoption", healthy(t, controlPlane...))
	unchanged(t, before, controlPlane...)
}

// edit replaces a manifest as an editor would: a temporary file and a rename.
func edit(t *testing.T, name string, change func(string) string) (restore func()) {
	t.Helper()
	path := filepath.Join(manifests, name+".yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		temp := filepath.Join(manifests, "."+name+".tmp")
		if err := os.WriteFile(temp, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, path); err != nil {
			t.Fatal(err)
		}
	}
	changed := change(string(data))
	if changed == string(data) {
		t.Fatalf("the edit of %s changes nothing", name)
	}
	write(changed)
	return func() { write(string(data)) }
}

func changedManifestReplacesThePod(t *testing.T) {
	before := ps(t)
	start := time.Now()
	restore := edit(t, "kube-scheduler", func(s string) string {
		return strings.Replace(s, "- --leader-elect=true", "- --leader-elect=true\n    - --v=1", 1)
	})
	defer restore()
	eventually(t, 40*time.Second, "the new scheduler", func() string {
		if c := ps(t)["kube-scheduler"]; c.ID == before["kube-scheduler"].ID || c.State != "Running" {
			return c.State
		}
		return ""
	})
	t.Logf("the new version ran after %v", time.Since(start).Round(time.Millisecond))
	eventually(t, 30*time.Second, "health after the change", healthy(t, controlPlane...))
	unchanged(t, before, "etcd", "kube-apiserver", "kube-controller-manager")
	if now := ps(t)["kube-scheduler"]; now.Attempt != 0 {
		t.Errorf("the new version is a new pod, so its first container is attempt 0: %+v", now)
	}
	restore()
	eventually(t, 40*time.Second, "the old version again", func() string {
		data, err := os.ReadFile("/proc/" + pidOf(t, "kube-scheduler") + "/cmdline")
		if err != nil || strings.Contains(string(data), "--v=1") {
			return string(data)
		}
		return healthy(t, controlPlane...)()
	})
}

// pidOf returns the pid of the one process of that program.
func pidOf(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, time.Minute, "pgrep", "-xf", "^"+name+" .*").stdout)
}

func invalidManifestKeepsThePod(t *testing.T) {
	before := ps(t)
	restore := edit(t, "kube-scheduler", func(s string) string { return strings.Replace(s, "spec:", "specc:", 1) })
	defer restore()
	eventually(t, 10*time.Second, "the refusal in slipway status", func() string {
		if r := slipway(t, "status"); !strings.Contains(r.stdout, "specc") {
			return r.stdout
		}
		return ""
	})
	unchanged(t, before, controlPlane...)
	superKubectl(t, "get", "--raw", "/readyz").must(t, "the API beside an invalid manifest")
	restore()
	eventually(t, 10*time.Second, "the end of the refusal", func() string {
		if r := slipway(t, "status"); strings.Contains(r.stdout, "specc") {
			return r.stdout
		}
		return ""
	})
	unchanged(t, before, controlPlane...)
}

func removedManifestStopsThePod(t *testing.T) {
	before := ps(t)
	path := filepath.Join(manifests, "kube-scheduler.yaml")
	aside := filepath.Join(t.TempDir(), "kube-scheduler.yaml")
	run(t, time.Minute, "mv", path, aside).must(t, "moving the manifest away")
	eventually(t, 40*time.Second, "the scheduler's end", func() string {
		if c, ok := ps(t)["kube-scheduler"]; ok {
			return c.State
		}
		return ""
	})
	if pid := pidOf(t, "kube-scheduler"); pid != "" {
		t.Errorf("the scheduler still runs as pid %s", pid)
	}
	run(t, time.Minute, "cp", "-p", aside, path).must(t, "putting the manifest back")
	eventually(t, 30*time.Second, "the scheduler's return", healthy(t, controlPlane...))
	unchanged(t, before, "etcd", "kube-apiserver", "kube-controller-manager")
}
