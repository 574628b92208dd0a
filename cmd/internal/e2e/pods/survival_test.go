//go:build e2e

package pods

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// patience is for what takes well under a second on an idle machine.
const patience = 30 * time.Second

// versions are the containerds that survival is tested with.
var versions = []string{"1.6", "2"}

// eachVersion runs a test with every containerd, on a node of its own whose supervisor runs.
func eachVersion(t *testing.T, test func(t *testing.T, n *podtest.Node)) {
	for _, version := range versions {
		t.Run("containerd "+version, func(t *testing.T) {
			n := podtest.New(t, podtest.Options{Containerd: version})
			n.Supervise()
			test(t, n)
		})
	}
}

func web() string { return podtest.Pod("web").Container("main", "print:hello", "forever").YAML() }

// running puts a pod and returns its container once the supervisor says that it is ready.
func running(n *podtest.Node) podtest.Container {
	n.Put("web.yaml", web())
	c := n.WaitRunning("web", "main", patience)
	waitReady(n, "web")
	return c
}

// shown is the pod as the supervisor shows it; nil when it shows none.
func shown(n *podtest.Node, pod string) *corev1.Pod {
	body, _, err := n.Get("/pods")
	var list corev1.PodList
	if err != nil || json.Unmarshal(body, &list) != nil {
		return nil
	}
	for i := range list.Items {
		if list.Items[i].Name == n.PodName(pod) {
			return &list.Items[i]
		}
	}
	return nil
}

func ready(p *corev1.Pod) bool {
	return p != nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func waitReady(n *podtest.Node, pod string) {
	n.WaitFor("pod "+pod+" to be ready", patience, func() (bool, string) {
		p := shown(n, pod)
		return ready(p), why(p)
	})
}

func why(p *corev1.Pod) string {
	if p == nil {
		return "the supervisor does not show it"
	}
	return fmt.Sprintf("%s, %s", p.Annotations["slipway.dev/state"], p.Annotations["slipway.dev/why"])
}

// untouched fails when the container does not run any more or another one is there.
func untouched(t *testing.T, n *podtest.Node, pod string, before podtest.Container) {
	t.Helper()
	all := n.Containers(pod)
	if len(all) != 1 || all[0].ID != before.ID || all[0].State != "running" {
		t.Errorf("the pod was touched; before: container %.13s\nnow: %s", before.ID, n.Describe(pod))
	}
}

// TestSupervisorKilledAtAnyInstant kills the supervisor again and again while it works on edits. In the end the last
// version runs, once, and nothing else is there.
func TestSupervisorKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	bystander := podtest.Pod("bystander").Container("main", "forever").YAML()
	n.Put("bystander.yaml", bystander)
	n.Supervise()
	fine := n.WaitRunning("bystander", "main", patience)
	const rounds = 25
	for round := range rounds {
		n.Put("web.yaml", podtest.Pod("web").Container("main", fmt.Sprint("print:", round), "forever").YAML())
		pause(t, time.Duration(random.Int64N(int64(250*time.Millisecond))))
		n.KillSupervisor()
		n.Supervise()
	}
	last := fmt.Sprint(rounds-1) + "\n"
	n.WaitFor("the last version alone", patience, func() (bool, string) {
		all := n.Containers("web")
		return len(all) == 1 && all[0].State == "running" && strings.HasSuffix(n.Log("web", "main"), last) && len(n.Sandboxes("web")) == 1, n.Describe("web")
	})
	untouched(t, n, "bystander", fine)
	uids := map[string]bool{}
	for _, s := range n.Sandboxes("") {
		uids[s.UID] = true
	}
	// Whoever made a directory may be dead: what nobody knows is collected after two looks, a minute apart.
	n.WaitFor("nothing of the other versions on disk", 4*time.Minute, func() (bool, string) {
		entries, err := os.ReadDir(filepath.Join(n.Paths.Kubelet, "pods"))
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range entries {
			if !uids[e.Name()] {
				left = append(left, e.Name())
			}
		}
		return len(left) == 0, strings.Join(left, " ")
	})
}

// TestSupervisorKilledWhileStarting kills the supervisor while it starts a container that is never restarted. Whether the start goes on without it or is given up, which takes containerd some seconds: the container
// runs in the end, once, and nothing is left of another one.
func TestSupervisorKilledWhileStarting(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		seed := uint64(time.Now().UnixNano())
		t.Logf("seed %d", seed)
		random, last := rand.New(rand.NewPCG(seed, 0)), ""
		for round := range 8 {
			manifest := podtest.Pod("web").Restart(corev1.RestartPolicyNever).Container("main", fmt.Sprint("print:", round), "forever").YAML()
			n.Put("web.yaml", manifest)
			n.WaitFor(fmt.Sprintf("a container of version %d", round), patience, func() (bool, string) {
				all := n.Containers("web")
				return len(all) > 0 && all[0].ID != last, n.Describe("web")
			})
			pause(t, time.Duration(random.Int64N(int64(100*time.Millisecond))))
			n.KillSupervisor()
			n.Supervise()
			n.WaitFor(fmt.Sprintf("version %d alone", round), patience, func() (bool, string) {
				all := n.Containers("web")
				return len(all) == 1 && all[0].State == "running" && n.Log("web", "main") == fmt.Sprintln(round), n.Describe("web")
			})
			last = n.Containers("web")[0].ID
		}
	})
}

