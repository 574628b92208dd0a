package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ending is how a pod has ended.
type ending struct {
	why    string
	reason string    // as Decision.Reason
	at     time.Time // when the last of the containers that decided it ended, by the runtime's clock
}

// ended tells whether nothing of the pod will ever run again, and how it ended: every main container has ended, or an
// init container has failed, and the restart policy keeps it so. nil when something may run.
func (r *round) ended() *ending {
	for _, c := range r.containers {
		if spec := specOf(r.want.Pod, c.Name); alive(c) && spec != nil && !isSidecar(spec) {
			return nil
		}
	}
	for i := range r.want.Pod.Spec.InitContainers {
		spec := &r.want.Pod.Spec.InitContainers[i]
		if c := r.over(spec); c != nil && failed(c) {
			return &ending{why: fmt.Sprintf("init container %s failed (%s) and is not restarted", spec.Name, r.exit(c)), at: c.FinishedAt}
		}
	}
	var notes []string
	var end ending
	for i := range r.want.Pod.Spec.Containers {
		spec := &r.want.Pod.Spec.Containers[i]
		c := r.over(spec)
		if c == nil {
			return nil
		}
		notes = append(notes, fmt.Sprintf("%s has ended (%s)", spec.Name, r.exit(c)))
		if c.FinishedAt.After(end.at) {
			end.at = c.FinishedAt
		}
		if r.mem.Failed[c.ID] != "" {
			end.reason = ReasonPostStartHook
		}
	}
	if len(notes) == 0 {
		return nil
	}
	end.why = join(notes)
	return &end
}

// over returns the newest copy of a container if it has ended for good.
func (r *round) over(spec *corev1.Container) *Container {
	c := r.newest(spec.Name, func(c *Container) bool { return r.ours(c) && c.State == ContainerExited })
	if c == nil || r.restarts(spec, c) {
		return nil
	}
	return c
}

// finish stops what runs of a pod that has ended, in order and within one grace period, then its sandbox.
func (r *round) finish(why string) {
	if r.mem.Finishing.IsZero() {
		r.mem.Finishing = r.now
	}
	var running []*Container
	for _, c := range r.containers {
		if r.atHome(c) && alive(c) {
			running = append(running, c)
		}
	}
	if len(running) == 0 {
		r.do(Action{Kind: StopSandbox, ID: r.home.ID, UID: r.home.UID, Why: why})
		return
	}
	var stops, forced []Action
	for _, c := range stage(r.want.Pod, running) {
		stops = append(stops, r.stop(c, r.homeGrace()-max(0, r.now.Sub(r.mem.Finishing)), why))
		if c.State == ContainerUnknown {
			forced = append(forced, remove(c, "its state was unknown"))
		}
	}
	r.together(stops)
	r.do(forced...)
}
