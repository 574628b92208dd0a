package lastgood

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const (
	// maxExits is when a version counts as crash-looping. One exit may be a race with something that starts at the same
	// time, and the second try follows at once; the third failed although it came 10 s later, and the back-off is 20 s.
	maxExits = 3
	// maxPulls gives a registry or a link 70 s to come back: the tries are 10, 20 and 40 s apart.
	maxPulls = 4
	// minTries and createWithin are for what the runtime refuses to make. The tries go from 0.25 to 10 s apart, so that in
	// 30 s there are eight; a runtime's restart, or files that are written in the wrong order, take seconds.
	minTries     = 3
	createWithin = 30 * time.Second
	// probation is how long a version must be ready without a break. Within 10 s of readiness a controller-manager or a
	// scheduler loses a lease that it cannot renew (its renewDeadline), and a liveness probe of the default period has run.
	probation = 10 * time.Second
	// maxStep bounds what passes between two calls, so that a clock that is set forward by a year costs a version no more
	// than this. Verdict.Wake asks for calls as often.
	maxStep = 15 * time.Second
	// maxReason bounds, in bytes, what a reason repeats of another's words.
	maxReason = 400
)

// Outcome is what is known of a version.
type Outcome int

const (
	Undecided   Outcome = iota // → GoodVersion, GivenUp
	GoodVersion                // it was ready for the probation; it is never judged again
	GivenUp                    // → GoodVersion, if it becomes one all the same while nothing replaces it
)

// Verdict is what Judge says.
type Verdict struct {
	Outcome   Outcome
	Fresh     bool          // this call came to the outcome, not an earlier one
	Reason    string        // GivenUp: one line: which container, what it did, how often, or what never came
	Container string        // GivenUp: the one whose log may tell more; "" when there is none
	Wake      time.Time     // when to call again without an event; zero: only on an event
	Left      time.Duration // Undecided: what is left of the deadline
}

// Input is one look at a pod.
type Input struct {
	Want  *manifest.StaticPod // the version on trial; nil for none
	Seen  lifecycle.Observed
	State lifecycle.State // of the decision on Seen
	// Reason is the decision's: why the pod has failed, where no exit code tells.
	Reason string
	// Failure is the last action that failed; nil once a round of actions has succeeded. Failures that say nothing about
	// the pod do not belong here: a runtime that is away or does not answer, a host that is shutting down.
	Failure *Failure
	// Took is how long the actions since the last call took: a pull keeps the caller from calling.
	Took time.Duration
}

// Failure is an action that failed.
type Failure struct {
	At        time.Time // another time is another failure
	Container string    // "" for the sandbox
	Text      string
}

// Judge says whether a version of a manifest has proved good, or is to be given up because it
//
//   - has exited three times,
//   - was not ready within Deadline,
//   - needs an image that cannot be had,
//   - cannot be created.
//
// Time and exits count only while nothing holds the version back: no pod that it waits for is away (Seen.Held), and
// what went before it is gone. now may jump. It is called after every look at the pod, with the trial it returned last.
func Judge(now time.Time, in Input, t Trial) (Verdict, Trial) {
	if in.Want == nil {
		return Verdict{}, Trial{}
	}
	if version := Version(in.Want); t.Version != version {
		t = Trial{Version: version, at: now, exits: map[string]exits{}}
	}
	if t.Outcome == GoodVersion {
		return Verdict{Outcome: GoodVersion}, t
	}
	j := judge{now: now, in: in, t: t.clone(), step: min(max(now.Sub(t.at), 0), maxStep+in.Took)}
	before := t.Outcome
	j.clock()
	j.look()
	v := j.verdict()
	v.Fresh = v.Outcome != before
	return v, j.t
}

// judge is one call.
type judge struct {
	now  time.Time
	in   Input
	t    Trial
	step time.Duration
	// counts is at the last call and now: what has happened between them counts. The first call only marks what it
	// finds: of an earlier version with the same uid or images, or from before the supervisor's start.
	counts bool
}