// pause lets time pass that is part of what is tested.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// TestContainerdRestarts ends containerd, gently and not, under a supervisor that goes on. The pods do not notice, and
// the supervisor works again as soon as containerd does.
func TestContainerdRestarts(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		before := running(n)
		for i, end := range []func(){n.StopContainerd, n.KillContainerd} {
			end()
			n.StartContainerd()
			name := fmt.Sprint("next", i)
			n.Put(name+".yaml", podtest.Pod(name).Container("main", "forever").YAML())
			n.WaitRunning(name, "main", patience)
			untouched(t, n, "web", before)
		}
		n.KillContainer(before.ID)
		n.WaitFor("the second attempt", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.Attempt == 1, n.Describe("web")
		})
	})
}

// TestContainerdHangs stops containerd from answering for longer than a listing may take. The supervisor goes on
// answering, touches nothing, and does what was wanted meanwhile when containerd answers again.
func TestContainerdHangs(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		before := running(n)
		n.PauseContainerd()
		n.Put("late.yaml", podtest.Pod("late").Container("main", "forever").YAML())
		for range 12 {
			begin := time.Now()
			if r := n.Slipway("ps"); r.Code != 0 || !strings.Contains(r.Stdout, "web") {
				t.Errorf("slipway ps while containerd hangs: %+v", r)
			}
			if took := time.Since(begin); took > 5*time.Second { // a listing is given up after ten
				t.Errorf("slipway ps took %s while containerd hangs", took)
			}
			pause(t, time.Second)
		}
		n.ResumeContainerd()
		n.WaitRunning("late", "main", patience)
		untouched(t, n, "web", before)
	})
}

// TestShimKilled: nobody has a hold on the containers of a shim that is gone. Their processes must not go on beside those
// of the sandbox that replaces theirs.
func TestShimKilled(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		n.Put("web.yaml", podtest.Pod("web").Container("main", "listen:127.0.0.1:18311", "forever").YAML())
		before := n.WaitRunning("web", "main", patience)
		process := n.PID(before.ID)
		n.KillShim(before.Sandbox)
		n.WaitFor("another container", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.ID != before.ID && c.Sandbox != before.Sandbox, n.Describe("web")
		})
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", process)); err == nil && !strings.Contains(string(status), "\nState:\tZ") {
			t.Errorf("the container's former process %d goes on:\n%s", process, status)
		}
		waitReady(n, "web")
		oneSandbox(n, "web")
	})
}

// TestPauseKilled: with its pause process a sandbox is not ready any more, and the pod gets another one.
func TestPauseKilled(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		before := running(n)
		n.KillContainer(before.Sandbox)
		n.WaitFor("another sandbox", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.Sandbox != before.Sandbox && c.Attempt == 1, n.Describe("web")
		})
		oneSandbox(n, "web")
	})
}

// oneSandbox waits until one sandbox of the pod is ready and one container runs. A dead container is kept, with its
// sandbox: its exit code is still shown.
func oneSandbox(n *podtest.Node, pod string) {
	n.WaitFor("one ready sandbox of "+pod, patience, func() (bool, string) {
		ready, running := 0, 0
		for _, s := range n.Sandboxes(pod) {
			if s.State == "ready" {
				ready++
			}
		}
		for _, c := range n.Containers(pod) {
			if c.State == "running" {
				running++
			}
		}
		return ready == 1 && running == 1, n.Describe(pod)
	})
}

// TestRemovedBehindItsBack removes a container, then a sandbox, as crictl does.
func TestRemovedBehindItsBack(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		first := running(n)
		client := n.CRI()
		if err := client.RemoveContainer(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		n.WaitFor("a container in the same sandbox", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.ID != first.ID && c.Sandbox == first.Sandbox && c.Attempt == 1, n.Describe("web")
		})
		if err := client.StopPodSandbox(t.Context(), first.Sandbox); err != nil {
			t.Fatal(err)
		}
		if err := client.RemovePodSandbox(t.Context(), first.Sandbox); err != nil {
			t.Fatal(err)
		}
		n.WaitFor("a container in another sandbox", patience, func() (bool, string) {
			c, found := n.Running("web", "main")
			return found && c.Sandbox != first.Sandbox && c.Attempt >= 2, n.Describe("web") // one may have been begun in the old one
		})
		oneSandbox(n, "web")
	})
}

