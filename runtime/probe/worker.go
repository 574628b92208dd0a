package probe

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxAttempts is how often a try that says nothing about the container is repeated before it is ignored.
// Kubernetes v1.36.3 pkg/kubelet/prober/prober.go:41.
const maxAttempts = 3

// worker is one probe of one container.
type worker struct {
	c        *container
	kind     kind
	schedule schedule
	timeout  time.Duration
	enough   struct{ successes, failures int32 } // the thresholds
	row      struct{ successes, failures int32 } // in a row
	try      handler
	// runsCommand: a try costs the host a process, not just a connection.
	runsCommand bool
}

// newWorker plans a probe that begins at now. The defaults are the API's.
func newWorker(c *container, k kind, p *corev1.Probe, now time.Time) *worker {
	w := &worker{c: c, kind: k, try: newHandler(c, p), runsCommand: p.Exec != nil}
	w.timeout = time.Duration(cmp.Or(p.TimeoutSeconds, 1)) * time.Second
	w.enough.successes = cmp.Or(p.SuccessThreshold, 1)
	w.enough.failures = cmp.Or(p.FailureThreshold, 3)
	allowed := c.born.Add(time.Duration(p.InitialDelaySeconds) * time.Second)
	w.schedule = schedule{
		base: c.born, first: later(allowed, now), period: time.Duration(cmp.Or(p.PeriodSeconds, 10)) * time.Second,
		tick: -1, eager: k != liveness, since: now,
	}
	if k == readiness { // the kubelet triggers it when the container has started, and counts its periods from there
		w.schedule.base, w.schedule.first = now, allowed
	}
	return w
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// run tries until the result is final or ctx ends.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	var busy time.Duration
	for {
		now := time.Now()
		due, isTick := w.schedule.next(now, busy)
		timer.Reset(due.Sub(now))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		start := time.Now()
		w.schedule.use(start, isTick)
		timeout := w.timeout
		if !isTick {
			timeout = min(timeout, eagerTimeout)
		}
		output, err := w.attempt(ctx, timeout)
		if w.runsCommand {
			busy = time.Since(start)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.c.log.Debug("probe has no result", "probe", string(w.kind), "reason", err.Error())
			continue
		}
		if w.record(output, isTick) {
			return
		}
	}
}

// attempt tries once. output is "" for a success; an error says nothing about the container.
func (w *worker) attempt(ctx context.Context, timeout time.Duration) (output string, err error) {
	for range maxAttempts {
		if output, err = w.once(ctx, timeout); err == nil || ctx.Err() != nil {
			break
		}
	}
	return output, err
}

func (w *worker) once(ctx context.Context, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return w.try(ctx, w.c.podIP(), timeout)
}

// record counts a result, and tells whether it is the last one.
func (w *worker) record(output string, isTick bool) (final bool) {
	w.c.note(w.kind, output)
	if output == "" {
		w.row.successes, w.row.failures = w.row.successes+1, 0
		if w.schedule.eager {
			w.schedule.settle(time.Now())
		}
		if w.row.successes >= w.enough.successes {
			w.c.succeed(w.kind)
			return w.kind == startup
		}
		return false
	}
	w.row.successes = 0
	if !isTick {
		return false
	}
	if w.row.failures++; w.row.failures < w.enough.failures {
		return false
	}
	w.c.fail(w.kind, output)
	return w.kind != readiness
}
