package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRandomEvents plays 10,000 random sequences of edits, crashes and interference. Whatever came before, the pod
// ends as wanted once nothing interferes any more.
func TestRandomEvents(t *testing.T) {
	start := time.Now()
	rounds, seen := 0, map[string]int{}
	for seed := range uint64(10_000) {
		random := rand.New(rand.NewPCG(seed, 1))
		m := newModel()
		m.print = func(format string, args ...any) { count(seen, fmt.Sprintf(format, args...)) }
		var history []string
		for range 4 + random.IntN(16) {
			line := randomEvent(random.IntN)
			history = append(history, line)
			if err := m.attempt(line); err != nil {
				t.Fatalf("seed %d: %s: %v", seed, strings.Join(history, " | "), err)
			}
			if err := m.setClock(); err != nil {
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
	for _, said := range telling {
		if seen[said] < 10 {
			t.Errorf("the events led to %q only %d times", said, seen[said])
		}
	}
	t.Logf("%d rounds in %s: %v", rounds, time.Since(start), seen)
}

// telling is what Decide must have said for the random events to be worth their time.
var telling = []string{
	"post-start hook failed", "its post-start hook has not ended", "waits for the post-start hook of", "restarted by hand", "watched files have changed",
	ReasonDeadlineExceeded, ReasonPostStartHook, "restarting all containers", "back-off 10s restarting all", "or once", "ensure image data:v1", "waits for base",
}

func count(seen map[string]int, said string) {
	for _, s := range telling {
		if strings.Contains(said, s) {
			seen[s]++
		}
	}
}

// setClock looks once more with the clock set by a year either way: no container may be stopped for that, and no wait
// may be longer than the longest in force. A deadline is another matter, see TestSetClock.
func (m *model) setClock() error {
	base, _ := m.policy.Decide(m.now, m.want, m.observed(), m.mem)
	for _, jump := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		now := m.now.Add(jump)
		d, mem := m.policy.Decide(now, m.want, m.observed(), m.mem)
		if d.Reason == ReasonDeadlineExceeded {
			continue
		}
		for _, a := range d.Actions {
			same := func(b Action) bool { return a.Kind == b.Kind && a.ID == b.ID }
			if a.Kind == StopContainer && !slices.ContainsFunc(base.Actions, same) && a.Why != "watched files have changed" {
				return fmt.Errorf("set by %s: %s", jump, a)
			}
		}
		longest := settleTime
		for _, entries := range []map[string]BackOffEntry{mem.BackOff, mem.Spared, mem.Pull} {
			for _, e := range entries {
				longest = max(longest, e.Delay)
			}
		}
		if m.want != nil && m.want.Pod.Spec.ActiveDeadlineSeconds != nil {
			longest = max(longest, time.Duration(*m.want.Pod.Spec.ActiveDeadlineSeconds)*time.Second-mem.Active)
		}
		if wait := d.Wake.Sub(now); !d.Wake.IsZero() && wait > longest {
			return fmt.Errorf("set by %s: waits %s, but the longest wait is %s", jump, wait, longest)
		}
	}
	return nil
}

// attempt is command for events that may not apply.
func (m *model) attempt(line string) error {
	err := m.command(line)
	if err != nil && (strings.HasPrefix(err.Error(), "no container") || strings.HasPrefix(err.Error(), "no sandbox")) {
		return nil
	}
	return err
}

// randomEvent returns a line of a trace. roll returns a number from 0 up to its argument.
func randomEvent(roll func(int) int) string {
	pick := func(s ...string) string { return s[roll(len(s))] }
	name := func() string { return pick("etcd", "etcd", "etcd", "aux", "prepare", "log", "mesh") }
	switch roll(32) {
	case 0, 1, 2:
		return randomManifest(roll, pick) + pick("", "", "; one")
	case 3:
		return "remove" + pick("", "; one", "; clock 3s")
	case 4, 5, 6, 7, 8, 9, 10:
		return fmt.Sprintf("cri exit %s %d", name(), roll(2)) + pick("", "", "; one")
	case 11:
		return "cri pause"
	case 12:
		return pick("cri reboot; forget", "restart; forget", "restart", "restart")
	case 13:
		return "cri rm " + name()
	case 14:
		return "cri unknown " + name()
	case 15:
		return fmt.Sprintf("probe %s %s", name(), pick("started", "ready", "unready x", "liveness x", "startup x"))
	case 16:
		return pick("hold base", "hold base; cri exit "+name()+" 1", "release")
	case 17:
		return "registry " + pick("", "slow", "not found")
	case 18:
		return "pulled"
	case 19:
		return "stubborn " + name()
	case 20:
		return "break " + pick("clean up", "remove sandbox", "remove container", "run sandbox", "start container", "stop sandbox", "stop container")
	case 21:
		return pick("clock 8760h", "clock -8760h", "clock -3s")
	case 22:
		return pick("cri wipe", "cri second", "cri kubelet", "cri create etcd", "cri rehash "+name())
	case 23:
		return pick("probes", "hooks")
	case 24, 25:
		return fmt.Sprintf("hook %s %s", pick("etcd", "aux", "log"), pick("done", "failed x", "failed x", "running x"))
	case 26:
		return pick("ask "+name()+" restarted by hand", "ask "+name()+" restarted by hand", "unask")
	case 27, 28:
		return "watch " + pick("a", "b", "c", "")
	case 29:
		return "code " + pick("0", "1", "143")
	default:
		return "tick " + pick("1s", "10s", "5m", "15m")
	}
}

func randomManifest(roll func(int) int, pick func(...string) string) string {
	words := []string{"manifest", pick("v1", "v2", "v3"), "policy=" + pick("Always", "Always", "OnFailure", "Never")}
	for _, w := range []string{
		"containers=etcd,aux", "init=prepare", "sidecars=log,mesh", "grace=5s", "pull=Always", "uid=mine", "network=pod",
		"hook=" + pick("etcd", "etcd,log"), "volume=data:v1:" + pick("Always", "IfNotPresent"),
	} {
		if roll(3) == 0 {
			words = append(words, w)
		}
	}
	if roll(8) == 0 {
		words = append(words, "deadline="+pick("5s", "90s", "1h"))
	}
	if roll(4) == 0 {
		words = append(words, pick("own=etcd:Never", "own=etcd:OnFailure", "own=aux:Never"))
	}
	if roll(3) == 0 {
		words = append(words, pick(
			"own=etcd:Never rule=etcd:In:1:RestartAllContainers", "own=aux:OnFailure rule=aux:In:1:RestartAllContainers",
			"rule=log:In:1,143:RestartAllContainers", "own=prepare:Never rule=prepare:In:1:RestartAllContainers", "own=etcd:Never rule=etcd:In:1:Restart",
		))
	}
	return strings.Join(words, " ")
}
