package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// fate is what becomes of one container of the spec.
type fate int

const (
	running    fate = iota // and stays so
	finished               // and stays so
	making                 // started or stopped for a restart by this round
	unprepared             // waits for its image
	delayed                // waits for its back-off
)

// tending collects the actions on the containers of the home sandbox, and what they wait for.
type tending struct {
	first  []Action // removals that a start depends on
	starts []Action
	stops  []Action
	images []Action
	last   []Action // removals that depend on a stop
	notes  [delayed + 1][]string
}

// tend keeps the containers of the home sandbox as the spec wants them.
func (r *round) tend() (State, string) {
	if why, ended := r.ended(); ended {
		r.finish(why)
		return Completed, why
	}
	var t tending
	r.stopStrangers(&t)
	initialising := !r.initialise(&t)
	if !initialising {
		for i := range r.want.Pod.Spec.Containers {
			r.tendOne(&t, &r.want.Pod.Spec.Containers[i])
		}
	}
	r.perform(&t)
	switch {
	case len(t.notes[making]) > 0:
		return Starting, join(t.notes[making])
	case len(t.notes[unprepared]) > 0:
		return Pulling, join(t.notes[unprepared])
	case len(t.notes[delayed]) > 0:
		return BackOff, join(t.notes[delayed])
	case initialising:
		return Starting, "init container " + join(t.notes[running])
	default:
		return Running, join(slices.Concat(t.notes[running], t.notes[finished]))
	}
}

func join(notes []string) string { return strings.Join(notes, "; ") }

// perform orders the actions: what stops one container does not hold up the start of another. Starts run one after
// the other if the pod has post-start hooks, since pods rely on one container's hook before the next one's start.
func (r *round) perform(t *tending) {
	r.do(t.first...)
	free := slices.Concat(t.images, t.stops)
	hooked := slices.ContainsFunc(r.want.Pod.Spec.Containers, func(c corev1.Container) bool {
		return c.Lifecycle != nil && c.Lifecycle.PostStart != nil
	})
	if hooked {
		r.do(t.starts...)
	} else {
		free = slices.Concat(t.starts, free)
	}
	r.together(free)
	r.do(t.last...)
}

// initialise tends the init containers, each only after the one before is done (or, a sidecar, has started). It tells
// whether the main containers may run. Once one of them exists in the sandbox, only the sidecars are looked after.
func (r *round) initialise(t *tending) bool {
	specs := r.want.Pod.Spec.InitContainers
	reached := -1 // the last one that was begun in this sandbox: what came before it is done, whatever is left of it
	for i := range specs {
		if len(r.copies(specs[i].Name, r.atHome)) > 0 {
			reached = i
		}
	}
	for i := range r.want.Pod.Spec.Containers {
		if len(r.copies(r.want.Pod.Spec.Containers[i].Name, r.atHome)) > 0 {
			reached = len(specs)
		}
	}
	for i := range specs {
		if i < reached {
			if isSidecar(&specs[i]) {
				r.tendOne(t, &specs[i])
			}
			continue
		}
		if isSidecar(&specs[i]) {
			if c := r.tendOne(t, &specs[i]); c == nil || !c.Probe.Started {
				return false
			}
			continue
		}
		if c := r.newest(specs[i].Name, r.atHome); c != nil && c.State == ContainerExited && c.ExitCode == 0 && r.mem.Killed[c.ID] == "" {
			continue
		}
		r.tendOne(t, &specs[i])
		return false
	}
	return true
}

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
	note := func(f fate, format string, args ...any) {
		t.notes[f] = append(t.notes[f], fmt.Sprintf(format, args...))
	}
	initial := isInit(r.want.Pod, spec)
	var live *Container
	var unknown bool
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
	if unknown {
		note(making, "stopping %s: its state is unknown", spec.Name)
		return nil
	}
	if live != nil {
		if grace, why := r.unfit(spec, live); why != "" {
			t.stops = append(t.stops, r.stop(live, grace, why))
			note(making, "stopping %s: %s", spec.Name, why)
			return nil
		}
		if initial {
			note(running, "%s runs", spec.Name)
		} else {
			note(running, "%s", health(live))
		}
		return live
	}
	where := r.ours
	if initial {
		where = r.atHome // a new sandbox is initialised anew
	}
	dead := r.newest(spec.Name, func(c *Container) bool { return where(c) && c.State == ContainerExited })
	why := "not started yet"
	if dead != nil {
		if !r.restarts(spec, dead) {
			note(finished, "%s has ended (%s)", spec.Name, r.exit(dead))
			return nil
		}
		why = r.exit(dead)
		if r.atHome(dead) {
			e, due := r.due(dead)
			if r.now.Before(due) {
				r.wakeAt(due)
				note(delayed, "back-off %s restarting %s (%s, %s)", e.Delay, spec.Name, why, restarts(dead.Attempt))
				return nil
			}
			if e.Delay > 0 {
				why = fmt.Sprintf("back-off %s over, %s", e.Delay, why)
			}
		} else { // it ended with its sandbox, which has a back-off of its own
			why += " in the former sandbox"
		}
	}
	missing, asks := r.images(spec)
	for _, a := range asks {
		t.images = appendImage(t.images, a)
	}
	if missing != "" {
		note(unprepared, "%s: %s", spec.Name, missing)
		return nil
	}
	t.starts = append(t.starts, Action{
		Kind: StartContainer, SandboxID: r.home.ID, Name: spec.Name, UID: r.want.UID, Image: spec.Image,
		Attempt: r.nextAttempt(spec.Name), Why: why,
	})
	note(making, "starting %s: %s", spec.Name, why)
	return nil
}

