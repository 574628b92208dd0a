package supervisor

import (
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// start is how far the first start of a version of a pod is.
type start struct {
	version string
	seen    time.Time // when the manifest was
	acted   bool      // a container of it was started here: the pod was not found running
	over    bool
}

// noteStart tells Config.Started once every container of a version that was started here runs.
func (w *worker) noteStart(want *manifest.StaticPod, seen lifecycle.Observed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun.over || w.begun.version != versionOf(want) || !allRun(want, seen) {
		return
	}
	w.begun.over = true
	if w.begun.acted && w.s.c.Started != nil {
		w.s.c.Started(time.Since(w.begun.seen))
	}
}

// allRun tells whether every main container and every sidecar runs.
func allRun(want *manifest.StaticPod, seen lifecycle.Observed) bool {
	return want != nil && every(want.Pod, func(spec *corev1.Container) bool {
		c := runningIn(seen, want.UID, spec.Name)
		return c != nil
	})
}

// every tells whether something is true of every main container and every sidecar.
func every(pod *corev1.Pod, is func(*corev1.Container) bool) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways; sidecar && !is(c) {
			return false
		}
	}
	for i := range pod.Spec.Containers {
		if !is(&pod.Spec.Containers[i]) {
			return false
		}
	}
	return true
}

// runningIn returns the running container of that name; nil when there is none.
func runningIn(seen lifecycle.Observed, uid, name string) *lifecycle.Container {
	for i := range seen.Containers {
		if c := &seen.Containers[i]; c.Name == name && c.UID == uid && c.State == lifecycle.ContainerRunning {
			return c
		}
	}
	return nil
}
