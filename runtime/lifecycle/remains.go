package lifecycle

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	// defaultGrace is for a pod of which neither manifest nor annotation is known: the API's default of
	// terminationGracePeriodSeconds.
	defaultGrace = 30 * time.Second
	// minGrace is the least that a container gets. Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container.go:905.
	minGrace = 2 * time.Second
)

// stopStrays stops what runs outside the home sandbox. While it does, the images of the wanted pod are asked for, so
// that they are there when the old one is gone.
func (r *round) stopStrays() (why string, stopping bool) {
	var actions, forced []Action
	var names []string
	bySandbox := map[string][]*Container{}
	var order []string
	for _, c := range r.containers {
		if !alive(c) || r.atHome(c) {
			continue
		}
		if bySandbox[c.SandboxID] == nil {
			order = append(order, c.SandboxID)
		}
		bySandbox[c.SandboxID] = append(bySandbox[c.SandboxID], c)
	}
	for _, id := range order {
		sb := r.sandbox(id)
		why = r.whyStray(sb)
		for _, c := range stage(r.podOf(sb, bySandbox[id][0]), bySandbox[id]) {
			if r.ours(c) && r.want.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
				r.mem.Killed[c.ID] = why // its sandbox's fault, whatever it makes of the signal
			}
			actions = append(actions, r.stop(c, r.graceOf(sb, c), why))
			if c.State == ContainerUnknown {
				forced = append(forced, remove(c, "its state was unknown"))
			}
			names = append(names, c.Name)
		}
	}
	if len(actions) == 0 {
		return "", false
	}
	if r.want != nil && r.home == nil {
		actions = append(actions, r.prefetch()...)
	}
	r.together(actions)
	r.do(forced...)
	return why + ": stopping " + strings.Join(slices.Compact(names), ", "), true
}

// removeUnborn removes what was created outside the home sandbox and does not run yet. The runtime goes on for a while
// with a start whose caller has died, and refuses the removal for as long: nothing else is made before it is certain
// that no old copy begins to run beside the new one.
func (r *round) removeUnborn() {
	var actions []Action
	for _, c := range r.containers {
		if c.State == ContainerCreated && !r.atHome(c) {
			actions = append(actions, remove(c, r.whyStray(r.sandbox(c.SandboxID))))
		}
	}
	r.together(actions)
}

// whyStray says why a sandbox is not the home of the wanted pod. nil stands for one that is not there.
func (r *round) whyStray(sb *Sandbox) string {
	switch {
	case sb == nil:
		return "its sandbox is gone"
	case r.want == nil:
		return "manifest removed"
	case !r.isVersion(sb):
		return "manifest changed"
	case !r.wanted(sb):
		return "manifest removed and put back"
	case !sb.Ready:
		return "sandbox not ready"
	case sb.HostNetwork != r.want.Pod.Spec.HostNetwork:
		return "host network differs"
	default:
		return "a newer sandbox is ready"
	}
}

// podOf returns the pod that a container was made from, nil when it is not known any more.
func (r *round) podOf(sb *Sandbox, c *Container) *corev1.Pod {
	switch last := r.mem.Last; {
	case sb != nil && r.wanted(sb):
		return r.want.Pod
	case last != nil && last.UID == c.UID:
		return last.Pod
	default:
		return nil
	}
}

// stage returns which of the running containers stop now: the main ones, and once they are gone the sidecars one at a
// time, the last first. Without the pod's spec all stop at once.
func stage(pod *corev1.Pod, running []*Container) []*Container {
	if pod == nil {
		return running
	}
	rank := map[string]int{} // of the sidecars; 0 is not one
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; isSidecar(c) {
			rank[c.Name] = i + 1
		}
	}
	first := slices.MaxFunc(running, func(a, b *Container) int { return rank[a.Name] - rank[b.Name] })
	var mains, lastSidecar []*Container
	for _, c := range running {
		switch rank[c.Name] {
		case 0:
			mains = append(mains, c)
		case rank[first.Name]:
			lastSidecar = append(lastSidecar, c)
		}
	}
	if len(mains) > 0 {
		return mains
	}
	return lastSidecar
}

