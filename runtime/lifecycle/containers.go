package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// copies returns the containers of that name that match, oldest first.
func (r *round) copies(name string, match func(*Container) bool) []*Container {
	var found []*Container
	for _, c := range r.containers {
		if c.Name == name && match(c) {
			found = append(found, c)
		}
	}
	return found
}

func (r *round) newest(name string, match func(*Container) bool) *Container {
	if found := r.copies(name, match); len(found) > 0 {
		return found[len(found)-1]
	}
	return nil
}

// nextAttempt is one more than any that left a trace: the runtime reserves a dead container's name until it is removed.
func (r *round) nextAttempt(name string) uint32 {
	next := uint32(0)
	if n, ok := r.mem.Attempts[name]; ok { // those seen now are among them
		next = n + 1
	}
	if n, ok := r.seen.LastAttempt[name]; ok {
		next = max(next, n+1)
	}
	return next
}

// tendOne keeps one container running, and returns it if it runs and may go on.
func (r *round) tendOne(t *tending, spec *corev1.Container) *Container {
	live, unknown := r.single(t, spec)
	switch {
	case unknown:
		t.note(making, "stopping %s: its state is unknown", spec.Name)
		return nil
	case live != nil:
		return r.keep(t, spec, live)
	}
	if why, now := r.mayStart(t, spec); now {
		r.start(t, spec, why)
	}
	return nil
}

// single returns the copy of a container that runs, the newest. All others go: one in the state unknown is stopped and
// removed before anything else is done.
func (r *round) single(t *tending, spec *corev1.Container) (live *Container, unknown bool) {
	for _, c := range r.copies(spec.Name, r.atHome) {
		switch c.State {
		case ContainerCreated: // nothing starts it any more: a start is never retried on the same container
			t.first = append(t.first, remove(c, "created and never started"))
		case ContainerUnknown:
			t.stops = append(t.stops, r.stop(c, r.homeGrace(), "its state is unknown"))
			t.last = append(t.last, remove(c, "its state was unknown"))
			unknown = true
		case ContainerRunning:
			if live != nil {
				t.stops = append(t.stops, r.stop(live, r.homeGrace(), "a newer copy runs"))
			}
			live = c
		}
	}
	return live, unknown
}

// keep returns a running container, or stops it if it must be restarted.
func (r *round) keep(t *tending, spec *corev1.Container, c *Container) *Container {
	if grace, why := r.unfit(spec, c); why != "" {
		t.stops = append(t.stops, r.stop(c, grace, why))
		t.note(making, "stopping %s: %s", spec.Name, why)
		return nil
	}
	if isInit(r.want.Pod, spec) {
		t.note(running, "%s runs", spec.Name)
		return c
	}
	t.note(running, "%s", health(c))
	if c.Hook.State == HookRunning && t.hooking == "" && isMain(r.want.Pod, spec) {
		t.hooking = spec.Name + because(c.Hook.Message)
	}
	return c
}

// mayStart tells whether a container of which no copy runs is to be started now, and why.
func (r *round) mayStart(t *tending, spec *corev1.Container) (why string, now bool) {
	where := r.ours
	if isInit(r.want.Pod, spec) {
		where = r.atHome // a new sandbox is initialised anew
	}
	dead := r.newest(spec.Name, func(c *Container) bool { return where(c) && c.State == ContainerExited })
	if dead == nil {
		return "not started yet", true
	}
	why = r.exit(dead)
	if !r.restarts(spec, dead) {
		t.note(finished, "%s has ended (%s)", spec.Name, why)
		return "", false
	}
	if !r.atHome(dead) { // it ended with its sandbox, which has a back-off of its own
		if r.mem.Killed[dead.ID] == "" {
			why += " in the former sandbox"
		}
		return why, true
	}
	if asked := r.seen.Restart[dead.ID]; asked != "" && !isInit(r.want.Pod, spec) {
		r.forgive(spec.Name)
		return asked, true
	}
	e, due := r.due(dead)
	if r.now.Before(due) {
		r.wakeAt(due)
		t.note(delayed, "back-off %s restarting %s%s (%s, %s)", e.Delay, spec.Name, r.orUntil(dead), why, restarts(dead.Attempt))
		return "", false
	}
	if e.Delay > 0 {
		why = fmt.Sprintf("back-off %s over, %s", e.Delay, why)
	}
	return why, true
}

// start starts a container once its images are there. Main containers wait for the post-start hook of an earlier one,
// since pods rely on one container's hook before the next one's start: a kubelet starts them one after the other, hook
// included. Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container.go:323.
func (r *round) start(t *tending, spec *corev1.Container, why string) {
	missing, asks := r.images(spec)
	for _, a := range asks {
		t.images = appendImage(t.images, a)
	}
	if missing != "" {
		t.note(unprepared, "%s: %s", spec.Name, missing)
		return
	}
	if isMain(r.want.Pod, spec) {
		if t.hooking != "" {
			t.note(making, "%s waits for the post-start hook of %s", spec.Name, t.hooking)
			return
		}
		if spec.Lifecycle != nil && spec.Lifecycle.PostStart != nil {
			t.hooking = spec.Name
		}
	}
	t.starts = append(t.starts, Action{
		Kind: StartContainer, SandboxID: r.home.ID, Name: spec.Name, UID: r.want.UID, Image: spec.Image,
		Attempt: r.nextAttempt(spec.Name), Why: why,
	})
	t.note(making, "starting %s: %s", spec.Name, why)
}

func (r *round) homeGrace() time.Duration { return podGrace(r.want.Pod) }

// isInit tells whether a container is an init container that runs to its end.
func isInit(pod *corev1.Pod, spec *corev1.Container) bool {
	return !isSidecar(spec) && slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == spec.Name })
}

// isMain tells whether a container is none of the init containers.
func isMain(pod *corev1.Pod, spec *corev1.Container) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == spec.Name })
}

func restarts(n uint32) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%d restarts", n)
}
