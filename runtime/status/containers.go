package status

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

func uidOf(uid string) types.UID { return types.UID(uid) }

// containerStatuses returns one status per container of the spec, in its order. The restart count is the newest
// attempt: the runtime keeps it, so it survives the supervisor.
func containerStatuses(spec []corev1.Container, uid string, v View) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, c := range spec {
		newest, previous := attempts(c.Name, uid, v.Seen.Containers)
		s := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
		if newest == nil {
			s.State.Waiting = waiting(c, v)
			started := false
			s.Started = &started
			out = append(out, s)
			continue
		}
		s.RestartCount = int32(newest.Attempt)
		s.ContainerID = "containerd://" + newest.ID
		s.ImageID = newest.ImageRef
		started := newest.State == lifecycle.ContainerRunning && newest.Probe.Started
		s.Started = &started
		switch newest.State {
		case lifecycle.ContainerRunning:
			s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(newest.StartedAt)}
			s.Ready = newest.Probe.Ready
			if previous != nil {
				s.LastTerminationState.Terminated = terminated(*previous)
			}
		case lifecycle.ContainerCreated:
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		default:
			if v.Decision.State == lifecycle.Completed || v.Want == nil {
				s.State.Terminated = terminated(*newest)
			} else {
				s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: explanation(v)}
				s.LastTerminationState.Terminated = terminated(*newest)
			}
		}
		out = append(out, s)
	}
	return out
}

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

// waiting says why a container that does not exist yet does not, with the kubelet's reasons.
func waiting(c corev1.Container, v View) *corev1.ContainerStateWaiting {
	w := &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
	if im, ok := v.Seen.Images[c.Image]; ok && !im.Present && im.Err != "" {
		w.Reason, w.Message = "ErrImagePull", im.Err
		if v.Decision.State == lifecycle.Pulling && !v.Decision.Wake.IsZero() {
			w.Reason = "ImagePullBackOff"
		}
	}
	switch {
	case v.Failure != "":
		w.Reason, w.Message = "CreateContainerError", v.Failure
	case v.Decision.State == lifecycle.Held:
		w.Reason, w.Message = "StartAfter", v.Decision.Why
	}
	return w
}

func terminated(c lifecycle.Container) *corev1.ContainerStateTerminated {
	reason := c.Reason
	if reason == "" {
		reason = "Error"
		if c.ExitCode == 0 {
			reason = "Completed"
		}
	}
	return &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: reason, Message: c.Message, ContainerID: "containerd://" + c.ID,
		StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt),
	}
}
