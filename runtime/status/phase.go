package status

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// What a kubelet says of a pod that ran longer than its activeDeadlineSeconds. Kubernetes v1.36.3
// pkg/kubelet/active_deadline.go:31.
const (
	deadlineExceeded = "DeadlineExceeded"
	deadlineMessage  = "Pod was active on the node longer than the specified deadline"
)

func pastDeadline(pod *corev1.Pod, now time.Time) bool {
	limit := pod.Spec.ActiveDeadlineSeconds
	return limit != nil && pod.Status.StartTime != nil && now.Sub(pod.Status.StartTime.Time) >= time.Duration(*limit)*time.Second
}

// count is how many of a pod's containers are in which state.
type count struct {
	running, waiting, ended, succeeded int
	final                              int // of ended: not to be started again
	preparing                          int // init containers that have not ended well yet
	failed                             int // init containers that are not tried again
}

// phase follows the kubelet's rules: Pending until every container was started once, then Running, and Succeeded or
// Failed only where restart policies and rules let every container stay ended. Unlike a kubelet's it goes back when
// such a pod is started again. Kubernetes v1.36.3 pkg/kubelet/kubelet_pods.go:1653.
func phase(pod *corev1.Pod, v View) corev1.PodPhase {
	var n count // a sidecar that has not started shows in main containers that wait
	n.addInit(pod)
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		last := s.State.Terminated
		if s.State.Waiting != nil {
			last = s.LastTerminationState.Terminated
		}
		switch {
		case s.State.Running != nil:
			n.running++
		case last == nil:
			n.waiting++
		default:
			n.ended++
			if !restartsAfter(pod, specOf(pod, s.Name), last.ExitCode) {
				n.final++
			}
			if last.ExitCode == 0 && s.State.Terminated != nil {
				n.succeeded++
			}
		}
	}
	switch {
	case n.failed > 0:
		return corev1.PodFailed
	case n.preparing > 0, n.waiting > 0, n.running+n.ended == 0:
		return corev1.PodPending
	case n.running > 0, n.ended > n.final:
		return corev1.PodRunning
	case n.ended == n.succeeded:
		return corev1.PodSucceeded
	}
	return corev1.PodFailed
}

func (n *count) addInit(pod *corev1.Pod) {
	for i := range pod.Status.InitContainerStatuses {
		s, spec := &pod.Status.InitContainerStatuses[i], &pod.Spec.InitContainers[i]
		last := s.State.Terminated
		if s.State.Waiting != nil {
			last = s.LastTerminationState.Terminated
		}
		switch {
		case isSidecar(spec):
			if s.State.Running != nil {
				n.running++
			}
		case s.State.Running != nil, last == nil:
			n.preparing++
		case last.ExitCode != 0 && !restartsAfter(pod, spec, last.ExitCode):
			n.failed++
		}
	}
}

// made tells whether a main container was made: what ran before may have been removed, or be restarting, since.
func made(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.ContainerID != "" })
}

// initDone tells whether an init container has ended well or, a sidecar, has started.
func initDone(spec *corev1.Container, s *corev1.ContainerStatus) bool {
	if isSidecar(spec) {
		return s.Started != nil && *s.Started
	}
	return s.Ready
}

// incomplete names the init containers that keep the main ones from being started; none once these were.
func incomplete(pod *corev1.Pod) []string {
	if made(pod) {
		return nil
	}
	var names []string
	for i := range pod.Status.InitContainerStatuses {
		if s := &pod.Status.InitContainerStatuses[i]; !initDone(&pod.Spec.InitContainers[i], s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// unready names the sidecars and main containers that are not ready, in the kubelet's order.
func unready(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Status.InitContainerStatuses {
		if s := &pod.Status.InitContainerStatuses[i]; isSidecar(&pod.Spec.InitContainers[i]) && !s.Ready {
			names = append(names, s.Name)
		}
	}
	for i := range pod.Spec.Containers {
		for _, s := range pod.Status.ContainerStatuses {
			if s.Name == pod.Spec.Containers[i].Name && !s.Ready {
				names = append(names, s.Name)
			}
		}
	}
	return names
}

// conditions are the kubelet's five, with its reasons; the time of a condition changes only with its value. Kubernetes
// v1.36.3 pkg/kubelet/status/generate.go.
func conditions(pod *corev1.Pod, v View, before *corev1.Pod) []corev1.PodCondition {
	sandbox := slices.ContainsFunc(v.Seen.Sandboxes, func(sb lifecycle.Sandbox) bool { return sb.Ready && sb.UID == string(pod.UID) })
	notReady := unready(pod)
	ready := condition(corev1.ContainersReady, v.Ready && len(notReady) == 0, "ContainersNotReady", named("unready", notReady))
	waiting := incomplete(pod)
	initialized := condition(corev1.PodInitialized, len(waiting) == 0, "ContainersNotInitialized", named("incomplete", waiting))
	switch pod.Status.Phase {
	case corev1.PodSucceeded:
		ready = condition(corev1.ContainersReady, false, "PodCompleted", "")
		initialized = corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, Reason: "PodCompleted"}
	case corev1.PodFailed:
		ready = condition(corev1.ContainersReady, false, "PodFailed", "")
	}
	whole := ready
	whole.Type = corev1.PodReady
	out := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, sandbox, "", ""), initialized, whole, ready, condition(corev1.PodScheduled, true, "", ""),
	}
	for i := range out {
		out[i].LastTransitionTime = metav1.NewTime(v.Now)
		if before == nil {
			continue
		}
		for _, old := range before.Status.Conditions {
			if old.Type == out[i].Type && old.Status == out[i].Status {
				out[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return out
}

func named(status string, containers []string) string {
	if len(containers) == 0 {
		return ""
	}
	return fmt.Sprintf("containers with %s status: %s", status, containers)
}

func condition(kind corev1.PodConditionType, is bool, reason, message string) corev1.PodCondition {
	if is {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}
