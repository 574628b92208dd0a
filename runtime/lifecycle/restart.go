package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// The kubelet's: restarts at once, then after 10, 20, 40, 80, 160 and 300 s, from the start again once a container
	// ran for 10 minutes. Kubernetes v1.36.3 pkg/kubelet/kubelet.go:166, 1069.
	firstBackOff = 10 * time.Second
	maxBackOff   = 300 * time.Second
	calm         = 10 * time.Minute
)

// isSidecar tells whether an init container is a restartable one.
func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// specOf returns the container of that name, init or main; nil when there is none.
func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// policyOf is the container's own restart policy, else the pod's, else Always.
func policyOf(pod *corev1.Pod, spec *corev1.Container) corev1.RestartPolicy {
	switch {
	case spec.RestartPolicy != nil:
		return corev1.RestartPolicy(*spec.RestartPolicy)
	case pod.Spec.RestartPolicy != "":
		return pod.Spec.RestartPolicy
	default:
		return corev1.RestartPolicyAlways
	}
}

// Restarts tells whether a container of the pod that has ended like this one is started again: by the action of the
// first of its restart rules that names the exit code, else by its own restart policy, else by the pod's. An init
// container that ended well never is. Kubernetes v1.36.3 pkg/api/v1/pod/util.go:419.
func Restarts(pod *corev1.Pod, spec *corev1.Container, ended *Container) bool {
	if isInit(pod, spec) && !failed(ended) {
		return false
	}
	if action := ruled(spec, ended.ExitCode); action != "" {
		return true // RestartAllContainers restarts this one too
	}
	switch policyOf(pod, spec) {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return ended.ExitCode != 0
	default:
		return true
	}
}

// failed tells whether an ended init container must run again before the next one may: one that the kernel killed has
// failed whatever its exit code. Kubernetes v1.36.3 pkg/kubelet/kuberuntime/helpers.go:173.
func failed(c *Container) bool { return c.ExitCode != 0 || c.Reason == "OOMKilled" }

// ruled returns the action of the first restart rule that names the exit code, "" when none does or the action is not
// known. Rules count only beside a restart policy of the container's own.
func ruled(spec *corev1.Container, exitCode int32) corev1.ContainerRestartRuleAction {
	if spec.RestartPolicy == nil {
		return ""
	}
	for _, rule := range spec.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		among := slices.Contains(rule.ExitCodes.Values, exitCode)
		switch op := rule.ExitCodes.Operator; {
		case op == corev1.ContainerRestartRuleOnExitCodesOpIn && among, op == corev1.ContainerRestartRuleOnExitCodesOpNotIn && !among:
			if rule.Action == corev1.ContainerRestartRuleActionRestart || rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
				return rule.Action
			}
			return ""
		}
	}
	return ""
}

// restarts tells whether an ended container is to run again: because it was stopped for that, or by its rules and
// policies.
func (r *round) restarts(spec *corev1.Container, ended *Container) bool {
	return r.mem.Killed[ended.ID] != "" || Restarts(r.want.Pod, spec, ended)
}

// due returns the back-off in force for the restart of an ended container, and when it is over.
func (r *round) due(ended *Container) (BackOffEntry, time.Time) {
	if r.mem.BackOff[ended.Name].Cause != ended.ID && r.spared(ended) {
		e, due := r.next(r.mem.Spared, ended)
		if r.seen.Held == "" {
			return BackOffEntry{}, r.now
		}
		return e, due
	}
	return r.next(r.mem.BackOff, ended)
}

// spared tells whether an exit is put down to the pods that this one waits for, which were not ready when it was first
// seen. They are most likely its cause, so its back-off must not grow by it, and is over when they are ready again.
func (r *round) spared(ended *Container) bool {
	if r.mem.Spared[ended.Name].Cause == ended.ID || r.seen.Held != "" {
		return true
	}
	delete(r.mem.Spared, ended.Name)
	return false
}

// orUntil adds to a note what else ends the back-off of an ended container.
func (r *round) orUntil(ended *Container) string {
	if r.mem.Spared[ended.Name].Cause != ended.ID {
		return ""
	}
	return ", or once " + r.seen.Held + " is ready"
}

// forgive forgets the back-off of a container.
func (r *round) forgive(name string) {
	delete(r.mem.BackOff, name)
	delete(r.mem.Spared, name)
}

// next returns the entry for an ended container, made from the one before it if it is new, and when it is over.
func (r *round) next(entries map[string]BackOffEntry, ended *Container) (BackOffEntry, time.Time) {
	e, known := entries[ended.Name]
	if e.Cause != ended.ID {
		ran := ended.FinishedAt.Sub(ended.StartedAt)
		if !known || !ended.StartedAt.IsZero() && ran > calm {
			e.Delay = 0
		} else {
			e.Delay = min(max(2*e.Delay, firstBackOff), r.policy.limit())
		}
		e.Since, e.Cause = ended.FinishedAt, ended.ID
		if e.Since.IsZero() {
			e.Since = r.now
		}
	}
	return r.mark(entries, ended.Name, e)
}

// sandboxDue is due for the successor of a sandbox that is no longer ready. It starts at 1 s, since the dead one tells
// nothing about the containers; without it a sandbox that dies at once would be remade as fast as the runtime can.
func (r *round) sandboxDue(dead *Sandbox) (BackOffEntry, time.Time) {
	const key = "" // no container has this name
	e, known := r.mem.BackOff[key]
	if e.Cause != dead.ID {
		if !known || r.now.Sub(dead.CreatedAt) > calm {
			e.Delay = 0
		} else {
			e.Delay = min(max(2*e.Delay, time.Second), r.policy.limit())
		}
		e.Since, e.Cause = r.now, dead.ID
	}
	return r.mark(r.mem.BackOff, key, e)
}

func (p Policy) limit() time.Duration {
	if p.MaxRestartPeriod <= 0 {
		return maxBackOff
	}
	return p.MaxRestartPeriod
}

// mark keeps an entry whose beginning lies in the future, by a clock that was set back, from waiting longer than its
// delay from now.
func (r *round) mark(entries map[string]BackOffEntry, key string, e BackOffEntry) (BackOffEntry, time.Time) {
	if e.Since.After(r.now) {
		e.Since = r.now
	}
	entries[key] = e
	return e, e.Since.Add(e.Delay)
}

// exit describes how a container ended.
func (r *round) exit(c *Container) string {
	if why := cmp.Or(r.mem.Killed[c.ID], r.mem.Failed[c.ID]); why != "" {
		return why
	}
	s := fmt.Sprintf("exit code %d", c.ExitCode)
	switch c.Reason {
	case "", "Error", "Completed":
		return s
	}
	return c.Reason + ", " + s
}
