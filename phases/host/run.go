package host

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Run is one run of a pod: its version, and the containers that it consists of. The zero Run is that of no pod.
type Run struct {
	UID        string
	Containers []string // ids
}

// RunOf returns the run that a pod's status shows.
func RunOf(pod *corev1.Pod) Run {
	r := Run{UID: string(pod.UID)}
	for _, c := range pod.Status.ContainerStatuses {
		if c.ContainerID != "" {
			r.Containers = append(r.Containers, c.ContainerID)
		}
	}
	return r
}

// over reports whether pod has left the run behind: it is of another version, or none of the run's containers is the
// latest of its name any more.
func (r Run) over(pod *corev1.Pod) bool {
	if string(pod.UID) != r.UID {
		return true
	}
	for _, c := range pod.Status.ContainerStatuses {
		if slices.Contains(r.Containers, c.ContainerID) {
			return false
		}
	}
	return true
}
