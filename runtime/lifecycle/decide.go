package lifecycle

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Policy is what the node's configuration says about every pod. The zero value is the kubelet's default.
type Policy struct {
	// MaxRestartPeriod caps the restart back-off (crashLoopBackOff.maxContainerRestartPeriod); 0 means 300 s.
	MaxRestartPeriod time.Duration
}

// Decide is Policy.Decide with the default policy.
func Decide(now time.Time, want *manifest.StaticPod, seen Observed, mem Memory) (Decision, Memory) {
	return Policy{}.Decide(now, want, seen, mem)
}

// Decide says what to do about the pod at now, given what is wanted (nil: nothing), what is seen and what is
// remembered. It is a pure function: it changes none of its arguments, the same arguments give the same answer, and
// any combination of them gives one. In the order of importance:
//
//  1. What is not wanted stops first: main containers together, then sidecars in reverse order, within one grace
//     period. A decision that stops such containers starts nothing, so that a burst of edits ends at the last one.
//  2. A sandbox is made only when nothing else runs and no other sandbox is ready.
//  3. Containers start as soon as order, images and back-off let them; each on its own.
//  4. Dead remains are removed when nothing waits to be started.
//
// A clock that jumps never makes it wait longer than the delay in force, counted from now.
func (p Policy) Decide(now time.Time, want *manifest.StaticPod, seen Observed, mem Memory) (Decision, Memory) {
	r := newRound(p, now, want, seen, mem)
	state, why := r.decide()
	return Decision{State: state, Actions: r.actions, Wake: r.wake, Why: why, Reason: r.reason}, r.mem
}

// round is one call of Decide: its arguments in a fixed order, what follows from them, and the answer so far.
type round struct {
	policy     Policy
	now        time.Time
	want       *manifest.StaticPod
	seen       Observed
	sandboxes  []*Sandbox   // by attempt, oldest first
	containers []*Container // by attempt, oldest first
	home       *Sandbox     // the sandbox of the wanted version that its containers run in; nil when there is none
	mem        Memory

	asking  map[string]string // images asked for by this round: what is said of them
	actions []Action
	groups  int
	wake    time.Time
	reason  string
}

