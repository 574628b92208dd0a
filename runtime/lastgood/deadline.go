package lastgood

import (
	"cmp"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// minDeadline is what a version has at least to become ready: an image of 200 MB arrives in a minute over 30 Mbit/s.
	minDeadline = 2 * time.Minute
	// startMargin is added to what the startup probes allow, for the image, the sandbox and the init containers.
	startMargin = time.Minute
	// maxDeadline keeps probes that allow years from an overflow.
	maxDeadline = 24 * time.Hour
)

// Deadline is how long a version of the pod may take to become ready: its ready-within annotation, else the longest
// that a startup probe allows before it fails for good, plus one minute, and at least two minutes. An annotation that
// is no positive duration is as good as none.
func Deadline(pod *corev1.Pod) time.Duration {
	if d, err := time.ParseDuration(pod.Annotations[AnnotationReadyWithin]); err == nil && d > 0 {
		return d
	}
	longest := minDeadline
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			if p := specs[i].StartupProbe; p != nil {
				longest = max(longest, allowed(p)+startMargin)
			}
		}
	}
	return longest
}

// allowed is how long a container may take before its startup probe has failed for good. The defaults are the API's.
func allowed(p *corev1.Probe) time.Duration {
	seconds := int64(p.InitialDelaySeconds) + int64(cmp.Or(p.PeriodSeconds, 10))*int64(cmp.Or(p.FailureThreshold, 3))
	return time.Duration(min(seconds, int64(maxDeadline/time.Second))) * time.Second
}

// RollsBack tells whether the pod wants to be replaced by its last good version when it is given up.
func RollsBack(pod *corev1.Pod) bool { return pod.Annotations[AnnotationRollback] == "true" }