func (r *round) homeGrace() time.Duration { return podGrace(r.want.Pod) }

// isInit tells whether a container is an init container that runs to its end.
func isInit(pod *corev1.Pod, spec *corev1.Container) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == spec.Name {
			return !isSidecar(spec)
		}
	}
	return false
}

func restarts(n uint32) string {
	if n == 1 {
		return "1 restart"
	}
	return fmt.Sprintf("%d restarts", n)
}

func health(c *Container) string {
	switch {
	case !c.Probe.Started:
		return c.Name + " runs, not started yet" + because(c.Probe.Message)
	case !c.Probe.Ready:
		return c.Name + " runs, not ready" + because(c.Probe.Message)
	default:
		return c.Name + " runs"
	}
}

func because(message string) string {
	if message == "" {
		return ""
	}
	return " (" + message + ")"
}

// unfit returns why a running container must be restarted, and with which grace; "" when it may run on.
func (r *round) unfit(spec *corev1.Container, c *Container) (time.Duration, string) {
	if c.Hash != "" && c.Hash != ContainerHash(spec.Name, spec.Image) {
		why := "its image is not the manifest's"
		r.mem.Killed[c.ID] = why
		delete(r.mem.BackOff, spec.Name) // not its fault
		return r.homeGrace(), why
	}
	kill := func(p *corev1.Probe, why string) (time.Duration, string) {
		if policyOf(r.want.Pod, spec) != corev1.RestartPolicyNever {
			r.mem.Killed[c.ID] = why
		}
		if p != nil && p.TerminationGracePeriodSeconds != nil {
			return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second, why
		}
		return r.homeGrace(), why
	}
	switch {
	case c.Probe.StartupFailed != "":
		return kill(spec.StartupProbe, "startup probe failed: "+c.Probe.StartupFailed)
	case c.Probe.LivenessFailed != "":
		return kill(spec.LivenessProbe, "liveness probe failed: "+c.Probe.LivenessFailed)
	}
	return 0, ""
}

// stopStrangers stops what runs in the home sandbox under a name that the manifest does not have.
func (r *round) stopStrangers(t *tending) {
	for _, c := range r.containers {
		if r.atHome(c) && alive(c) && specOf(r.want.Pod, c.Name) == nil {
			t.stops = append(t.stops, r.stop(c, r.homeGrace(), "not in the manifest"))
			if c.State == ContainerUnknown {
				t.last = append(t.last, remove(c, "its state was unknown"))
			}
			t.notes[making] = append(t.notes[making], fmt.Sprintf("stopping %s: not in the manifest", c.Name))
		}
	}
}
