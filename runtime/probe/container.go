package probe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// kind is one of a container's three probes.
type kind string

const (
	startup   kind = "startup"
	liveness  kind = "liveness"
	readiness kind = "readiness"
)

// container is one running container with its probes:
//
//	not started ── startup probe succeeds, or there is none ──► started: liveness and readiness begin
//	     │                                                         │
//	     └── failed failureThreshold times ──► to be restarted ◄───┘ liveness failed failureThreshold times
//
// A container that is to be restarted is not probed any more: the next one has another id.
type container struct {
	set      *Set
	fullName string
	id       string
	spec     *corev1.Container
	born     time.Time // when it started, on this process's clock; never in the future
	ctx      context.Context
	end      context.CancelFunc
	log      *slog.Logger

	mu     sync.Mutex
	ip     string
	latest lifecycle.Probe
	blamed kind // whose message latest.Message is
}

// newContainer begins the probes of a container. s.mu is held.
func (s *Set) newContainer(fullName string, pod *corev1.Pod, podIP string, r Running) *container {
	now := time.Now()
	born := now
	if age := now.Sub(r.StartedAt); !r.StartedAt.IsZero() && age > 0 {
		born = now.Add(-age) // keeps the monotonic clock: a wall clock that jumps moves no schedule
	}
	ctx, end := context.WithCancel(s.ctx)
	c := &container{
		set: s, fullName: fullName, id: r.ID, spec: specOf(pod, r.Name), born: born, ctx: ctx, end: end, ip: podIP,
		log: s.deps.Logger.With("pod", fullName, "container", r.Name),
	}
	switch {
	case c.spec == nil:
		c.latest = lifecycle.Probe{Started: true, Ready: true}
	case c.spec.StartupProbe != nil:
		c.begin(startup, c.spec.StartupProbe)
	default:
		c.latest.Started = true
		c.latest.Ready = c.spec.ReadinessProbe == nil
		c.beginStarted()
	}
	return c
}

// beginStarted begins what is suspended until the container has started.
func (c *container) beginStarted() {
	if p := c.spec.LivenessProbe; p != nil {
		c.begin(liveness, p)
	}
	if p := c.spec.ReadinessProbe; p != nil {
		c.begin(readiness, p)
	}
}

func (c *container) begin(k kind, p *corev1.Probe) {
	w := newWorker(c, k, p, time.Now())
	c.set.wg.Go(func() { w.run(c.ctx) })
}

func (c *container) setIP(ip string) {
	c.mu.Lock()
	c.ip = ip
	c.mu.Unlock()
}

func (c *container) podIP() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ip
}

func (c *container) result() lifecycle.Probe {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// note records the output of a try that failed, "" of one that succeeded.
func (c *container) note(k kind, output string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case output != "":
		c.latest.Message, c.blamed = string(k)+" probe: "+output, k
	case c.blamed == k:
		c.latest.Message, c.blamed = "", ""
	}
}

// succeed records that a probe has succeeded often enough.
func (c *container) succeed(k kind) {
	changed := false
	c.mu.Lock()
	switch {
	case k == startup && !c.latest.Started:
		c.latest.Started, changed = true, true
		c.latest.Ready = c.spec.ReadinessProbe == nil
	case k == readiness && !c.latest.Ready:
		c.latest.Ready, changed = true, true
	}
	c.mu.Unlock()
	if changed {
		if k == startup {
			c.beginStarted()
		}
		c.log.Info("probe succeeds", "probe", string(k), "after", time.Since(c.born).Round(time.Millisecond).String())
		c.set.deps.Changed(c.fullName)
	}
}

// fail records that a probe has failed often enough.
func (c *container) fail(k kind, output string) {
	changed := true
	c.mu.Lock()
	switch k {
	case startup:
		c.latest.StartupFailed = output
	case liveness:
		c.latest.LivenessFailed = output
	case readiness:
		changed = c.latest.Ready
		c.latest.Ready = false
	}
	c.mu.Unlock()
	if changed {
		c.log.Warn("probe fails", "probe", string(k), "reason", output)
		c.set.deps.Changed(c.fullName)
	}
}
