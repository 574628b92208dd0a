package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
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

// step does one round.
func (w *worker) step(ctx context.Context) rest {
	for _, c := range []chan struct{}{w.hints, w.orders} { // what they tell of is seen now
		select {
		case <-c:
		default:
		}
	}
	w.mu.Lock()
	source, problem := w.pod, w.problem
	w.mu.Unlock()
	want := w.choose(source)

	w.view.Want, w.view.Problem = want, problem
	saw, seen, err := w.observe(ctx, want)
	if err != nil {
		w.blind, w.trial.away = true, true
		w.s.roster.missed(w.name)
		return w.failed(ctx, "looking at the runtime", err)
	}
	if w.blind {
		w.blind, w.failure, w.pause = false, "", 0
	}
	decision := w.decide(source, want, saw, &seen)
	if w.judge(want, seen, decision) {
		return rest{again: true}
	}
	if len(decision.Actions) == 0 {
		return w.done(ctx, decision)
	}
	w.publish()
	if slices.EqualFunc(decision.Actions, w.last, sameEffect) {
		return w.paused() // the runtime has not shown yet what was done
	}
	return w.carryOut(ctx, source, want, decision.Actions)
}

// decide says what to do about a look, and tells others what it shows.
func (w *worker) decide(source, want *manifest.StaticPod, saw states, seen *lifecycle.Observed) lifecycle.Decision {
	seen.Held = w.s.roster.held(w.name, want, w.s.c.Node.Name)
	w.now = w.s.c.Now()
	decision, mem := w.s.c.Policy.Decide(w.now, want, *seen, w.mem)
	w.mem = mem
	ready := podReady(want, *seen)
	settled := ""
	if ready || decision.State == lifecycle.Completed {
		settled = versionOf(source) // what others wait for, also when the last good version stands in for it
	}
	w.s.roster.saw(w.name, saw, settled)
	if decision.State != w.state {
		w.state = decision.State
		w.log.Info("state", "state", decision.State.String(), "why", decision.Why)
	}
	w.view.Seen, w.view.Decision, w.view.Ready = *seen, decision, ready
	w.tell(want, *seen, decision)
	w.noteStart(want, *seen)
	return decision
}

// carryOut does what was decided.
func (w *worker) carryOut(ctx context.Context, source, want *manifest.StaticPod, actions []lifecycle.Action) rest {
	began := time.Now()
	err := w.apply(ctx, want, actions)
	w.trial.took += time.Since(began)
	w.trial.away = w.trial.away || runtimeAway(err)
	if err != nil {
		w.last = nil
		if w.desired() != source {
			return rest{again: true} // whatever failed is not wanted any more
		}
		return w.failed(ctx, "acting", err)
	}
	w.last = actions
	if !slices.ContainsFunc(actions, func(a lifecycle.Action) bool { return a.Kind != lifecycle.EnsureImage }) {
		return rest{again: true} // what has failed before was not tried again
	}
	w.failure, w.pause, w.trial.fault = "", 0, nil
	return rest{again: true}
}

// sameEffect tells whether two actions do the same to the same thing.
func sameEffect(a, b lifecycle.Action) bool {
	a.Grace, a.Group, a.Why = b.Grace, b.Group, b.Why
	return a == b
}

// done ends a round with nothing to do.
func (w *worker) done(ctx context.Context, d lifecycle.Decision) rest {
	w.last, w.failure, w.pause, w.trial.fault = nil, "", 0, nil
	w.publish()
	if w.view.Want == nil && d.State == lifecycle.Absent {
		return w.retire(ctx)
	}
	wake := earlier(d.Wake, w.trial.wake)
	return rest{timed: !wake.IsZero(), after: max(0, wake.Sub(w.now))}
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// retire offers Run this worker's end, and returns if it is refused: something is wanted again. Until Run has decided
// the worker does nothing, so that it shows nothing of a pod that was forgotten.
func (w *worker) retire(ctx context.Context) rest {
	select {
	case w.s.idle <- w:
	case <-ctx.Done():
		return rest{}
	}
	select {
	case <-w.resume:
	case <-ctx.Done():
	}
	return rest{again: true}
}

// failed records why a round ended, once for as long as it stays the same, and when to try again.
func (w *worker) failed(ctx context.Context, doing string, err error) rest {
	if ctx.Err() != nil {
		return rest{}
	}
	r := w.paused()
	if errors.Is(err, cgroup.ErrBusy) && w.pause < lastRetry { // no failure yet: processes are ending
		return r
	}
	if w.failure != err.Error() {
		w.failure = err.Error()
		w.log.Warn(doing, "reason", w.failure, "retry", w.pause.String())
	}
	w.publish()
	return r
}

func (w *worker) paused() rest {
	w.last = nil
	w.pause = min(max(2*w.pause, firstRetry), lastRetry)
	return rest{timed: true, after: w.pause, paused: true}
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

func (w *worker) publish() {
	w.view.Name, w.view.HostIPs, w.view.Now, w.view.Failure = w.name, w.s.c.Node.HostIPs, w.s.c.Now(), w.failure
	w.view.QOS, w.view.Users, w.view.RecursiveReadOnly = "", w.cache.users(), w.s.c.Node.RecursiveReadOnlyMounts
	if w.view.Want != nil {
		w.view.QOS = podspec.QOSClass(w.view.Want.Pod)
	}
	w.s.c.Board.Publish(w.view)
}