// clock lets the step since the last call pass.
func (j *judge) clock() {
	counts := j.in.Seen.Held == "" && j.in.State != lifecycle.Terminating && j.in.State != lifecycle.Held && !j.hostFault()
	j.counts = j.t.counts && counts
	if j.counts && j.t.ready == "" {
		j.t.waited += j.step
	}
	if j.in.Failure == nil {
		j.t.creates, j.t.failing = tries{}, 0
	} else if j.counts && j.t.creates.count > 0 {
		j.t.failing += j.step
	}
	runs := j.runs()
	if runs != "" && runs == j.t.ready {
		j.t.steady += j.step
	} else {
		j.t.steady = 0
	}
	j.t.at, j.t.counts, j.t.ready = j.now, counts, runs
}

// runs names what runs, if every main container and every sidecar that has not done what it should runs and is ready:
// a container that was replaced between two looks breaks the readiness. It is "" when the pod is not ready.
func (j *judge) runs() string {
	last := newest(j.in)
	var ids []string
	for i, spec := range specs(j.in.Want.Pod) {
		if i < len(j.in.Want.Pod.Spec.InitContainers) && !isSidecar(&spec) {
			continue // it has ended, or no main container would run
		}
		c, found := last[spec.Name]
		switch {
		case found && c.State == lifecycle.ContainerRunning && c.Probe.Ready && c.Hook.State == lifecycle.HookDone:
			ids = append(ids, c.ID)
		case found && c.State == lifecycle.ContainerExited && isEnd(j.in.Want.Pod, c):
		default:
			return ""
		}
	}
	return strings.Join(ids, " ")
}

// look counts what has failed since the last call.
func (j *judge) look() {
	for name, c := range newest(j.in) {
		j.t.exits[name] = j.exit(j.t.exits[name], c)
	}
	failed := map[string]tries{}
	for _, ref := range lacking(j.in) {
		at, p := j.in.Seen.Images[ref].FailedAt, j.t.pulls[ref]
		if j.counts && !at.Equal(p.at) {
			p.count++
		}
		failed[ref] = tries{count: p.count, at: at}
	}
	j.t.pulls = failed
	if f := j.in.Failure; f != nil && !f.At.Equal(j.t.creates.at) {
		if j.counts {
			j.t.creates.count++
		}
		j.t.creates.at = f.At
	}
}

// exit takes the newest container of a name in.
func (j *judge) exit(e exits, c lifecycle.Container) exits {
	switch {
	case c.State == lifecycle.ContainerRunning:
		if e.running != c.ID {
			e.running, e.excused = c.ID, false
		}
		_, asked := j.in.Seen.Restart[c.ID]
		watched := c.Watched != "" && j.in.Seen.Watched != "" && c.Watched != j.in.Seen.Watched
		e.excused, e.doom = e.excused || asked || watched, doom(c)
	case c.State == lifecycle.ContainerExited && c.ID != e.id:
		excused := !j.counts || c.ID == e.running && e.excused || !j.sandboxReady(c.SandboxID) || isEnd(j.in.Want.Pod, c)
		e.id, e.why = c.ID, ending(c)
		if c.ID == e.running && e.doom != "" {
			e.why = e.doom
		}
		if !excused {
			e.count++
		}
	}
	return e
}

// doom is why a running container is about to be stopped.
func doom(c lifecycle.Container) string {
	switch {
	case c.Hook.State == lifecycle.HookFailed:
		return "its post-start hook failed"
	case c.Probe.StartupFailed != "":
		return "its startup probe failed: " + clip(c.Probe.StartupFailed)
	case c.Probe.LivenessFailed != "":
		return "its liveness probe failed: " + clip(c.Probe.LivenessFailed)
	}
	return ""
}

func ending(c lifecycle.Container) string {
	switch c.Reason {
	case "", "Error", "Completed":
		return fmt.Sprintf("exit code %d", c.ExitCode)
	}
	return fmt.Sprintf("%s, exit code %d", c.Reason, c.ExitCode)
}

func (j *judge) sandboxReady(id string) bool {
	return slices.ContainsFunc(j.in.Seen.Sandboxes, func(s lifecycle.Sandbox) bool { return s.ID == id && s.Ready })
}
