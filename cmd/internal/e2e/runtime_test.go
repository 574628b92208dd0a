//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestContainerd2 runs the main job through containerd 2.x, which Debian 12 does not have: the same configuration file
// must do.
func TestContainerd2(t *testing.T) {
	before := take(t)
	dir := t.TempDir()
	for _, name := range []string{"containerd", "containerd-shim-runc-v2"} {
		if err := os.Symlink(program(name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	initialised(t)
	version := run(t, time.Minute, "ctr", "-a", "/run/slipway/containerd.sock", "version").must(t, "ctr version")
	if !strings.Contains(version.stdout, "v2.4.2") {
		t.Errorf("the runtime is not containerd 2:\n%s", version.stdout)
	}
	superKubectl(t, "get", "--raw", "/readyz").must(t, "readyz")
	slipway(t, "reset", "--force").must(t, "slipway reset")
	same(t, before, take(t))
}

// TestResetWithContainerdDead kills containerd without a word first: the containers run on under their shims, and
// nobody is left to ask about them.
func TestResetWithContainerdDead(t *testing.T) {
	before := take(t)
	initialised(t)
	pid := run(t, time.Minute, "pgrep", "-f", "^[^ ]*containerd --config /var/lib/slipway/containerd.toml").must(t, "finding containerd")
	run(t, time.Minute, "kill", "-KILL", strings.TrimSpace(pid.stdout)).must(t, "killing containerd")
	planned := slipway(t, "reset", "--dry-run").must(t, "slipway reset --dry-run")
	done := slipway(t, "reset", "--force").must(t, "slipway reset")
	if planned.stdout != done.stdout {
		t.Errorf("reset --dry-run printed\n%s\nreset did\n%s", planned.stdout, done.stdout)
	}
	same(t, before, take(t))
}

// TestExistingRuntime uses a containerd that the user runs, with a container of its own in it that reset must not touch.
func TestExistingRuntime(t *testing.T) {
	socket, stop := ownContainerd(t)
	defer stop()
	ctr := func(args ...string) result {
		return run(t, time.Minute, "ctr", append([]string{"-a", socket, "-n", "k8s.io"}, args...)...)
	}
	for _, archive := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "pause"} {
		ctr("images", "import", filepath.Join(archives(), archive+".tar")).must(t, "importing "+archive)
	}
	ctr("run", "--detach", "registry.k8s.io/pause:3.10.2", "stranger").must(t, "starting a foreign container")
	before := take(t)
	cleanUp(t)
	slipway(t, "init", "--cri-socket", "unix://"+socket).must(t, "slipway init --cri-socket")
	superKubectl(t, "get", "--raw", "/readyz").must(t, "readyz")
	slipway(t, "reset", "--force").must(t, "slipway reset")
	if left := ctr("containers", "list", "--quiet").must(t, "listing containers"); strings.TrimSpace(left.stdout) != "stranger" {
		t.Errorf("after reset the runtime has the containers %q, want only the stranger's", left.stdout)
	}
	if tasks := ctr("tasks", "list").must(t, "listing tasks"); !strings.Contains(tasks.stdout, "RUNNING") {
		t.Errorf("the foreign container does not run any more:\n%s", tasks.stdout)
	}
	same(t, before, take(t))
	ctr("tasks", "kill", "--signal", "SIGKILL", "stranger").must(t, "ending the foreign container")
	eventually(t, 5*time.Second, "the foreign container's end", func() string {
		if r := ctr("tasks", "list"); strings.Contains(r.stdout, "RUNNING") {
			return r.stdout
		}
		return ""
	})
	ctr("tasks", "delete", "stranger").must(t, "deleting the foreign task")
	ctr("containers", "delete", "stranger").must(t, "deleting the foreign container")
}

// ownContainerd starts a containerd as a user would have it, on directories of its own.
func ownContainerd(t *testing.T) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctrd")
	if err != nil {
		t.Fatal(err)
	}
	config := `version = 2
root = "` + dir + `/root"
state = "` + dir + `/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "` + dir + `/sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "registry.k8s.io/pause:3.10.2"
`
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("containerd", "--config", filepath.Join(dir, "config.toml"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if t.Failed() {
			endTasks(t, dir+"/sock")
		}
		// A shim ends a moment after its last task is deleted, which nobody waits for.
		eventually(t, 10*time.Second, "the end of the shims", func() string {
			return strings.Join(slices.DeleteFunc(processes(t), func(line string) bool {
				return !strings.Contains(line, "shim") || !strings.Contains(line, dir)
			}), "\n")
		})
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if t.Failed() {
			t.Logf("containerd's log:\n%s", tail(log.String(), 40))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing containerd's directories: %v", err)
		}
		// What ctr run, and runc without a root of its own, leave empty behind.
		for _, pattern := range []string{"/sys/fs/cgroup/*/k8s.io", "/sys/fs/cgroup/k8s.io", "/run/containerd/runc/k8s.io", "/run/containerd/runc"} {
			left, _ := filepath.Glob(pattern)
			for _, d := range left {
				syscall.Rmdir(d)
			}
		}
	}
	t.Cleanup(stop)
	eventually(t, 10*time.Second, "containerd", func() string {
		return run(t, time.Minute, "ctr", "-a", dir+"/sock", "version").stderr
	})
	return dir + "/sock", stop
}

// endTasks ends what a failed test has left running.
func endTasks(t *testing.T, socket string) {
	t.Helper()
	ctr := func(args ...string) result {
		return run(t, time.Minute, "ctr", append([]string{"-a", socket, "-n", "k8s.io"}, args...)...)
	}
	for task := range strings.FieldsSeq(ctr("tasks", "list", "--quiet").stdout) {
		ctr("tasks", "delete", "--force", task)
	}
}

// TestSuperviseAlone needs no init: a KubeletConfiguration, a directory with a pod of somebody else's in JSON, and a
// containerd are enough.
func TestSuperviseAlone(t *testing.T) {
	before := take(t)
	socket, stop := ownContainerd(t)
	run(t, time.Minute, "ctr", "-a", socket, "-n", "k8s.io", "images", "import", filepath.Join(archives(), "pause.tar")).must(t, "importing the image")
	dir := t.TempDir()
	pods := filepath.Join(dir, "pods")
	config := filepath.Join(dir, "kubelet.yaml")
	write(t, config, "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\nstaticPodPath: "+pods+"\ncontainerRuntimeEndpoint: unix://"+socket+"\n")
	write(t, filepath.Join(pods, "buoy.json"), `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"buoy"},"spec":{"hostNetwork":true,"terminationGracePeriodSeconds":5,
		"containers":[{"name":"buoy","image":"registry.k8s.io/pause:3.10.2"}]}}`)
	var log bytes.Buffer
	supervise := func() (end func()) {
		cmd := exec.Command(slipwayBinary(), "supervise", "--instance", "alone", "--config", config, "--node-name", "Reef")
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end = sync.OnceFunc(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				t.Errorf("supervise ended with %v", err)
			}
		})
		t.Cleanup(end)
		return end
	}
	show := func() string {
		r := slipway(t, "ps", "--instance", "alone")
		if r.code != 0 {
			return "buoy: " + r.stderr
		}
		return r.stdout
	}
	end := supervise()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("supervise said:\n%s", tail(log.String(), 25))
		}
	})
	eventually(t, 10*time.Second, "the pod", func() string {
		if s := show(); !strings.Contains(s, "default/buoy-reef") || !strings.Contains(s, "Running") {
			return s
		}
		return ""
	})
	second := slipway(t, "supervise", "--instance", "alone", "--config", config)
	if second.code != 1 || !strings.Contains(second.stderr, "pid") {
		t.Errorf("a second supervisor: exit code %d, %s", second.code, second.stderr)
	}
	first := show()
	end()
	end = supervise()
	eventually(t, 10*time.Second, "adoption", func() string {
		if strings.Fields(show() + " x x x x x x x x x")[7] != strings.Fields(first)[7] {
			return show()
		}
		return ""
	})
	if err := os.Remove(filepath.Join(pods, "buoy.json")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "the pod's end", func() string { // ps shows only what runs, status also what is cleared away
		if s := slipway(t, "status", "--instance", "alone").stdout; strings.Contains(s, "buoy") {
			return s
		}
		return ""
	})
	end()
	stop()
	for _, dir := range []string{"/run/slipway-alone", "/var/lib/kubelet-alone", "/var/lib/slipway-alone", "/var/log/pods", "/var/log/containers"} {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}
	removeEmptyCgroups(t)
	same(t, before, take(t))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// removeEmptyCgroups takes away the QoS cgroups, which a supervisor leaves for the next one, as a kubelet does.
func removeEmptyCgroups(t *testing.T) {
	t.Helper()
	for _, pattern := range []string{"/sys/fs/cgroup/*/kubepods/*", "/sys/fs/cgroup/*/kubepods", "/sys/fs/cgroup/kubepods/*", "/sys/fs/cgroup/kubepods"} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				syscall.Rmdir(dir)
			}
		}
	}
}
