package supervisor

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

const (
	// firstRetry and lastRetry bound the pause after a failed look or action: a quarter of a second while it may be a
	// restart of the runtime, then as slow as the kubelet's own pod resync on error (10 s, Kubernetes v1.36.3
	// pkg/kubelet/pod_workers.go:330).
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
)

// worker owns one full name: it observes, decides and acts, one step at a time, until its context ends.
type worker struct {
	s      *Supervisor
	name   string
	cancel context.CancelFunc
	wakeup chan struct{} // holds at most one
	log    *slog.Logger

	mu      sync.Mutex
	pod     *manifest.StaticPod
	problem string

	// The rest belongs to run.
	mem     lifecycle.Memory
	images  map[string]image
	left    map[string]bool // uids whose clean-up failed
	cache   cache
	last    lifecycle.State
	looked  bool
	failure failure
}

// failure is the current run of failed looks or actions.
type failure struct {
	err   error
	pause time.Duration
}

func newWorker(s *Supervisor, name string, cancel context.CancelFunc) *worker {
	return &worker{
		s: s, name: name, cancel: cancel, wakeup: make(chan struct{}, 1), log: s.c.Log.With("pod", name),
		images: map[string]image{}, left: map[string]bool{}, cache: newCache(), last: -1,
	}
}

// set replaces what is wanted. problem says why a newer version of the manifest is not taken; "" when there is none.
func (w *worker) set(pod *manifest.StaticPod, problem string) {
	w.mu.Lock()
	w.pod, w.problem = pod, problem
	w.mu.Unlock()
	w.poke()
}

func (w *worker) desired() *manifest.StaticPod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// poke makes the worker look again. It never blocks.
func (w *worker) poke() {
	select {
	case w.wakeup <- struct{}{}:
	default:
	}
}

// run is the worker's loop: look, decide, act, and look again at once after an effect; else sleep until something
// changes or the decision wants to be reconsidered.
func (w *worker) run(ctx context.Context) {
	for ctx.Err() == nil {
		again, wake := w.step(ctx)
		w.announce(ctx)
		if again {
			continue
		}
		var timer <-chan time.Time
		if !wake.IsZero() {
			t := time.NewTimer(max(0, wake.Sub(w.s.c.Now())))
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-ctx.Done():
		case <-w.wakeup:
		case <-timer:
		}
	}
}

// step does one round. It tells whether to go round again at once, and if not, when at the latest.
func (w *worker) step(ctx context.Context) (again bool, wake time.Time) {
	w.mu.Lock()
	want, problem := w.pod, w.problem
	w.mu.Unlock()
	now := w.s.c.Now()

	seen, err := w.observe(ctx, want)
	if err != nil {
		return w.failed(ctx, "looking at the runtime", err, want, problem)
	}
	seen.Held = w.s.held(w, want)
	decision, mem := w.s.c.Policy.Decide(now, want, seen, w.mem)
	w.mem = mem
	ready := podReady(want, seen)
	w.s.observed(w.name, seen, ready)
	if decision.State != w.last {
		w.log.Info("state", "state", decision.State.String(), "why", decision.Why)
		w.last = decision.State
	}
	view := status.View{Want: want, Seen: seen, Decision: decision, Problem: problem, Ready: ready}
	if w.failure.err != nil {
		view.Failure = w.failure.err.Error()
	}
	w.publish(view)
	if len(decision.Actions) > 0 {
		if err := w.apply(ctx, want, decision.Actions); err != nil {
			return w.failed(ctx, "acting", err, want, problem)
		}
		w.failure = failure{}
		return true, time.Time{}
	}
	if w.failure.err != nil {
		w.failure = failure{}
		view.Failure = ""
		w.publish(view)
	}
	if want == nil && decision.State == lifecycle.Absent {
		select {
		case w.s.idle <- w: // Run ends this worker, unless something is wanted again
		case <-ctx.Done():
		}
	}
	return false, decision.Wake
}

// failed records why a round ended and when to try again.
func (w *worker) failed(ctx context.Context, doing string, err error, want *manifest.StaticPod, problem string) (bool, time.Time) {
	if ctx.Err() != nil {
		return false, time.Time{}
	}
	w.failure.err = err
	w.failure.pause = min(max(2*w.failure.pause, firstRetry), lastRetry)
	w.log.Warn(doing, "reason", err.Error(), "retry", w.failure.pause.String())
	w.s.c.Board.Fail(status.View{Name: w.name, HostIPs: w.s.c.Node.HostIPs, Now: w.s.c.Now(), Want: want, Failure: err.Error(), Problem: problem})
	return false, w.s.c.Now().Add(w.failure.pause)
}

// announce tells Run, once, that this worker has looked at its pod.
func (w *worker) announce(ctx context.Context) {
	if w.looked {
		return
	}
	w.looked = true
	select {
	case w.s.looked <- w.name:
	case <-ctx.Done():
	}
}

func (w *worker) publish(v status.View) {
	v.Name, v.HostIPs, v.Now = w.name, w.s.c.Node.HostIPs, w.s.c.Now()
	w.s.c.Board.Publish(v)
}