// graceOf is what is left for a container of its pod's one grace period.
func (r *round) graceOf(sb *Sandbox, c *Container) time.Duration {
	grace := defaultGrace
	if pod := r.podOf(sb, c); pod != nil {
		grace = podGrace(pod)
	} else if c.TerminationGrace > 0 {
		grace = c.TerminationGrace
	}
	if sb != nil {
		if since, doomed := r.mem.Doomed[sb.ID]; doomed {
			grace -= max(0, r.now.Sub(since))
		}
	}
	return grace
}

func podGrace(pod *corev1.Pod) time.Duration {
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return defaultGrace
}

func (r *round) stop(c *Container, grace time.Duration, why string) Action {
	return Action{
		Kind: StopContainer, ID: c.ID, SandboxID: c.SandboxID, Name: c.Name, UID: c.UID, Attempt: c.Attempt,
		Grace: max(grace, minGrace), Why: why,
	}
}

func remove(c *Container, why string) Action {
	return Action{Kind: RemoveContainer, ID: c.ID, SandboxID: c.SandboxID, Name: c.Name, UID: c.UID, Attempt: c.Attempt, Why: why}
}

// sweep removes dead remains. Of the wanted pod's containers it keeps the newest dead one of each name, with its
// sandbox: its exit code and its attempt are still needed.
func (r *round) sweep() {
	keeps := map[string]*Container{}
	for _, c := range r.containers { // the newest stays
		if c.State == ContainerExited && r.ours(c) && specOf(r.want.Pod, c.Name) != nil {
			keeps[c.Name] = c
		}
	}
	r.clear(func(c *Container) bool { return keeps[c.Name] != c && !r.begun(c) })
	if slices.ContainsFunc(r.actions, func(a Action) bool { return a.Kind == RemoveContainer || a.Kind == RemoveSandbox }) {
		return // should one of them fail, a clean-up behind it would be forgotten
	}
	var actions []Action
	for _, uid := range slices.Sorted(maps.Keys(r.mem.Owed)) {
		if !r.known(uid) && (r.want == nil || uid != r.want.UID) {
			actions = append(actions, cleanUp(uid))
			delete(r.mem.Owed, uid)
			if r.mem.Last != nil && r.mem.Last.UID == uid {
				r.mem.Last = nil
			}
		}
	}
	r.together(actions)
}

func cleanUp(uid string) Action {
	return Action{Kind: CleanUp, UID: uid, Why: "nothing of the pod is left"}
}

// begun tells whether a container is one that tend itself removes before it starts another in its place.
func (r *round) begun(c *Container) bool {
	return c.State == ContainerCreated && r.atHome(c) && specOf(r.want.Pod, c.Name) != nil
}

// clear removes the dead containers that match, then the sandboxes that are empty by then and of no more use.
func (r *round) clear(match func(*Container) bool) {
	var stops, containers, sandboxes []Action
	full := map[string]bool{}
	for _, c := range r.containers {
		if r.leaving(c.ID, RemoveContainer) {
			continue
		}
		if !alive(c) && match(c) {
			containers = append(containers, remove(c, r.whyDead(c)))
		} else {
			full[c.SandboxID] = true
		}
	}
	for _, sb := range r.sandboxes {
		if sb == r.home || full[sb.ID] || r.isEpoch(sb) || r.leaving(sb.ID, RemoveSandbox) {
			continue
		}
		why := r.whyStray(sb)
		if !r.leaving(sb.ID, StopSandbox) {
			stops = append(stops, Action{Kind: StopSandbox, ID: sb.ID, UID: sb.UID, Why: why})
		}
		sandboxes = append(sandboxes, Action{Kind: RemoveSandbox, ID: sb.ID, UID: sb.UID, Why: why})
	}
	r.together(stops)
	r.together(containers)
	r.together(sandboxes)
}

func (r *round) whyDead(c *Container) string {
	if r.ours(c) {
		return "a newer one is kept"
	}
	return r.whyStray(r.sandbox(c.SandboxID))
}

// leaving tells whether this round already has an action of the kind for the container or sandbox.
func (r *round) leaving(id string, kind ActionKind) bool {
	return slices.ContainsFunc(r.actions, func(a Action) bool { return a.Kind == kind && a.ID == id })
}
