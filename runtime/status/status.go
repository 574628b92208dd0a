// Package status shows what the supervisor wants, sees and does, as the kubelet would show it.
package status

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// View is one worker's picture of its pod at one instant.
type View struct {
	Name     string // full name, "namespace/name"
	HostIPs  []netip.Addr
	Now      time.Time
	Want     *manifest.StaticPod // nil when its manifest is gone
	Seen     lifecycle.Observed
	Decision lifecycle.Decision
	Ready    bool
	Problem  string // why a newer version of the manifest is not taken
	Failure  string // why the last look or action failed
	// Rejected is the newest version of the manifest, when it was given up for the last good one, which is then Want.
	Rejected *lastgood.Rejection
}

// Problem is a manifest that is not taken.
type Problem struct {
	Source string `json:"source"`
	Pod    string `json:"pod,omitempty"` // full name, where it is known
	Reason string `json:"reason"`
}

// Annotations under which the local API shows what a v1.Pod has no field for. They are never written to the runtime.
const (
	AnnotationState   = "slipway.dev/state"
	AnnotationWhy     = "slipway.dev/why"
	AnnotationProblem = "slipway.dev/problem"
	AnnotationSource  = "slipway.dev/manifest"
)

// Pod returns the pod with its status, in the terms of the kubelet: phase, conditions and container statuses. before
// is what was shown last, from which times of unchanged conditions are kept; it may be nil. The result shares its spec
// with v.Want, which nobody may change.
func Pod(v View, before *corev1.Pod) *corev1.Pod {
	pod := skeleton(v, before)
	pod.Annotations[AnnotationState] = v.Decision.State.String()
	if why := explanation(v); why != "" {
		pod.Annotations[AnnotationWhy] = why
		pod.Status.Message = why
	}
	if v.Problem != "" {
		pod.Annotations[AnnotationProblem] = v.Problem
	}
	uid := string(pod.UID)
	pod.Status.InitContainerStatuses = containerStatuses(pod, pod.Spec.InitContainers, v)
	pod.Status.ContainerStatuses = containerStatuses(pod, pod.Spec.Containers, v)
	if initialized(pod) {
		pod.Status.Phase = phase(pod, v)
	} else {
		pod.Status.Phase = corev1.PodPending
		for i := range pod.Status.ContainerStatuses {
			if w := pod.Status.ContainerStatuses[i].State.Waiting; w != nil && w.Reason == creating {
				w.Reason = "PodInitializing"
			}
		}
	}
	if v.Want == nil && before != nil {
		pod.Status.Phase = before.Status.Phase // its containers go one after the other
	}
	for _, ip := range v.HostIPs {
		pod.Status.HostIPs = append(pod.Status.HostIPs, corev1.HostIP{IP: ip.String()})
		if pod.Status.HostIP == "" {
			pod.Status.HostIP = ip.String()
		}
	}
	pod.Status.PodIP, pod.Status.PodIPs = podIPs(pod, v)
	if started := startTime(uid, v); !started.IsZero() {
		at := metav1.NewTime(started)
		pod.Status.StartTime = &at
	}
	pod.Status.Conditions = conditions(pod, v, before)
	return pod
}

// skeleton is the wanted pod, or, for a pod whose manifest is gone, what was shown of it last or the runtime still
// tells of it.
func skeleton(v View, before *corev1.Pod) *corev1.Pod {
	if v.Want != nil {
		pod := *v.Want.Pod
		pod.Annotations = maps.Clone(pod.Annotations)
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[AnnotationSource] = v.Want.Source
		pod.Status = corev1.PodStatus{}
		return &pod
	}
	var pod corev1.Pod
	if before != nil {
		pod = *before
		pod.Status = corev1.PodStatus{}
	} else {
		pod = remains(v)
	}
	pod.Annotations = map[string]string{}
	if pod.DeletionTimestamp == nil {
		deleted := metav1.NewTime(v.Now)
		pod.DeletionTimestamp = &deleted
	}
	return &pod
}