// TestFullDisk fills the file system that holds the pods' directories. What runs goes on; a new pod says what it lacks,
// and starts when there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	if err := os.MkdirAll(n.Paths.Kubelet, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", n.Paths.Kubelet, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the node's own
		n.KillSupervisor()
		n.Clear()
		if err := syscall.Unmount(n.Paths.Kubelet, 0); err != nil {
			t.Error(err)
		}
	})
	n.Supervise()
	before := running(n)
	ballast := filepath.Join(n.Paths.Kubelet, "ballast")
	fill(t, ballast)
	n.Put("late.yaml", podtest.Pod("late").Container("main", "forever").YAML())
	n.WaitFor("the reason in the status", patience, func() (bool, string) {
		p := shown(n, "late")
		return p != nil && strings.Contains(why(p), "no space left"), why(p)
	})
	untouched(t, n, "web", before)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	n.WaitRunning("late", "main", patience)
	untouched(t, n, "web", before)
}

// fill writes to a file until its file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}

// TestFloodOfLogs has a container print 1 GB in a minute. The disk holds a few times the largest log that is allowed, the
// supervisor grows by nothing, and the pod beside it is fine.
func TestFloodOfLogs(t *testing.T) {
	t.Parallel()
	const size, files = 4 << 20, 3
	n := podtest.New(t, podtest.Options{Kubelet: map[string]any{"containerLogMaxSize": "4Mi", "containerLogMaxFiles": files}})
	n.Supervise()
	fine := running(n)
	n.Put("flood.yaml", podtest.Pod("flood").Restart(corev1.RestartPolicyNever).Container("main", "flood:1000000000:17000000").YAML())
	n.WaitRunning("flood", "main", patience)
	before, most := resident(t, n.SupervisorPID()), int64(0)
	n.WaitFor("the flood's end", 3*time.Minute, func() (bool, string) {
		most = max(most, sizeOf(t, filepath.Join(n.PodLogs, "*flood*", "main", "*")))
		p := shown(n, "flood")
		return p != nil && p.Status.Phase == corev1.PodSucceeded, why(p)
	})
	after := resident(t, n.SupervisorPID())
	t.Logf("logs: at most %d MiB; resident: %d KiB before, %d KiB after", most>>20, before, after)
	// Logs are looked at every second, and 17 MB/s with the runtime's time stamps are 25 MB/s.
	if limit := int64(files*size + 3*25<<20); most > limit {
		t.Errorf("the logs had %d bytes, want at most %d", most, limit)
	}
	if after > before*3/2 {
		t.Errorf("the supervisor grew from %d KiB to %d KiB", before, after)
	}
	untouched(t, n, "web", fine)
}

// sizeOf is the size of all files that match.
func sizeOf(t *testing.T, pattern string) (sum int64) {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // else it was rotated away
			sum += info.Size()
		}
	}
	return sum
}

// TestSilentDNS: with a name server that never answers, each look-up takes thirty seconds. Nothing here may make one.
func TestSilentDNS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	silent, program := filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "slipway")
	real, err := filepath.Abs("../../../../bin/slipway")
	if err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation private sh -c 'mount --bind %s /etc/resolv.conf && exec %s \"$@\"' - \"$@\"\n", silent, real)
	for path, text := range map[string]string{silent: "nameserver 192.0.2.1\noptions timeout:30 attempts:1\n", program: script} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n := podtest.New(t, podtest.Options{Program: program})
	n.Supervise()
	begin := time.Now()
	c := running(n)
	n.KillContainer(c.ID)
	n.WaitFor("the second attempt", patience, func() (bool, string) {
		c, found := n.Running("web", "main")
		return found && c.Attempt == 1, n.Describe("web")
	})
	if took := time.Since(begin); took > 25*time.Second {
		t.Errorf("a start and a restart took %s", took)
	}
}

// TestMemoryStaysFlat edits a pod a hundred times and compares the supervisor's memory and goroutines before and after.
func TestMemoryStaysFlat(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	edit := func(first, last int) {
		for i := first; i < last; i++ {
			n.Put("web.yaml", podtest.Pod("web").Container("main", fmt.Sprint("print:", i), "forever").YAML())
			n.WaitFor(fmt.Sprintf("edit %d", i), patience, func() (bool, string) {
				return strings.HasSuffix("\n"+n.Log("web", "main"), fmt.Sprintf("\n%d\n", i)), n.Describe("web")
			})
		}
	}
	edit(0, 20)
	before := resident(t, n.SupervisorPID())
	edit(20, 120)
	after := resident(t, n.SupervisorPID())
	t.Logf("resident: %d KiB after 20 edits, %d KiB after 120", before, after)
	if after > before*5/4 {
		t.Errorf("the supervisor grew from %d KiB to %d KiB in a hundred edits", before, after)
	}
}

// resident is a process's resident memory in KiB.
func resident(t *testing.T, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nVmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}
