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
	// startingRetry is how often a container is tried to be removed at least while the runtime still starts it, on behalf
	// of a supervisor that was killed: containerd gives up within a few seconds.
	startingRetry = time.Second
)

// worker owns one full name: it observes, decides and acts, one step at a time, until its context ends.
type worker struct {
	s      *Supervisor
	name   string
	cancel context.CancelFunc
	log    *slog.Logger
	hints  chan struct{} // holds at most one: something may have changed
	orders chan struct{} // holds at most one: look now, even in the pause after a failure

	resume chan struct{} // Run's refusal of the worker's end
	pulls  sync.WaitGroup

	mu      sync.Mutex
	pod     *manifest.StaticPod
	problem string
	images  map[string]image  // by reference; what is not in it was not asked for yet
	left    map[string]bool   // uids whose clean-up failed
	exits   map[string]Exit   // of containers that the runtime may still show as running
	asked   map[string]string // ids of containers to restart, and why
	newest  map[string]string // by name: the id of the newest container that runs or has ended
	begun   start
	// reserved holds attempts below which a name is known to be taken.
	reserved map[reservation]uint32
	// preStopped holds the ids of containers whose preStop hook was run.
	preStopped map[string]bool
	// storeChanged: an image that could not be had may be there now.
	storeChanged bool

	// The rest belongs to run; actions read it.
	mem     lifecycle.Memory
	now     time.Time // of the last decision
	cache   cache
	view    status.View        // the last one shown
	last    []lifecycle.Action // of the round before, if it had an effect to wait for
	state   lifecycle.State    // the last one logged
	told    told
	trial   trial
	looked  bool
	failure string        // of the last look or action; "" after a success
	pause   time.Duration // after it
	blind   bool          // it was a look
}

// rest is what a worker does between two rounds.
type rest struct {
	again  bool          // nothing: the next round follows at once
	timed  bool          // it ends after a while, whatever happens
	after  time.Duration // that while: a wall clock that jumps does not change it
	paused bool          // only an order shortens it
}

func newWorker(s *Supervisor, name string, pod *manifest.StaticPod, cancel context.CancelFunc) *worker {
	return &worker{
		s: s, name: name, pod: pod, cancel: cancel, log: s.c.Log.With("pod", name),
		hints: make(chan struct{}, 1), orders: make(chan struct{}, 1), resume: make(chan struct{}),
		images: map[string]image{}, left: map[string]bool{}, exits: map[string]Exit{},
		asked: map[string]string{}, newest: map[string]string{}, preStopped: map[string]bool{},
		reserved: map[reservation]uint32{},
		begun:    start{version: versionOf(pod), seen: time.Now()}, state: -1,
	}
}

// set replaces what is wanted. problem says why a newer version of the manifest is not taken; "" when there is none.
func (w *worker) set(pod *manifest.StaticPod, problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pod == pod && w.problem == problem {
		return
	}
	if v := versionOf(pod); v != versionOf(w.pod) {
		w.begun = start{version: v, seen: time.Now()}
		w.dropImages(pod)
		w.forgetReserved(versionUID(pod))
	}
	w.pod, w.problem = pod, problem
	w.order()
}

func (w *worker) desired() *manifest.StaticPod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// hint makes the worker look again, but not earlier than the pause after a failure allows. It never blocks.
func (w *worker) hint() { nudge(w.hints) }

// order makes the worker look again. It never blocks.
func (w *worker) order() { nudge(w.orders) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run is the worker's loop: look, decide, act, and look again at once after an effect; else sleep until something
// changes or the decision wants to be reconsidered.
func (w *worker) run(ctx context.Context) {
	defer w.pulls.Wait() // they end with ctx
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		next := w.step(ctx)
		w.announce(ctx)
		if next.again {
			continue
		}
		var due <-chan time.Time
		if next.timed {
			timer.Reset(next.after)
			due = timer.C
		}
		hints := w.hints
		if next.paused {
			hints = nil // most likely the echo of what has just failed
		}
		select {
		case <-ctx.Done():
		case <-w.orders:
		case <-hints:
		case <-due:
		}
	}
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
