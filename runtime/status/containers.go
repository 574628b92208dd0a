package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// creating is the kubelet's reason for a container that is about to be made.
const creating = "ContainerCreating"

// containerStatuses returns one status per container of the spec, in its order. The restart count is the newest
// attempt: the runtime keeps it, so it survives the supervisor.
func containerStatuses(pod *corev1.Pod, specs []corev1.Container, v View) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for i := range specs {
		out = append(out, containerStatus(pod, &specs[i], v))
	}
	return out
}

func containerStatus(pod *corev1.Pod, spec *corev1.Container, v View) corev1.ContainerStatus {
	newest, previous := attempts(spec.Name, string(pod.UID), v.Seen.Containers)
	started := newest != nil && newest.State == lifecycle.ContainerRunning && newest.Probe.Started
	s := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, Started: &started}
	if newest == nil {
		s.RestartCount = int32(v.Seen.LastAttempt[spec.Name])
		s.State.Waiting = waiting(spec, v)
		return s
	}
	s.RestartCount = int32(newest.Attempt)
	s.ContainerID = containerID(newest)
	s.ImageID = newest.ImageRef
	if previous != nil {
		s.LastTerminationState.Terminated = terminated(previous)
	}
	switch newest.State {
	case lifecycle.ContainerRunning:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(newest.StartedAt)}
		s.Ready = newest.Probe.Ready && (!isInit(pod, spec) || isSidecar(spec))
	case lifecycle.ContainerCreated:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: creating}
	default:
		if v.Decision.State == lifecycle.BackOff && restarts(pod, spec, newest) {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: explanation(v)}
			s.LastTerminationState.Terminated = terminated(newest)
		} else {
			s.State.Terminated = terminated(newest)
			s.Ready = newest.ExitCode == 0 && isInit(pod, spec) && !isSidecar(spec) // the kubelet calls a finished init container ready
		}
	}
	return s
}

// restarts tells whether a container that ended like this one is started again.
func restarts(pod *corev1.Pod, spec *corev1.Container, c *lifecycle.Container) bool {
	policy := pod.Spec.RestartPolicy
	if spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return c.ExitCode != 0
	}
	return !isInit(pod, spec) || isSidecar(spec) || c.ExitCode != 0
}

func isSidecar(spec *corev1.Container) bool {
	return spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isInit(pod *corev1.Pod, spec *corev1.Container) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == spec.Name })
}

func containerID(c *lifecycle.Container) string { return "containerd://" + c.ID }

// attempts returns the newest and the second newest container of a name in this version of the pod.
func attempts(name, uid string, all []lifecycle.Container) (newest, previous *lifecycle.Container) {
	for i := range all {
		c := &all[i]
		if c.Name != name || c.UID != uid {
			continue
		}
		if newest == nil || c.Attempt > newest.Attempt || c.Attempt == newest.Attempt && c.CreatedAt.After(newest.CreatedAt) {
			newest, previous = c, newest
		} else if previous == nil || c.Attempt > previous.Attempt {
			previous = c
		}
	}
	return newest, previous
}

// waiting says why a container that does not exist yet does not, with the kubelet's reasons where it has one.
func waiting(spec *corev1.Container, v View) *corev1.ContainerStateWaiting {
	w := &corev1.ContainerStateWaiting{Reason: creating}
	im := v.Seen.Images[spec.Image]
	switch {
	case v.Failure != "":
		w.Reason, w.Message = "CreateContainerError", v.Failure
	case v.Decision.State == lifecycle.Held:
		w.Reason, w.Message = "StartAfter", v.Decision.Why
	case im.Err != "" && !im.Present && v.Decision.State == lifecycle.Pulling && !v.Decision.Wake.IsZero():
		w.Reason, w.Message = "ImagePullBackOff", im.Err
	case im.Err != "" && !im.Present:
		w.Reason, w.Message = "ErrImagePull", im.Err
	}
	return w
}

func terminated(c *lifecycle.Container) *corev1.ContainerStateTerminated {
	reason := c.Reason
	if reason == "" {
		reason = "Error"
		if c.ExitCode == 0 {
			reason = "Completed"
		}
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: reason, Message: c.Message, ContainerID: containerID(c),
		StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt),
	}
}
