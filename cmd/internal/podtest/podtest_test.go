//go:build e2e

package podtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = 30 * time.Second

// TestNode goes through the methods that other tests rely on, with both versions of containerd.
func TestNode(t *testing.T) {
	for _, version := range []string{"1.6", "2"} {
		t.Run(version, func(t *testing.T) { t.Parallel(); testNode(t, version) })
	}
}

func testNode(t *testing.T, version string) {
	var left *Node
	t.Run("pod", func(t *testing.T) {
		n := New(t, Options{Containerd: version, Name: "n1"})
		left = n
		if major := n.Ctr("version"); !strings.Contains(major.Stdout, "Version:  v"+version) && !strings.Contains(major.Stdout, "Version:  "+version) {
			t.Errorf("ctr version prints\n%s\nwant %s", major.Stdout, version)
		}
		n.Supervise()
		n.Put("web.yaml", Pod("web").Container("main", "print:hello", "forever").YAML())
		first := n.WaitRunning("web", "main", patience)
		if first.Pod != "web-n1" || first.Attempt != 0 || first.Image == "" {
			t.Errorf("the first container is %+v", first)
		}
		if r := n.Slipway("ps"); r.Code != 0 || !strings.Contains(r.Stdout, "web") {
			t.Errorf("slipway ps: %+v", r)
		}
		n.KillContainer(first.ID)
		n.WaitFor("the second attempt", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.Attempt == 1, n.Describe("web")
		})
		n.WaitFor("the second line", patience, func() (bool, string) {
			log := n.Log("web", "main")
			return log == "hello\nhello\n", log
		})

		n.KillSupervisor()
		n.KillContainerd()
		n.StartContainerd()
		n.Supervise()
		again := n.WaitRunning("web", "main", patience)
		if again.Attempt != 1 {
			t.Errorf("after a restart of both: %+v, want the second attempt untouched", again)
		}
		if len(n.Leftovers()) == 0 {
			t.Error("a pod runs, and Leftovers finds nothing")
		}
		n.Remove("web.yaml")
		n.WaitGone("web", patience)
		n.WaitFor("an empty machine", patience, func() (bool, string) {
			found := n.Leftovers()
			return len(found) == 0, strings.Join(found, "\n")
		})

		n.PutSlow("slow.yaml", Pod("slow").Container("main", "forever").YAML(), 100*time.Millisecond)
		slow := n.WaitRunning("slow", "main", patience)
		n.KillShim(slow.Sandbox) // for the clean-up to deal with
		n.StopSupervisor()
		n.PauseContainerd()
	})
	for _, path := range []string{left.Dir, left.Paths.Run, left.Paths.Kubelet, left.Paths.State} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if dirs := cgroups(filepath.Base(left.Dir)); len(dirs) > 0 {
		t.Errorf("the cgroups %q are left", dirs)
	}
	if err := syscall.Kill(left.ContainerdPID(), 0); err == nil {
		t.Error("containerd is left")
	}
}

func TestManifestIsAPodOfTheSubject(t *testing.T) {
	got := Pod("web").Container("main", "listen:127.0.0.1:1", "forever").Sidecar("side").Annotate("a", "b").Grace(7).YAML()
	for _, want := range []string{"kind: Pod", "name: web", "hostNetwork: true", "- listen:127.0.0.1:1", "image: " + Image,
		"restartPolicy: Always", "a: b", "terminationGracePeriodSeconds: 7"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// TestSweep leaves a node behind as a killed test process does.
func TestSweep(t *testing.T) {
	ended, err := start(filepath.Join(t.TempDir(), "log"), nil, "true")
	if err != nil {
		t.Fatal(err)
	}
	<-ended.done
	name := fmt.Sprintf("%s%d-0", prefix, ended.PID())
	dir := filepath.Join(os.TempDir(), name)
	for _, d := range []string{dir, "/sys/fs/cgroup/pids/" + name} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, instanceFile), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
	shim, err := start(filepath.Join(dir, "log"), nil, "tail", "-f", dir+"/log")
	if err != nil {
		t.Fatal(err)
	}
	New(t, Options{})
	if shim.Running() {
		t.Error("the process is left")
	}
	if _, err := os.Stat(dir); err == nil || len(cgroups(name)) > 0 {
		t.Errorf("%s is left, or its cgroups %q", dir, cgroups(name))
	}
}