// remains is a pod of which no manifest is known, as its newest containers tell of it.
func remains(v View) corev1.Pod {
	namespace, name, _ := strings.Cut(v.Name, "/")
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, sb := range v.Seen.Sandboxes {
		pod.UID = types.UID(sb.UID)
	}
	for _, c := range slices.SortedFunc(slices.Values(v.Seen.Containers), func(a, b lifecycle.Container) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), a.CreatedAt.Compare(b.CreatedAt))
	}) {
		if n := len(pod.Spec.Containers); n > 0 && pod.Spec.Containers[n-1].Name == c.Name {
			pod.Spec.Containers = pod.Spec.Containers[:n-1]
		}
		pod.UID = types.UID(c.UID)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: c.Name, Image: c.ImageRef})
	}
	return pod
}

func explanation(v View) string {
	if v.Failure != "" {
		return v.Failure
	}
	return v.Decision.Why
}

// phase follows the kubelet's rule: Pending until every container was started once, then Running, and Succeeded or
// Failed only where the restart policy lets a pod end.
func phase(pod *corev1.Pod, v View) corev1.PodPhase {
	started, succeeded, failed := 0, 0, 0
	for _, s := range pod.Status.ContainerStatuses {
		switch {
		case s.State.Running != nil, s.LastTerminationState.Terminated != nil:
			started++
		case s.State.Terminated != nil:
			started++
			if s.State.Terminated.ExitCode == 0 {
				succeeded++
			} else {
				failed++
			}
		}
	}
	all := len(pod.Status.ContainerStatuses)
	switch {
	case started < all || all == 0:
		return corev1.PodPending
	case v.Decision.State == lifecycle.Completed && succeeded == all:
		return corev1.PodSucceeded
	case v.Decision.State == lifecycle.Completed && failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodRunning
}

// initialized tells whether every init container has ended well or, a sidecar, has started; what ran before the main
// containers may have been removed since.
func initialized(pod *corev1.Pod) bool {
	for _, s := range pod.Status.ContainerStatuses {
		if s.ContainerID != "" {
			return true
		}
	}
	for i := range pod.Status.InitContainerStatuses {
		s := &pod.Status.InitContainerStatuses[i]
		done := s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
		if isSidecar(&pod.Spec.InitContainers[i]) {
			done = *s.Started
		}
		if !done {
			return false
		}
	}
	return true
}

func podIPs(pod *corev1.Pod, v View) (string, []corev1.PodIP) {
	var ips []corev1.PodIP
	if pod.Spec.HostNetwork {
		for _, ip := range v.HostIPs {
			ips = append(ips, corev1.PodIP{IP: ip.String()})
		}
	} else {
		for _, sb := range v.Seen.Sandboxes {
			if sb.Ready && sb.IP != "" {
				ips = append(ips, corev1.PodIP{IP: sb.IP})
			}
		}
	}
	if len(ips) == 0 {
		return "", nil
	}
	return ips[0].IP, ips
}

// startTime is when the first sandbox of this version that is still known was made.
func startTime(uid string, v View) time.Time {
	var first time.Time
	for _, sb := range v.Seen.Sandboxes {
		if sb.UID == uid && (first.IsZero() || sb.CreatedAt.Before(first)) {
			first = sb.CreatedAt
		}
	}
	return first
}

// conditions are the kubelet's five; the time of a condition changes only with its value.
func conditions(pod *corev1.Pod, v View, before *corev1.Pod) []corev1.PodCondition {
	sandbox := slices.ContainsFunc(v.Seen.Sandboxes, func(sb lifecycle.Sandbox) bool { return sb.Ready && sb.UID == string(pod.UID) })
	reason, message := "ContainersNotReady", ""
	var names []string
	for _, s := range pod.Status.ContainerStatuses {
		if !s.Ready {
			names = append(names, s.Name)
		}
	}
	switch {
	case pod.Status.Phase == corev1.PodSucceeded:
		reason = "PodCompleted"
	case len(names) > 0:
		message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
	}
	out := []corev1.PodCondition{
		condition(corev1.PodReadyToStartContainers, sandbox, "", ""),
		condition(corev1.PodInitialized, initialized(pod), "ContainersNotInitialized", ""),
		condition(corev1.PodReady, v.Ready, reason, message),
		condition(corev1.ContainersReady, v.Ready, reason, message),
		condition(corev1.PodScheduled, true, "", ""),
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

func condition(kind corev1.PodConditionType, is bool, reason, message string) corev1.PodCondition {
	if is {
		return corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue}
	}
	return corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message}
}
