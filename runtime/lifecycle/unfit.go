package lifecycle

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// settleTime is how long a container runs at least before watched files restart it: files change in bursts, such as
// certificates that are renewed one after the other, and a pod that writes what it watches must not be restarted as
// fast as the runtime can. A choice of ours.
const settleTime = 2 * time.Second

// unfit returns why a running container must be restarted, and with which grace; "" when it may run on.
func (r *round) unfit(spec *corev1.Container, c *Container) (time.Duration, string) {
	if why := r.superseded(spec, c); why != "" { // not its fault: whatever its policy, without back-off
		r.mem.Killed[c.ID] = why
		r.forgive(spec.Name)
		return r.homeGrace(), why
	}
	if probe, why := fault(spec, c); why != "" {
		switch {
		case policyOf(r.want.Pod, spec) != corev1.RestartPolicyNever:
			r.mem.Killed[c.ID] = why
		case c.Hook.State == HookFailed:
			r.mem.Failed[c.ID] = why
		}
		if probe != nil && probe.TerminationGracePeriodSeconds != nil {
			return time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second, why
		}
		return r.homeGrace(), why
	}
	return r.homeGrace(), r.mem.Killed[c.ID] // half of a stop that failed may have happened: it is carried through
}

// superseded returns why a container that is well must be restarted all the same.
func (r *round) superseded(spec *corev1.Container, c *Container) string {
	if c.Hash != "" && c.Hash != ContainerHash(spec.Name, spec.Image) {
		return "its image is not the manifest's"
	}
	if isInit(r.want.Pod, spec) {
		return ""
	}
	if why := r.seen.Restart[c.ID]; why != "" {
		return why
	}
	if c.Watched == "" || r.seen.Watched == "" || c.Watched == r.seen.Watched {
		return ""
	}
	if age := r.now.Sub(c.StartedAt); age >= 0 && age < settleTime { // less than 0: the clock was set back
		r.wakeAt(r.now.Add(settleTime - age))
		return ""
	}
	return "watched files have changed"
}

// fault returns what is wrong with a running container, and the probe that says so. Until its post-start hook has ended
// it is not probed.
func fault(spec *corev1.Container, c *Container) (*corev1.Probe, string) {
	switch {
	case c.Hook.State == HookFailed:
		return nil, "post-start hook failed" + after(c.Hook.Message)
	case c.Hook.State == HookRunning:
		return nil, ""
	case c.Probe.StartupFailed != "":
		return spec.StartupProbe, "startup probe failed" + after(c.Probe.StartupFailed)
	case c.Probe.LivenessFailed != "":
		return spec.LivenessProbe, "liveness probe failed" + after(c.Probe.LivenessFailed)
	default:
		return nil, ""
	}
}

func after(message string) string {
	if message == "" {
		return ""
	}
	return ": " + message
}

func health(c *Container) string {
	switch {
	case c.Hook.State == HookRunning:
		return c.Name + " runs, its post-start hook has not ended" + because(c.Hook.Message)
	case !c.Probe.Started:
		return c.Name + " runs, not started yet" + because(c.Probe.Message)
	case !c.Probe.Ready:
		return c.Name + " runs, not ready" + because(c.Probe.Message)
	default:
		return c.Name + " runs"
	}
}

func because(message string) string {
	if message == "" {
		return ""
	}
	return " (" + message + ")"
}