func newRound(p Policy, now time.Time, want *manifest.StaticPod, seen Observed, mem Memory) *round {
	r := &round{policy: p, now: now, want: want, seen: seen, mem: mem.clone(), asking: map[string]string{}}
	for i := range seen.Sandboxes {
		r.sandboxes = append(r.sandboxes, &seen.Sandboxes[i])
	}
	for i := range seen.Containers {
		r.containers = append(r.containers, &seen.Containers[i])
	}
	slices.SortFunc(r.sandboxes, func(a, b *Sandbox) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(r.containers, func(a, b *Container) int {
		return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	r.remember()
	for _, sb := range r.sandboxes {
		if r.wanted(sb) && sb.Ready && sb.HostNetwork == want.Pod.Spec.HostNetwork {
			r.home = sb // the newest stays
		}
	}
	return r
}

func (m Memory) clone() Memory {
	m.BackOff, m.Pull = cloned(m.BackOff), cloned(m.Pull)
	m.Spared, m.Failed = cloned(m.Spared), cloned(m.Failed)
	m.Attempts, m.Asked, m.Killed = cloned(m.Attempts), cloned(m.Asked), cloned(m.Killed)
	m.Doomed, m.Owed = cloned(m.Doomed), cloned(m.Owed)
	return m
}

func cloned[M ~map[K]V, K comparable, V any](m M) M {
	if m == nil {
		return M{}
	}
	return maps.Clone(m)
}

// remember brings the memory up to date with what is wanted and seen, and drops what speaks of things that are gone.
func (r *round) remember() {
	if v := version(r.want); v != r.mem.Version {
		r.mem = Memory{Version: v, Last: r.mem.Last, Doomed: r.mem.Doomed, Owed: r.mem.Owed}.clone()
	}
	there := map[string]bool{}
	for _, sb := range r.sandboxes {
		there[sb.ID] = true
		if _, doomed := r.mem.Doomed[sb.ID]; !doomed && !r.isVersion(sb) {
			r.mem.Doomed[sb.ID] = r.now
		}
		r.mem.Owed[sb.UID] = r.mem.Owed[sb.UID] || !r.wanted(sb)
	}
	for _, c := range r.containers {
		there[c.ID] = true
		r.owe(c.UID)
		if r.want != nil && c.UID == r.want.UID {
			r.mem.Attempts[c.Name] = max(r.mem.Attempts[c.Name], c.Attempt)
		}
	}
	for _, uid := range r.seen.Left {
		r.mem.Owed[uid] = true
	}
	delete(r.mem.Owed, "") // made by something that gives no uid: nothing on disk can be found by it
	gone := func(id string) bool { return !there[id] }
	maps.DeleteFunc(r.mem.Doomed, func(id string, _ time.Time) bool { return gone(id) })
	maps.DeleteFunc(r.mem.Killed, func(id string, _ string) bool { return gone(id) })
	maps.DeleteFunc(r.mem.Failed, func(id string, _ string) bool { return gone(id) })
}

// version names what is wanted: another version is another pod, even under the same uid.
func version(want *manifest.StaticPod) string {
	if want == nil {
		return ""
	}
	return want.UID + "/" + want.SpecHash
}

// isVersion tells whether a sandbox was made for the wanted version. One without a hash was made by something that
// writes none, such as a kubelet: it is taken over by its uid.
func (r *round) isVersion(sb *Sandbox) bool {
	return r.want != nil && sb.UID == r.want.UID && (sb.SpecHash == r.want.SpecHash || sb.SpecHash == "")
}

// wanted tells whether a sandbox, dead or alive, belongs to the wanted pod's own life.
func (r *round) wanted(sb *Sandbox) bool {
	_, doomed := r.mem.Doomed[sb.ID]
	return !doomed && r.isVersion(sb)
}

func (r *round) sandbox(id string) *Sandbox {
	for _, sb := range r.sandboxes {
		if sb.ID == id {
			return sb
		}
	}
	return nil
}

// ours tells whether a container, in whatever sandbox, belongs to the wanted pod's own life.
func (r *round) ours(c *Container) bool {
	sb := r.sandbox(c.SandboxID)
	return sb != nil && r.wanted(sb)
}

func (r *round) atHome(c *Container) bool { return r.home != nil && c.SandboxID == r.home.ID }

// alive tells whether a container may be running. Nobody knows of one in the state unknown.
func alive(c *Container) bool { return c.State == ContainerRunning || c.State == ContainerUnknown }

func (r *round) do(actions ...Action) { r.actions = append(r.actions, actions...) }

// together adds actions that are independent of each other.
func (r *round) together(actions []Action) {
	if len(actions) > 1 {
		r.groups++
		for i := range actions {
			actions[i].Group = r.groups
		}
	}
	r.do(actions...)
}

// wakeAt asks for another look at t, or earlier if an earlier one is asked for. It counts from now, so that times with
// and without a monotonic clock reading compare right after the wall clock was set.
func (r *round) wakeAt(t time.Time) {
	t = r.now.Add(t.Sub(r.now))
	if r.wake.IsZero() || t.Before(r.wake) {
		r.wake = t
	}
}

func (r *round) decide() (State, string) {
	if why, stopping := r.stopStrays(); stopping {
		return Terminating, why
	}
	if r.want == nil {
		return r.vanish()
	}
	r.removeUnborn()
	for _, sb := range r.sandboxes {
		if sb.Ready && sb != r.home {
			r.do(Action{Kind: StopSandbox, ID: sb.ID, UID: sb.UID, Why: r.whyStray(sb)})
		}
	}
	state, why := r.pod()
	if !slices.ContainsFunc(r.actions, func(a Action) bool { return a.Kind == RunSandbox || a.Kind == StartContainer }) {
		r.sweep()
	}
	return state, why
}

// vanish removes all that is left of a pod that nobody wants and of which nothing runs.
func (r *round) vanish() (State, string) {
	if last := r.mem.Last; last != nil {
		r.mem.Owed[last.UID] = true
		r.mem.Last = nil // its containers have stopped
	}
	r.sweep()
	if len(r.actions) == 0 {
		return Absent, "nothing wanted, nothing there"
	}
	return Terminating, "manifest removed: clearing away what is left"
}

// pod decides about the wanted pod when nothing else runs under its name.
func (r *round) pod() (State, string) {
	if why, over := r.expired(); over {
		return r.expire(why)
	}
	if r.home != nil {
		r.own()
		return r.tend()
	}
	if end := r.ended(); end != nil {
		r.reason = end.reason
		return Completed, end.why
	}
	if r.seen.Held != "" && version(r.mem.Last) != version(r.want) {
		r.together(r.prefetch())
		return Held, "waits for " + r.seen.Held
	}
	return r.begin()
}

// owe keeps a uid in mind for its CleanUp, without hurry unless there is one already.
func (r *round) owe(uid string) {
	if !r.mem.Owed[uid] {
		r.mem.Owed[uid] = false
	}
}

// own records that the wanted version has, or is about to get, a sandbox.
func (r *round) own() {
	if last := r.mem.Last; last != nil {
		r.owe(last.UID)
	}
	r.mem.Last = r.want
	r.mem.Owed[r.want.UID] = false
}

// known tells whether anything of a uid is seen.
func (r *round) known(uid string) bool {
	return slices.ContainsFunc(r.sandboxes, func(sb *Sandbox) bool { return sb.UID == uid }) ||
		slices.ContainsFunc(r.containers, func(c *Container) bool { return c.UID == uid })
}

// begin makes the sandbox, and asks for the images meanwhile.
func (r *round) begin() (State, string) {
	why := "there is none"
	attempt := uint32(0)
	var dead, earlier *Sandbox // the last one of this life, and one of an earlier life under the same uid
	for _, sb := range r.sandboxes {
		why = r.whyStray(sb)
		if sb.UID == r.want.UID {
			attempt = sb.Attempt + 1
		}
		switch {
		case r.wanted(sb):
			dead = sb
		case sb.UID == r.want.UID:
			earlier = sb
		}
	}
	if earlier != nil { // they would share names and directories
		uid := earlier.UID
		r.clear(func(c *Container) bool { return c.UID == uid || c.SandboxID == earlier.ID })
		return Terminating, r.whyStray(earlier) + ": clearing away what is left"
	}
	if dead != nil {
		if e, due := r.sandboxDue(dead); r.now.Before(due) {
			r.wakeAt(due)
			return BackOff, fmt.Sprintf("back-off %s remaking the sandbox (%s)", e.Delay, r.whyStray(dead))
		}
	}
	if r.mem.Owed[r.want.UID] && !r.known(r.want.UID) {
		r.do(cleanUp(r.want.UID))
		clear(r.mem.Attempts)
	}
	for _, sb := range r.sandboxes {
		if !sb.Ready && r.wanted(sb) { // the ready ones are stopped already
			r.do(Action{Kind: StopSandbox, ID: sb.ID, UID: sb.UID, Why: "before its successor is made"})
		}
	}
	r.own()
	r.together(append(r.prefetch(), Action{Kind: RunSandbox, UID: r.want.UID, Attempt: attempt, Why: why}))
	return Starting, "making the sandbox: " + why
}
