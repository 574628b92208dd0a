package hook

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// world runs hooks that last ten seconds, and notes when they begin and end.
type world struct {
	mu      sync.Mutex
	start   time.Time
	began   []string
	ended   []string // with ctx's error, where it ended them
	changed []string // with the time
	fail    error
}

func (w *world) run(ctx context.Context, _ *corev1.LifecycleHandler, c *corev1.Container, id, podIP string) error {
	w.mu.Lock()
	w.began = append(w.began, c.Name+" "+id+" "+podIP)
	w.mu.Unlock()
	err := sleep(ctx, 10*time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.ended = append(w.ended, id)
		return err
	}
	return w.fail
}

func (w *world) change(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = append(w.changed, name+" "+time.Since(w.start).String())
}

func newWorld(t *testing.T) (*world, *Set) {
	w := &world{start: time.Now()}
	s := NewSet(Deps{Run: w.run, Changed: w.change})
	t.Cleanup(s.Close)
	return w, s
}

func post(t *testing.T, id string) PostStart {
	c := etcd()
	c.Lifecycle = &corev1.Lifecycle{PostStart: execHook("/bin/hello")}
	return PostStart{FullName: "kube-system/etcd-node", ID: id, PodIP: "10.0.0.1", Container: c, Marker: filepath.Join(t.TempDir(), id)}
}

func start(t *testing.T, s *Set, p PostStart) {
	t.Helper()
	if err := s.Start(p); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, s *Set, p PostStart, state lifecycle.HookState, pending bool) {
	t.Helper()
	if got := s.Result(p.ID); got.State != state {
		t.Errorf("%s is in state %d (%s), want %d", p.ID, got.State, got.Message, state)
	}
	if got := Pending(p.Marker); got != pending {
		t.Errorf("%s is pending: %t, want %t", p.ID, got, pending)
	}
}

func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestAHookRunsBesideItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(t)
		p := post(t, "1")
		expect(t, s, p, lifecycle.HookDone, false) // not told of yet
		start(t, s, p)
		expect(t, s, p, lifecycle.HookRunning, true)
		start(t, s, p) // a second look at the same container
		after(9 * time.Second)
		expect(t, s, p, lifecycle.HookRunning, true)
		after(time.Second)
		expect(t, s, p, lifecycle.HookDone, false)
		start(t, s, p) // nor does a container's hook run again once it has ended
		synctest.Wait()
		expect(t, s, p, lifecycle.HookDone, false)
		if len(w.began) != 1 || w.began[0] != "etcd 1 10.0.0.1" {
			t.Errorf("hooks that ran: %q", w.began)
		}
		if len(w.changed) != 1 || w.changed[0] != "kube-system/etcd-node 10s" {
			t.Errorf("changes: %q", w.changed)
		}
	})
}

func TestAFailedHookStaysPendingUntilItsContainerIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(t)
		w.fail = errors.New("it said no")
		p := post(t, "1")
		start(t, s, p)
		after(10 * time.Second)
		expect(t, s, p, lifecycle.HookFailed, true)
		if got := s.Result("1").Message; got != "it said no" {
			t.Errorf("message %q", got)
		}
		s.Keep(p.FullName, []string{"1"})
		expect(t, s, p, lifecycle.HookFailed, true)
		s.Keep(p.FullName, nil)
		expect(t, s, p, lifecycle.HookDone, false)
		if len(w.changed) != 1 {
			t.Errorf("changes: %q", w.changed)
		}
	})
}

func TestAHookEndsWithItsContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(t)
		gone, kept, other := post(t, "gone"), post(t, "kept"), post(t, "other")
		other.FullName = "kube-system/other-node"
		for _, p := range []PostStart{gone, kept, other} {
			start(t, s, p)
		}
		after(time.Second)
		s.Keep(gone.FullName, []string{"kept"})
		synctest.Wait()
		expect(t, s, gone, lifecycle.HookDone, false)
		expect(t, s, kept, lifecycle.HookRunning, true)
		expect(t, s, other, lifecycle.HookRunning, true)
		if len(w.ended) != 1 || w.ended[0] != "gone" || len(w.changed) != 0 {
			t.Errorf("ended early: %q, changes: %q", w.ended, w.changed)
		}
		if s.Known("gone") || !s.Known("kept") {
			t.Error("the wrong container was let go")
		}
	})
}

func TestTheNextSupervisorRunsAHookAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, s := newWorld(t)
		running, failed, done := post(t, "running"), post(t, "failed"), post(t, "done")
		start(t, s, done)
		after(10 * time.Second)
		w.fail = errors.New("no")
		start(t, s, failed)
		after(10 * time.Second)
		start(t, s, running)
		after(time.Second)
		s.Close()
		start(t, s, post(t, "late"))
		if s.Known("late") || len(w.ended) != 1 {
			t.Errorf("Close left hooks under way: ended %q", w.ended)
		}
		s.Keep(running.FullName, nil)
		for p, want := range map[*PostStart]bool{&running: true, &failed: true, &done: false} {
			if Pending(p.Marker) != want {
				t.Errorf("%s is pending: %t, want %t", p.ID, !want, want)
			}
		}
		_, s = newWorld(t)
		start(t, s, running)
		after(10 * time.Second)
		expect(t, s, running, lifecycle.HookDone, false)
	})
}

func TestCloseWaitsForHooksThatEndSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := NewSet(Deps{Run: func(ctx context.Context, _ *corev1.LifecycleHandler, _ *corev1.Container, _, _ string) error {
			<-ctx.Done()
			<-time.After(time.Second)
			return ctx.Err()
		}})
		if err := s.Start(post(t, "1")); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close returned after %s, the hook ends after 1s", took)
		}
	})
}

func TestContainersWithoutPostStartHook(t *testing.T) {
	w, s := newWorld(t)
	p := post(t, "1")
	p.Container = etcd()
	start(t, s, p)
	p.Container.Lifecycle = &corev1.Lifecycle{PreStop: execHook("/bin/bye")}
	start(t, s, p)
	expect(t, s, p, lifecycle.HookDone, false)
	if s.Known("1") || len(w.began) > 0 {
		t.Error("a hook ran that nobody asked for")
	}
}

func TestAHookRunsWithoutItsMarker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s := newWorld(t)
		p := post(t, "1")
		p.Marker = filepath.Join(filepath.Dir(p.Marker), "missing", "1")
		if err := s.Start(p); err == nil {
			t.Error("no error for a marker that cannot be written")
		}
		expect(t, s, p, lifecycle.HookRunning, false)
		after(10 * time.Second)
		expect(t, s, p, lifecycle.HookDone, false)
		p = post(t, "2")
		p.Marker = ""
		start(t, s, p)
		after(10 * time.Second)
		expect(t, s, p, lifecycle.HookDone, false)
	})
}

func TestMarker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hook")
	for range 2 { // twice is no error
		if err := Mark(path); err != nil || !Pending(path) {
			t.Fatalf("marked: %t, %v", Pending(path), err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := Unmark(path); err != nil || Pending(path) {
			t.Fatalf("marked: %t, %v", Pending(path), err)
		}
	}
	if err := Mark(filepath.Join(path, "below", "nothing")); err == nil {
		t.Error("marked where there is no directory")
	}
}
