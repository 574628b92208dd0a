package lifecycle

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// reset carries out the restart rule RestartAllContainers: every container of the pod is stopped and removed, and the
// pod starts from its first init container again, in the same sandbox. The ended container whose rule says so is
// removed last: as long as it is there, so is the order. Kubernetes v1.36.3
// pkg/kubelet/kuberuntime/kuberuntime_manager.go:1189; unlike a kubelet it keeps to the back-off of that container,
// whose own restart it is. It tells whether there is something to reset.
func (r *round) reset() (state State, why string, resetting bool) {
	sources := r.sources()
	if len(sources) == 0 {
		return 0, "", false
	}
	last := sources[len(sources)-1]
	why = fmt.Sprintf("restarting all containers: %s ended with %s", last.Name, r.exit(last))
	if r.halt(why) || r.discard(sources, why) {
		return Starting, why, true
	}
	var until time.Time
	var delay time.Duration
	for _, c := range sources {
		if e, due := r.due(c); r.now.Before(due) && due.After(until) {
			until, delay = due, e.Delay
		}
	}
	if !until.IsZero() {
		r.wakeAt(until)
		return BackOff, fmt.Sprintf("back-off %s %s", delay, why), true
	}
	var removals []Action
	for _, c := range sources {
		removals = append(removals, remove(c, why))
	}
	r.together(removals)
	return Starting, why, true
}

// sources returns the ended containers whose rules restart all. One that was stopped in order to be restarted is none.
func (r *round) sources() []*Container {
	var sources []*Container
	for _, specs := range [][]corev1.Container{r.want.Pod.Spec.InitContainers, r.want.Pod.Spec.Containers} {
		for i := range specs {
			c := r.newest(specs[i].Name, r.atHome)
			if c == nil || c.State != ContainerExited || r.mem.Killed[c.ID] != "" {
				continue
			}
			if ruled(&specs[i], c.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers {
				sources = append(sources, c)
			}
		}
	}
	return sources
}

// halt stops what runs in the home sandbox, main containers before sidecars, without a grace period as a kubelet does
// here. It tells whether anything runs.
func (r *round) halt(why string) bool {
	var running []*Container
	for _, c := range r.containers {
		if r.atHome(c) && alive(c) {
			running = append(running, c)
		}
	}
	if len(running) == 0 {
		return false
	}
	var stops, forced []Action
	for _, c := range stage(r.want.Pod, running) {
		r.mem.Killed[c.ID] = why
		stops = append(stops, r.stop(c, minGrace, why))
		if c.State == ContainerUnknown {
			forced = append(forced, remove(c, "its state was unknown"))
		}
	}
	r.together(stops)
	r.do(forced...)
	return true
}

// discard removes the dead containers of the pod's life other than the sources, also those of former sandboxes: they
// would keep what has ended for good from running again. It tells whether there are any.
func (r *round) discard(sources []*Container, why string) bool {
	spare := map[*Container]bool{}
	for _, c := range sources {
		spare[c] = true
	}
	var removals []Action
	for _, c := range r.containers {
		if r.ours(c) && !spare[c] {
			removals = append(removals, remove(c, why))
		}
	}
	r.together(removals)
	return len(removals) > 0
}
