package phases

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// Run runs the steps in order, each followed by flush, and reports what happens. The first error ends the run as
// "phase control-plane/apiserver: …"; so does the end of ctx, between steps and, through the steps, inside them. What
// a failed step has put into its store is not flushed.
//
// Early parts (Phase.Begin) run beside the steps. Before Run returns it has ended and waited for all of them.
func (p Plan) Run(ctx context.Context, env *Env, flush artifact.Flush) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{plan: p, env: env, report: serialized(env.Report), early: make([]*early, len(p.Steps)), done: make([]bool, len(p.Steps))}

	var failed error
	for i := range p.Steps {
		r.begin(ctx)
		if failed = r.step(ctx, i, flush); failed != nil {
			break
		}
		r.done[i] = true
	}
	cancel()
	return errors.Join(append([]error{failed}, r.joinRest()...)...)
}

type run struct {
	plan   Plan
	env    *Env
	report func(Event)
	early  []*early // by step; nil until it begins
	done   []bool
}

// early is the early part of a step while it runs.
type early struct {
	events  *held
	ended   chan struct{} // closed at the end; err and stopped may be read after that
	err     error
	stopped bool // the run was over before Begin returned
	joined  bool
}

// begin starts every early part whose time has come.
func (r *run) begin(ctx context.Context) {
	for i, s := range r.plan.Steps {
		if s.Phase.Begin == nil || r.early[i] != nil || !r.allDone(s.beginAfter) {
			continue
		}
		e := &early{events: &held{to: r.report}, ended: make(chan struct{})}
		r.early[i] = e
		env := r.envFor(s.Name, e.events.report)
		env.Files = readOnly{env.Files}
		go func() { // ended by cancel, waited for by step or joinRest
			defer close(e.ended)
			start := env.Now()
			env.Report(Event{Kind: Begun, Time: start})
			e.err = s.Phase.Begin(ctx, env)
			e.stopped = ctx.Err() != nil
			env.Report(Event{Kind: Joined, Elapsed: env.Now().Sub(start), Err: e.err})
		}()
	}
}

func (r *run) allDone(steps []int) bool {
	for _, i := range steps {
		if !r.done[i] {
			return false
		}
	}
	return true
}

// step takes one step's turn.
func (r *run) step(ctx context.Context, i int, flush artifact.Flush) error {
	s := r.plan.Steps[i]
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("before phase %s: %w", s.Name, context.Cause(ctx))
	}
	env := r.envFor(s.Name, r.report)
	start := env.Now()
	env.Report(Event{Kind: PhaseStarted, Time: start, Text: s.Phase.Short})
	err := r.work(ctx, i, env, flush)
	now := env.Now()
	if err != nil {
		err = fmt.Errorf("phase %s: %w", s.Name, err)
		env.Report(Event{Kind: PhaseFailed, Time: now, Elapsed: now.Sub(start), Err: err})
		return err
	}
	env.Report(Event{Kind: PhaseDone, Time: now, Elapsed: now.Sub(start)})
	return nil
}

func (r *run) work(ctx context.Context, i int, env *Env, flush artifact.Flush) error {
	if e := r.early[i]; e != nil {
		e.joined = true
		e.events.release()
		<-e.ended
		if e.err != nil {
			return e.err
		}
	}
	if run := r.plan.Steps[i].Phase.Run; run != nil {
		if err := run(ctx, env); err != nil {
			return err
		}
	}
	changes, err := flush(ctx)
	for _, c := range changes {
		env.Report(Event{Kind: Changed, Change: c})
	}
	return err
}

// joinRest waits for the early parts whose turn did not come, and returns the errors of those that failed by
// themselves: they are news as much as the error that ended the run.
func (r *run) joinRest() []error {
	var errs []error
	for i, e := range r.early {
		if e == nil || e.joined {
			continue
		}
		<-e.ended
		if e.err != nil && !e.stopped {
			errs = append(errs, fmt.Errorf("phase %s: %w", r.plan.Steps[i].Name, e.err))
		}
	}
	return errs
}

// envFor returns a copy of the run's Env whose events carry the phase's name and the time.
func (r *run) envFor(name string, report func(Event)) *Env {
	env := *r.env
	if env.Now == nil {
		env.Now = time.Now
	}
	env.Report = func(e Event) {
		if e.Phase == "" {
			e.Phase = name
		}
		if e.Time.IsZero() {
			e.Time = env.Now()
		}
		report(e)
	}
	return &env
}

// serialized lets one caller at a time through, so that whoever prints events needs no lock.
func serialized(report func(Event)) func(Event) {
	var mu sync.Mutex
	return func(e Event) {
		if report == nil {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		report(e)
	}
}

// held keeps events back until it is released, and lets them pass from then on.
type held struct {
	to func(Event)

	mu       sync.Mutex
	released bool
	kept     []Event
}

func (h *held) report(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		h.to(e)
		return
	}
	h.kept = append(h.kept, e)
}

func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.kept {
		h.to(e)
	}
	h.released, h.kept = true, nil
}

// readOnly is the store of early parts.
type readOnly struct{ artifact.Store }

func (readOnly) Put(f artifact.File) error {
	return fmt.Errorf("writing %q: an early part of a phase writes no files", f.Path)
}

func (readOnly) Remove(path string) error {
	return fmt.Errorf("removing %q: an early part of a phase writes no files", path)
}
