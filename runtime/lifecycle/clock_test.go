package lifecycle

import (
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// TestClockNeverDelays holds every wait to the delay in force, whatever the container's clock said.
func TestClockNeverDelays(t *testing.T) {
	for _, jump := range []time.Duration{0, time.Hour, -time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour} {
		m := newModel()
		for _, line := range []string{"manifest v1", "cri exit etcd 1", "cri exit etcd 1"} {
			if err := m.command(line); err != nil {
				t.Fatal(err)
			}
		}
		m.now = m.now.Add(jump)
		d, _ := Decide(m.now, m.want, m.observed(), m.mem)
		if wait := d.Wake.Sub(m.now); !d.Wake.IsZero() && wait > firstBackOff {
			t.Errorf("clock moved by %s: waits %s", jump, wait)
		}
		d, _ = Decide(m.now, m.want, m.observed(), Memory{})
		if d.State != Starting {
			t.Errorf("clock moved by %s, nothing remembered: %s, %s", jump, d.State, d.Why)
		}
	}
}

// TestSetClock sets the wall clock by a year either way under a supervisor whose times carry a monotonic reading, as
// time.Now's do: nothing that it measures itself may change.
func TestSetClock(t *testing.T) {
	for name, lines := range map[string][]string{
		"deadline":          {"manifest v1 deadline=1m", "tick 20s"},
		"deadline, remade":  {"manifest v1 deadline=1m", "tick 20s", "cri pause"},
		"expired":           {"manifest v1 deadline=1m grace=30s", "stubborn etcd", "tick 1m", "clock 10s"},
		"ended":             {"manifest v1 policy=Never sidecars=log grace=30s", "stubborn log", "cri exit etcd 0", "clock 10s"},
		"terminating":       {"manifest v1 grace=30s", "stubborn etcd", "remove", "clock 10s"},
		"sandbox back-off":  {"manifest v1", "cri pause", "cri pause"},
		"two kinds of wait": {"manifest v1 deadline=5s", "cri exit etcd 1", "cri exit etcd 1"},
		"running":           {"manifest v1 sidecars=log"},
		"completed":         {"manifest v1 policy=Never deadline=1m", "cri exit etcd 0"},
	} {
		for _, jump := range []time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour} {
			m := newModel()
			m.now = time.Now()
			for _, line := range lines {
				if err := m.command(line); err != nil {
					t.Fatal(err)
				}
			}
			before, _ := Decide(m.now, m.want, m.observed(), m.mem)
			m.now = setWall(t, m.now, jump)
			after, _ := Decide(m.now, m.want, m.observed(), m.mem)
			if name == "two kinds of wait" && jump > 0 { // the runtime's clock has no monotonic reading: the back-off is over
				continue
			}
			same := cmp.Comparer(func(a, b time.Time) bool { return a.IsZero() == b.IsZero() && a.Sub(b).Abs() < time.Millisecond })
			if diff := cmp.Diff(before, after, same); diff != "" {
				t.Errorf("%s, clock set by %s:\n%s", name, jump, diff)
			}
		}
	}
}

// setWall returns a time as time.Now would after the wall clock was set by d: its monotonic reading stays. There is no
// other way to make one.
func setWall(t *testing.T, now time.Time, d time.Duration) time.Time {
	t.Helper()
	set := now
	// time.Time begins with 1 bit for a monotonic reading, 33 bits of seconds, and 30 bits of nanoseconds.
	*(*uint64)(unsafe.Pointer(&set)) += uint64(d/time.Second) << 30
	if set.Sub(now) != 0 || set.Round(0).Sub(now.Round(0)) != d {
		t.Fatalf("time.Time is made otherwise than this test thinks: %s, %s", now, set)
	}
	return set
}

// TestWakeIsTheEarliest mixes a wait that the supervisor measures with one by the runtime's clock, which was set between.
func TestWakeIsTheEarliest(t *testing.T) {
	m := newModel()
	m.now = time.Now()
	run := func(lines ...string) {
		for _, line := range lines {
			if err := m.command(line); err != nil {
				t.Fatal(err)
			}
		}
	}
	run("manifest v1 containers=etcd,aux", "registry not found")
	delete(m.images, "aux:v1")
	run("cri exit aux 1", "tick 10s", "tick 20s") // the pull waits for 40 s
	m.now = setWall(t, m.now, time.Hour)
	run("cri exit etcd 1", "cri exit etcd 1") // the container for 10 s
	d, _ := Decide(m.now, m.want, m.observed(), m.mem)
	if wait := d.Wake.Sub(m.now); wait < 9*time.Second || wait > firstBackOff {
		t.Errorf("looks again in %s: %s", wait, d.Why)
	}
}
