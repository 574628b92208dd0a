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
	making                 // started or stopped for a restart by this round, or waits for another one's hook
	unprepared             // waits for its image
	delayed                // waits for its back-off
)

// tending collects the actions on the containers of the home sandbox, and what they wait for.
type tending struct {
	first   []Action // removals that a start depends on
	starts  []Action
	stops   []Action
	images  []Action
	last    []Action // removals that depend on a stop
	hooking string   // the main container whose post-start hook has not ended: no later one is started
	notes   [delayed + 1][]string
}

func (t *tending) note(f fate, format string, args ...any) {
	t.notes[f] = append(t.notes[f], fmt.Sprintf(format, args...))
}

// tend keeps the containers of the home sandbox as the spec wants them.
func (r *round) tend() (State, string) {
	if end := r.ended(); end != nil {
		r.reason = end.reason
		r.finish("the pod has ended: " + end.why)
		return Completed, end.why
	}
	r.mem.Finishing = time.Time{}
	if state, why, resetting := r.reset(); resetting {
		return state, why
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

// perform orders the actions: what stops one container does not hold up the start of another.
func (r *round) perform(t *tending) {
	r.do(t.first...)
	r.together(slices.Concat(t.starts, t.images, t.stops))
	r.do(t.last...)
}

// initialise tends the init containers, each only after the one before is done (or, a sidecar, has started). It tells
// whether the main containers may run. Once one of them exists in the sandbox, only the sidecars are looked after.
func (r *round) initialise(t *tending) bool {
	specs := r.want.Pod.Spec.InitContainers
	reached := r.reached()
	for i := range specs {
		if i < reached {
			if isSidecar(&specs[i]) {
				r.tendOne(t, &specs[i])
			} else if _, unknown := r.single(t, &specs[i]); unknown { // done, but it would keep the pod from ending
				t.note(making, "stopping %s: its state is unknown", specs[i].Name)
			}
			continue
		}
		if isSidecar(&specs[i]) {
			if c := r.tendOne(t, &specs[i]); c == nil || !c.Started() {
				return false
			}
			continue
		}
		if c := r.newest(specs[i].Name, r.atHome); c != nil && c.State == ContainerExited && !failed(c) && r.mem.Killed[c.ID] == "" {
			continue
		}
		r.tendOne(t, &specs[i])
		return false
	}
	return true
}

// reached returns the index of the last init container that was begun in this sandbox, or their number if a main one
// was: what came before it is done, whatever is left of it.
func (r *round) reached() int {
	begun := func(specs []corev1.Container, i int) bool { return len(r.copies(specs[i].Name, r.atHome)) > 0 }
	for i := range r.want.Pod.Spec.Containers {
		if begun(r.want.Pod.Spec.Containers, i) {
			return len(r.want.Pod.Spec.InitContainers)
		}
	}
	reached := -1
	for i := range r.want.Pod.Spec.InitContainers {
		if begun(r.want.Pod.Spec.InitContainers, i) {
			reached = i
		}
	}
	return reached
}

// stopStrangers stops what runs in the home sandbox under a name that the manifest does not have.
func (r *round) stopStrangers(t *tending) {
	for _, c := range r.containers {
		if r.atHome(c) && alive(c) && specOf(r.want.Pod, c.Name) == nil {
			t.stops = append(t.stops, r.stop(c, r.homeGrace(), "not in the manifest"))
			if c.State == ContainerUnknown {
				t.last = append(t.last, remove(c, "its state was unknown"))
			}
			t.note(making, "stopping %s: not in the manifest", c.Name)
		}
	}
}
