package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// TestEveryCombination drives Decide from every combination of what can be wanted and seen. The model refuses what
// the runtime would refuse, two running copies, a sandbox made while something old runs, a stop without a reason, and
// an action that is none of its state's; and it must come to rest where the manifest says.
func TestEveryCombination(t *testing.T) {
	wants := map[string]func(policy string) []string{
		"nothing":  nil,
		"same":     func(p string) []string { return []string{"v1", "uid=u", p} },
		"changed":  func(p string) []string { return []string{"v2", p} },
		"same uid": func(p string) []string { return []string{"v2", "uid=u", p} },
	}
	sandboxes := []string{"none", "ready", "not ready", "old ready", "old not ready", "two ready", "old and ready", "gone"}
	containers := []string{"none", "created", "running", "exited 0", "exited 1", "unknown", "liveness", "startup", "other image", "stranger"}
	images := []string{"unknown", "present", "pulling", "failed"}
	n := 0
	for want, words := range wants {
		for _, policy := range []string{"policy=Always", "policy=OnFailure", "policy=Never"} {
			for _, sb := range sandboxes {
				for _, c := range containers {
					for _, im := range images {
						for _, held := range []string{"", "etcd"} {
							for _, remembered := range []bool{false, true} {
								n++
								m := newModel()
								if words != nil {
									m.want = pod(words(policy)...)
								}
								m.held = held
								m.place(sb, c, pod("v1", "uid=u", policy))
								switch im {
								case "present":
									m.images["etcd:v1"], m.images["etcd:v2"] = Image{Present: true}, Image{Present: true}
								case "pulling":
									m.images["etcd:v1"], m.images["etcd:v2"] = Image{Pulling: true}, Image{Pulling: true}
								case "failed":
									failed := Image{Err: "not found", FailedAt: m.now}
									m.images["etcd:v1"], m.images["etcd:v2"] = failed, failed
								}
								if remembered {
									m.mem.Last = pod("v1", "uid=u", policy)
								}
								name := fmt.Sprintf("want %s, %s, sandbox %s, container %s, image %s, held %q, remembered %t", want, policy, sb, c, im, held, remembered)
								if err := m.rest(); err != nil {
									t.Fatalf("%s: %v", name, err)
								}
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", n)
}

// place puts sandboxes and a container of the old pod into the runtime.
func (m *model) place(sandbox, container string, old *manifest.StaticPod) {
	made := m.now.Add(-time.Hour)
	add := func(id, uid string, attempt uint32, ready bool) {
		m.dirs[uid] = true
		m.sandboxes = append(m.sandboxes, Sandbox{ID: id, UID: uid, Attempt: attempt, Ready: ready, HostNetwork: true, SpecHash: old.SpecHash, CreatedAt: made})
	}
	var homes []string
	switch sandbox {
	case "ready", "not ready":
		add("x1", "u", 0, sandbox == "ready")
		homes = []string{"x1"}
	case "old ready", "old not ready":
		add("x1", "old", 0, sandbox == "old ready")
		homes = []string{"x1"}
	case "two ready":
		add("x1", "u", 0, true)
		add("x2", "u", 1, true)
		homes = []string{"x1", "x2"}
	case "old and ready":
		add("x1", "old", 3, true)
		add("x2", "u", 0, true)
		homes = []string{"x1", "x2"}
	case "gone":
		homes = []string{"x9"}
	}
	for i, home := range homes {
		c := Container{
			ID: "xc" + home, Name: "etcd", SandboxID: home, UID: "u", Attempt: uint32(i), CreatedAt: made, StartedAt: made,
			Hash: ContainerHash("etcd", "etcd:v1"), Probe: Probe{Started: true, Ready: true},
		}
		if sb := m.sandbox(home); sb != nil {
			c.UID = sb.UID
		}
		if container == "none" {
			continue
		}
		m.dirs[c.UID] = true
		switch container {
		case "created":
			c.State, c.StartedAt = ContainerCreated, time.Time{}
		case "running":
			c.State = ContainerRunning
		case "exited 0", "exited 1":
			c.State, c.FinishedAt, c.ExitCode = ContainerExited, m.now, int32(container[7]-'0')
		case "unknown":
			c.State = ContainerUnknown
		case "liveness":
			c.State, c.Probe.LivenessFailed = ContainerRunning, "timed out"
		case "startup":
			c.State, c.Probe = ContainerRunning, Probe{StartupFailed: "timed out"}
		case "other image":
			c.State, c.Hash = ContainerRunning, "0"
		case "stranger":
			c.State, c.Name = ContainerRunning, "stranger"
		}
		m.containers = append(m.containers, c)
	}
}

// rest lets the model come to rest three times: as it is, with the other pod ready, and once every wait is over. The
// result must be what is wanted.
func (m *model) rest() error {
	if err := m.tick(0); err != nil {
		return err
	}
	m.held = ""
	if err := m.tick(time.Second); err != nil {
		return err
	}
	if err := m.do("pulled"); err != nil {
		return err
	}
	m.registry = ""
	if err := m.tick(20 * time.Minute); err != nil {
		return err
	}
	return m.asWanted()
}

func (m *model) asWanted() error {
	if m.want == nil {
		if len(m.sandboxes)+len(m.containers)+len(m.dirs) > 0 {
			return fmt.Errorf("left: %v %v %v", m.sandboxes, m.containers, m.dirs)
		}
		return nil
	}
	if len(m.dirs) > 1 {
		return fmt.Errorf("directories left: %v", m.dirs)
	}
	last := m.states[len(m.states)-1]
	var ready []string
	for _, sb := range m.sandboxes {
		if sb.UID != m.want.UID {
			return fmt.Errorf("an old sandbox is left: %v", sb)
		}
		if sb.Ready {
			ready = append(ready, sb.ID)
		}
	}
	dead := map[string]int{}
	running := map[string]int{}
	for _, c := range m.containers {
		switch {
		case alive(&c) && len(ready) == 1 && c.SandboxID == ready[0]:
			running[c.Name]++
		case alive(&c):
			return fmt.Errorf("%s runs in %s", c.Name, c.SandboxID)
		default:
			dead[c.Name]++
		}
	}
	if last == Completed && m.want.Pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		if len(ready) > 0 || len(running) > 0 {
			return fmt.Errorf("completed, yet there is %v %v", ready, running)
		}
		return nil
	}
	if last != Running || len(ready) != 1 {
		return fmt.Errorf("%s, sandboxes %v", last, ready)
	}
	for _, c := range m.want.Pod.Spec.Containers {
		if running[c.Name] != 1 && (dead[c.Name] == 0 || m.want.Pod.Spec.RestartPolicy == corev1.RestartPolicyAlways) {
			return fmt.Errorf("%d running copies of %s", running[c.Name], c.Name)
		}
		if dead[c.Name] > 1 {
			return fmt.Errorf("%d dead copies of %s", dead[c.Name], c.Name)
		}
	}
	return nil
}

// TestRandomEvents plays 10,000 random sequences of edits, crashes and interference. Whatever came before, the pod
// ends as wanted once nothing interferes any more.
func TestRandomEvents(t *testing.T) {
	start := time.Now()
	rounds := 0
	for seed := range uint64(10_000) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := newModel()
		var history []string
		for range 3 + random.IntN(10) {
			line := randomEvent(random)
			history = append(history, line)
			if err := m.attempt(line); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, strings.Join(history, " | "), err)
			}
		}
		if err := m.calm(); err != nil {
			t.Fatalf("seed %d: %s: %v", seed, strings.Join(history, " | "), err)
		}
		checkSuccessors(t, m.states)
		if t.Failed() {
			t.Fatalf("seed %d: %s\n%v", seed, strings.Join(history, " | "), m.states)
		}
		rounds += len(m.states)
	}
	t.Logf("%d rounds in %s", rounds, time.Since(start))
}

// calm ends all interference, and tells whether the pod ends as wanted.
func (m *model) calm() error {
	clear(m.stubborn)
	clear(m.broken)
	m.probes = false
	for i := range m.containers {
		if alive(&m.containers[i]) {
			m.containers[i].Probe = Probe{Started: true, Ready: true}
		}
	}
	return m.finish()
}

// finish ends every init container well until the pod is as wanted.
func (m *model) finish() error {
	for range 6 {
		if err := m.rest(); err == nil {
			return nil
		}
		for i := range m.containers {
			c := &m.containers[i]
			if m.want != nil && c.State == ContainerRunning && slices.ContainsFunc(m.want.Pod.Spec.InitContainers, func(s corev1.Container) bool {
				return s.Name == c.Name && !isSidecar(&s)
			}) {
				m.exit(c, 0)
			}
		}
	}
	return m.rest()
}

// attempt is command for events that may not apply.
func (m *model) attempt(line string) error {
	err := m.command(line)
	if err != nil && (strings.HasPrefix(err.Error(), "no container") || strings.HasPrefix(err.Error(), "no sandbox")) {
		return nil
	}
	return err
}

func randomEvent(random *rand.Rand) string {
	pick := func(s ...string) string { return s[random.IntN(len(s))] }
	name := pick("etcd", "aux", "prepare", "log", "mesh")
	switch random.IntN(24) {
	case 0, 1, 2, 3:
		words := []string{"manifest", pick("v1", "v2", "v3"), "policy=" + pick("Always", "Always", "OnFailure", "Never")}
		for _, w := range []string{"containers=etcd,aux", "init=prepare", "sidecars=log,mesh", "grace=5s", "pull=Always", "uid=mine", "hook", "network=pod"} {
			if random.IntN(3) == 0 {
				words = append(words, w)
			}
		}
		return strings.Join(words, " ") + pick("", "", "; one")
	case 4, 5:
		return "remove" + pick("", "; one", "; clock 3s")
	case 6, 7, 8:
		return fmt.Sprintf("cri exit %s %d", name, random.IntN(2)) + pick("", "", "; one")
	case 9:
		return "cri pause"
	case 10:
		return pick("cri reboot; forget", "restart; forget", "restart", "restart")
	case 11:
		return "cri rm " + name
	case 12:
		return "cri unknown " + name
	case 13:
		return fmt.Sprintf("probe %s %s", name, pick("started", "ready", "unready x", "liveness x", "startup x"))
	case 14:
		return pick("hold etcd", "hold etcd", "release")
	case 15:
		return "registry " + pick("", "slow", "not found")
	case 16:
		return "pulled"
	case 17:
		return "stubborn " + name
	case 18:
		return pick("break clean up", "break remove sandbox", "break remove container", "break run sandbox", "break start container", "break stop sandbox")
	case 19:
		return pick("clock 8760h", "clock -8760h", "clock -3s")
	case 20:
		return pick("cri wipe", "cri second", "cri kubelet", "cri create etcd")
	case 21:
		return "probes"
	default:
		return pick("tick 1s", "tick 10s", "tick 5m", "tick 15m")
	}
}
