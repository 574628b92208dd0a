package lifecycle

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

func TestStrings(t *testing.T) {
	second := time.Second
	for want, got := range map[string]string{
		"created": ContainerCreated.String(), "running": ContainerRunning.String(), "exited": ContainerExited.String(), "unknown": ContainerUnknown.String(),
		"ensure image": EnsureImage.String(), "run sandbox": RunSandbox.String(), "start container": StartContainer.String(), "stop container": StopContainer.String(),
		"stop sandbox": StopSandbox.String(), "remove container": RemoveContainer.String(), "remove sandbox": RemoveSandbox.String(), "clean up": CleanUp.String(),
		"Absent": Absent.String(), "Held": Held.String(), "Pulling": Pulling.String(), "Starting": Starting.String(), "Running": Running.String(),
		"BackOff": BackOff.String(), "Completed": Completed.String(), "Terminating": Terminating.String(),
		"-1": State(-1).String(), "8": State(8).String(),

		"start container etcd (attempt 3): back-off over":              Action{Kind: StartContainer, Name: "etcd", Attempt: 3, Why: "back-off over"}.String(),
		"stop container etcd (attempt 1, grace 30s): manifest removed": Action{Kind: StopContainer, Name: "etcd", Attempt: 1, Grace: 30 * second, Why: "manifest removed"}.String(),
		"remove container etcd (attempt 0)":                            Action{Kind: RemoveContainer, Name: "etcd"}.String(),
		"run sandbox (attempt 2): sandbox not ready":                   Action{Kind: RunSandbox, Attempt: 2, Why: "sandbox not ready"}.String(),
		"ensure image registry.k8s.io/etcd:3.6.8-0: not asked for yet": Action{Kind: EnsureImage, Image: "registry.k8s.io/etcd:3.6.8-0", Why: "not asked for yet"}.String(),
		"stop sandbox 1f":   Action{Kind: StopSandbox, ID: "1f"}.String(),
		"remove sandbox 1f": Action{Kind: RemoveSandbox, ID: "1f"}.String(),
		"clean up 0a5e":     Action{Kind: CleanUp, UID: "0a5e"}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestContainerHash holds the hash to values that kubelets wrote.
func TestContainerHash(t *testing.T) {
	for _, c := range []struct{ name, image, want string }{
		{"test_container", "foo/image:v1", "8e45cbd0"},
		{"etcd", "registry.k8s.io/etcd:3.6.8-0", "f46469c9"},
	} {
		if got := ContainerHash(c.name, c.image); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.name, c.image, got, c.want)
		}
	}
}

// TestDecideIsPure calls Decide twice with arguments in another order and compares the answers and the arguments.
func TestDecideIsPure(t *testing.T) {
	same := cmp.Options{cmpopts.EquateComparable(manifest.StaticPod{}), cmp.Comparer(func(a, b *manifest.StaticPod) bool { return a == b })}
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 2))
		m := newModel()
		for range 8 {
			if err := m.attempt(randomEvent(random.IntN)); err != nil {
				t.Fatal(err)
			}
			seen, mem := m.observed(), m.mem.clone()
			d1, mem1 := Decide(m.now, m.want, seen, m.mem)
			if diff := cmp.Diff(mem, m.mem.clone(), same); diff != "" {
				t.Fatalf("seed %d: Decide changed the memory it was given:\n%s", seed, diff)
			}
			random.Shuffle(len(seen.Sandboxes), func(i, j int) { seen.Sandboxes[i], seen.Sandboxes[j] = seen.Sandboxes[j], seen.Sandboxes[i] })
			random.Shuffle(len(seen.Containers), func(i, j int) { seen.Containers[i], seen.Containers[j] = seen.Containers[j], seen.Containers[i] })
			d2, mem2 := Decide(m.now, m.want, seen, m.mem)
			if diff := cmp.Diff(d1, d2) + cmp.Diff(mem1, mem2, same); diff != "" {
				t.Fatalf("seed %d: the order of what is seen matters:\n%s", seed, diff)
			}
		}
	}
}

// FuzzDecide makes a sequence of events of bytes, each the roll of a die, and checks what TestRandomEvents checks.
func FuzzDecide(f *testing.F) {
	f.Add([]byte("start, stop, start"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 300 {
			return
		}
		roll := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := int(data[0])
			data = data[1:]
			return b % n
		}
		m := newModel()
		var history []string
		for len(data) > 0 {
			line := randomEvent(roll)
			history = append(history, line)
			if err := m.attempt(line); err != nil {
				t.Fatalf("%s: %v", strings.Join(history, " | "), err)
			}
			if err := m.setClock(); err != nil {
				t.Fatalf("%s: %v", strings.Join(history, " | "), err)
			}
		}
		checkSuccessors(t, m.states)
		if err := m.calm(); err != nil {
			t.Fatalf("%s: %v", strings.Join(history, " | "), err)
		}
	})
}

func BenchmarkDecideSteady(b *testing.B) {
	m := newModel()
	if err := m.command("manifest v1 containers=etcd,aux"); err != nil {
		b.Fatal(err)
	}
	seen := m.observed()
	b.ReportAllocs()
	for b.Loop() {
		if d, _ := Decide(m.now, m.want, seen, m.mem); d.State != Running {
			b.Fatal(d)
		}
	}
}
