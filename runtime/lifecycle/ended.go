package lifecycle

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// ended tells whether nothing of the pod will ever run again: every main container has ended, or an init container
// has failed, and the restart policy keeps it so.
func (r *round) ended() (string, bool) {
	for _, c := range r.containers {
		if spec := specOf(r.want.Pod, c.Name); alive(c) && spec != nil && !isSidecar(spec) {
			return "", false
		}
	}
	over := func(spec *corev1.Container) *Container {
		if c := r.newest(spec.Name, func(c *Container) bool { return r.ours(c) && c.State == ContainerExited }); c != nil && !r.restarts(spec, c) {
			return c
		}
		return nil
	}
	for i := range r.want.Pod.Spec.InitContainers {
		spec := &r.want.Pod.Spec.InitContainers[i]
		if c := over(spec); c != nil && c.ExitCode != 0 {
			return fmt.Sprintf("init container %s failed (%s) and is not restarted", spec.Name, r.exit(c)), true
		}
	}
	var notes []string
	for i := range r.want.Pod.Spec.Containers {
		spec := &r.want.Pod.Spec.Containers[i]
		c := over(spec)
		if c == nil {
			return "", false
		}
		notes = append(notes, fmt.Sprintf("%s has ended (%s)", spec.Name, r.exit(c)))
	}
	return join(notes), len(notes) > 0
}

// finish stops the sidecars of a pod that has ended, then its sandbox.
func (r *round) finish(why string) {
	var running []*Container
	for _, c := range r.containers {
		if r.atHome(c) && alive(c) {
			running = append(running, c)
		}
	}
	if len(running) == 0 {
		r.do(Action{Kind: StopSandbox, ID: r.home.ID, UID: r.home.UID, Why: "the pod has ended: " + why})
		return
	}
	var stops, forced []Action
	for _, c := range stage(r.want.Pod, running) {
		stops = append(stops, r.stop(c, r.homeGrace(), "the pod has ended: "+why))
		if c.State == ContainerUnknown {
			forced = append(forced, remove(c, "its state was unknown"))
		}
	}
	r.together(stops)
	r.do(forced...)
}
