package supervisor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

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
	if cri.IsStarting(err) {
		r.after = min(r.after, startingRetry)
	}
	if (errors.Is(err, cgroup.ErrBusy) || cri.IsStarting(err)) && w.pause < lastRetry {
		return r // no failure yet: processes are ending, or the runtime has not given up the start of a killed supervisor
	}
	if w.failure != err.Error() {
		w.failure = err.Error()
		w.log.Warn(doing, "reason", w.failure, "retry", r.after.String())
	}
	w.publish()
	return r
}

func (w *worker) paused() rest {
	w.last = nil
	w.pause = min(max(2*w.pause, firstRetry), lastRetry)
	return rest{timed: true, after: w.pause, paused: true}
}

func (w *worker) publish() {
	w.view.Name, w.view.HostIPs, w.view.Now, w.view.Failure = w.name, w.s.c.Node.HostIPs, w.s.c.Now(), w.failure
	w.view.QOS, w.view.Users, w.view.RecursiveReadOnly = "", w.cache.users(), w.s.c.Node.RecursiveReadOnlyMounts
	if w.view.Want != nil {
		w.view.QOS = podspec.QOSClass(w.view.Want.Pod)
	}
	w.s.c.Board.Publish(w.view)
}
