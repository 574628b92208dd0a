// Package status shows what the supervisor wants, sees and does, as the kubelet would show it.
package status

import (
	"cmp"
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

	// QOS is the class of Want; "" is not shown.
	QOS corev1.PodQOSClass
	// Users are what containers run as, by container id, where the runtime tells (containerd 2.0 does).
	Users map[string]*corev1.LinuxContainerUser
	// RecursiveReadOnly says that the runtime can make what is mounted below a read-only mount read-only as well.
	RecursiveReadOnly bool
}

// Problem is a manifest that is not taken.
type Problem struct {
	Source string `json:"source"`
	Pod    string `json:"pod,omitempty"` // full name, where it is known
	Reason string `json:"reason"`
}

// localPrefix begins the annotations that the local API adds.
const localPrefix = "slipway.dev/"

// Annotations under which the local API shows what a v1.Pod has no field for. They are never written to the runtime,
// and IsLocal knows them.
const (
	AnnotationState           = localPrefix + "state"
	AnnotationWhy             = localPrefix + "why"
	AnnotationVersion         = localPrefix + "version" // UID/SpecHash of the version that runs, or is to run
	AnnotationProblem         = localPrefix + "problem"
	AnnotationSource          = localPrefix + "manifest"
	AnnotationRejected        = localPrefix + "rejected"         // why a newer version was given up
	AnnotationRejectedVersion = localPrefix + "rejected-version" // UID/SpecHash
	AnnotationRejectedLog     = localPrefix + "rejected-log"     // its last lines
)

// IsLocal tells whether an annotation is one that the local API adds, and so belongs neither in the runtime nor in the
// Kubernetes API.
func IsLocal(key string) bool {
	return slices.Contains([]string{AnnotationState, AnnotationWhy, AnnotationVersion, AnnotationProblem, AnnotationSource,
		AnnotationRejected, AnnotationRejectedVersion, AnnotationRejectedLog}, key)
}

// Pod returns the pod with its status, in the terms of the kubelet: phase, conditions and container statuses. before
// is what was shown last, from which times of unchanged conditions are kept; it may be nil. The result shares its spec
// with v.Want, which nobody may change.
func Pod(v View, before *corev1.Pod) *corev1.Pod {
	pod := skeleton(v, before)
	annotate(pod, v)
	pod.Status.Message = explanation(v)
	pod.Status.QOSClass = v.QOS
	pod.Status.InitContainerStatuses = containerStatuses(pod, pod.Spec.InitContainers, v)
	pod.Status.ContainerStatuses = containerStatuses(pod, pod.Spec.Containers, v)
	slices.SortFunc(pod.Status.ContainerStatuses, func(a, b corev1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) })
	pod.Status.Phase = phase(pod, v)
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
	pod.Status.StartTime = startTime(pod, v, before)
	if pastDeadline(pod, v.Now) {
		pod.Status.Phase, pod.Status.Reason, pod.Status.Message = corev1.PodFailed, deadlineExceeded, deadlineMessage
	}
	pod.Status.Conditions = conditions(pod, v, before)
	return pod
}

func annotate(pod *corev1.Pod, v View) {
	add := func(key, value string) {
		if value != "" {
			pod.Annotations[key] = value
		}
	}
	pod.Annotations[AnnotationState] = v.Decision.State.String()
	add(AnnotationWhy, explanation(v))
	add(AnnotationProblem, v.Problem)
	if v.Rejected != nil {
		add(AnnotationRejected, v.Rejected.Reason)
		add(AnnotationRejectedVersion, v.Rejected.Version)
		add(AnnotationRejectedLog, strings.Join(v.Rejected.Log, "\n"))
	}
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
		pod.Annotations[AnnotationVersion] = lastgood.Version(v.Want)
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

func explanation(v View) string { return cmp.Or(v.Failure, v.Decision.Why) }

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

// startTime is when the first sandbox of this version that is still known was made, or was shown to have been.
func startTime(pod *corev1.Pod, v View, before *corev1.Pod) *metav1.Time {
	if before != nil && before.UID == pod.UID && before.Status.StartTime != nil {
		return before.Status.StartTime
	}
	var first time.Time
	for _, sb := range v.Seen.Sandboxes {
		if sb.UID == string(pod.UID) && (first.IsZero() || sb.CreatedAt.Before(first)) {
			first = sb.CreatedAt
		}
	}
	if first.IsZero() {
		return nil
	}
	at := metav1.NewTime(first)
	return &at
}
