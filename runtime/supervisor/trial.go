package supervisor

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// keptLog is how many lines of the log of the container to blame are kept with a rejected version.
const keptLog = 50

// trial is what is known of the version that runs, and of the one to return to. The worker's own goroutine has it.
type trial struct {
	loaded  bool
	stored  lastgood.Record
	state   lastgood.Trial
	unsaved bool          // the version is good, and could not be stored as such
	wake    time.Time     // when to judge again; zero: after the next look
	took    time.Duration // by the actions since the last judgement
	fault   *lastgood.Failure
	away    bool // the runtime has not answered since the last judgement
}

// choose returns what is to run in place of what the source wants: the same, or the last version that was ready if the
// source's was given up.
func (w *worker) choose(source *manifest.StaticPod) *manifest.StaticPod {
	store := w.s.c.Good
	if store == nil {
		return source
	}
	t := &w.trial
	if !t.loaded {
		t.loaded = true
		var err error
		if t.stored, err = store.Load(w.name); err != nil {
			w.log.Warn("going on without a last good version", "reason", err.Error())
		}
	}
	c := lastgood.Choose(source, t.stored)
	if c.Forgive {
		t.stored.Rejected = nil
		if err := store.Forgive(w.name); err != nil {
			w.log.Warn("forgetting that a version was given up", "reason", err.Error())
		}
	}
	w.view.Rejected = c.Rejected
	return c.Run
}

// judge brings a look before the judge. It tells whether another version is to be run from now on.
func (w *worker) judge(want *manifest.StaticPod, seen lifecycle.Observed, d lifecycle.Decision) (rollback bool) {
	t := &w.trial
	if w.s.c.Good == nil || want == nil {
		return false
	}
	version := lastgood.Version(want)
	if t.state.Version != version {
		t.fault, t.unsaved = nil, false
		if lastgood.Version(t.stored.Good) == version {
			t.state = lastgood.Passed(version)
		}
	}
	if t.away && seen.Held == "" {
		seen.Held = "the container runtime" // the clock stops
	}
	in := lastgood.Input{Want: want, Seen: seen, State: d.State, Reason: d.Reason, Failure: t.fault, Took: t.took}
	var v lastgood.Verdict
	v, t.state = lastgood.Judge(w.now, in, t.state)
	t.wake, t.took, t.away = v.Wake, 0, false
	switch {
	case v.Outcome == lastgood.GoodVersion && (v.Fresh || t.unsaved):
		w.keep(want)
	case v.Outcome == lastgood.GivenUp && v.Fresh:
		return w.giveUp(want, seen, v)
	}
	return false
}

// keep stores a version as the one to return to.
func (w *worker) keep(want *manifest.StaticPod) {
	t := &w.trial
	err := w.s.c.Good.Keep(want)
	if err != nil && !t.unsaved {
		w.log.Warn("keeping a version that was ready", "reason", err.Error())
	}
	t.unsaved = err != nil
	if t.stored.Good = want; t.stored.Rejected != nil && t.stored.Rejected.Good != lastgood.Version(want) {
		t.stored.Rejected = nil
	}
}

// giveUp returns to the last version that was ready, if there is one and the pod wants that; else it only says why.
func (w *worker) giveUp(want *manifest.StaticPod, seen lifecycle.Observed, v lastgood.Verdict) (rollback bool) {
	t := &w.trial
	if !lastgood.Replaces(t.stored, want) {
		w.log.Warn("this version of the manifest does not become ready", "reason", v.Reason)
		w.record(want.UID, v.Container, event.Warning, event.Unhealthy, "This version of the manifest does not become ready: %s", v.Reason)
		return false
	}
	r := lastgood.Rejection{
		Pod: w.name, Version: lastgood.Version(want), UID: want.UID, Source: want.Source, At: w.s.c.Now(), Reason: v.Reason,
		Log: w.logTail(want, v.Container, seen), Good: lastgood.Version(t.stored.Good),
	}
	t.stored.Rejected = &r
	if err := w.s.c.Good.Reject(r); err != nil { // a supervisor that starts later will try this version again
		w.log.Warn("storing that a version was given up", "reason", err.Error())
	}
	w.log.Warn("returning to the last version that was ready", "reason", v.Reason)
	w.record(want.UID, v.Container, event.Warning, event.RolledBack, "Returning to the last version that was ready: %s", v.Reason)
	if w.s.c.RolledBack != nil {
		w.s.c.RolledBack()
	}
	return true
}

// logTail is the end of the log of the container to blame: of the newest one that has ended, else of the newest.
func (w *worker) logTail(want *manifest.StaticPod, name string, seen lifecycle.Observed) []string {
	var blamed *lifecycle.Container
	for i := range seen.Containers {
		c := &seen.Containers[i]
		if c.UID != want.UID || c.Name != name {
			continue
		}
		ended := c.State == lifecycle.ContainerExited
		before := blamed != nil && blamed.State == lifecycle.ContainerExited
		if blamed == nil || ended && !before || ended == before && c.Attempt > blamed.Attempt {
			blamed = c
		}
	}
	if blamed == nil {
		return nil
	}
	lines, err := status.Tail(filepath.Join(podspec.LogDir(want, w.s.c.Node), podspec.LogPath(name, blamed.Attempt)), keptLog)
	if err != nil {
		return []string{err.Error()}
	}
	return lines
}

// blame notes an action that failed because of what it was to make. A runtime that is away or does not answer says
// nothing about that.
func (w *worker) blame(a lifecycle.Action, err error) {
	if a.Kind != lifecycle.RunSandbox && a.Kind != lifecycle.StartContainer || runtimeAway(err) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trial.fault = &lastgood.Failure{At: w.s.c.Now(), Container: a.Name, Text: err.Error()}
}

// runtimeAway tells whether an error says that the runtime could not be asked, or did not answer.
func runtimeAway(err error) bool {
	return cri.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// forgetGood removes what is stored of pods that are gone for good.
func (s *Supervisor) forgetGood(names ...string) {
	if s.c.Good == nil {
		return
	}
	for _, name := range names {
		if err := s.c.Good.Forget(name); err != nil {
			s.c.Log.Warn("forgetting a pod", "pod", name, "reason", err.Error())
		}
	}
}

// forgetStrangers removes what is stored of pods that have neither a manifest nor anything that runs: they went while
// no supervisor ran.
func (s *Supervisor) forgetStrangers() {
	if s.c.Good == nil {
		return
	}
	names, err := s.c.Good.List()
	if err != nil {
		s.c.Log.Warn("looking for pods that are gone", "reason", err.Error())
	}
	for _, name := range names {
		if s.workers[name] == nil && s.want.lacks(name) {
			s.forgetGood(name)
		}
	}
}
