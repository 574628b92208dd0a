package lastgood

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// verdict says what the trial comes to.
func (j *judge) verdict() Verdict {
	completed, failed := j.completed()
	switch {
	case completed, j.t.ready != "" && j.t.steady >= probation:
		j.t = Passed(j.t.Version)
		return Verdict{Outcome: GoodVersion}
	case j.t.ready != "":
		v := j.givenUp()
		v.Wake = j.now.Add(min(probation-j.t.steady, maxStep))
		return v
	case j.t.Outcome == GivenUp:
		return j.givenUp()
	case failed != "":
		return j.giveUp(failed, "container %s ended and is not restarted: %s", failed, j.t.exits[failed].why)
	}
	for _, spec := range specs(j.in.Want.Pod) {
		for _, rule := range []func(corev1.Container) Verdict{j.exited, j.pulled} {
			if v := rule(spec); v.Outcome == GivenUp {
				return v
			}
		}
	}
	if f := j.in.Failure; f != nil && j.t.creates.count >= minTries && j.t.failing >= createWithin {
		return j.giveUp(f.Container, "cannot be created, tried %d times: %s", j.t.creates.count, clip(f.Text))
	}
	left := Deadline(j.in.Want.Pod) - j.t.waited
	if left <= 0 {
		name, lacks := j.lacking()
		return j.giveUp(name, "not ready within %s: %s", Deadline(j.in.Want.Pod), lacks)
	}
	v := Verdict{Left: left}
	if j.t.counts {
		v.Wake = j.now.Add(min(left, maxStep))
		if j.in.Failure != nil && j.t.failing < createWithin {
			v.Wake = j.now.Add(min(left, maxStep, createWithin-j.t.failing))
		}
	}
	return v
}

// givenUp repeats what was found before: GivenUp, or Undecided.
func (j *judge) givenUp() Verdict {
	v := Verdict{Outcome: j.t.Outcome, Reason: j.t.Reason, Container: j.t.Blame}
	if v.Outcome == Undecided {
		v.Left = max(0, Deadline(j.in.Want.Pod)-j.t.waited)
	}
	return v
}

func (j *judge) giveUp(container, format string, args ...any) Verdict {
	j.t.Outcome, j.t.Reason, j.t.Blame = GivenUp, fmt.Sprintf(format, args...), container
	return j.givenUp()
}

func (j *judge) exited(spec corev1.Container) Verdict {
	e := j.t.exits[spec.Name]
	if e.count < maxExits {
		return Verdict{}
	}
	return j.giveUp(spec.Name, "container %s ended %d times before it was ready for %s, at last: %s", spec.Name, e.count, probation, e.why)
}

func (j *judge) pulled(spec corev1.Container) Verdict {
	p, failed := j.t.pulls[spec.Image]
	im := j.in.Seen.Images[spec.Image]
	if !failed || !j.t.counts || !needs(spec, im) {
		return Verdict{}
	}
	switch {
	case spec.ImagePullPolicy == corev1.PullNever:
		return j.giveUp(spec.Name, "the image %s of container %s is not there and must not be pulled", spec.Image, spec.Name)
	case p.count >= maxPulls:
		return j.giveUp(spec.Name, "the image %s of container %s cannot be had, tried %d times: %s", spec.Image, spec.Name, p.count, clip(im.Err))
	}
	return Verdict{}
}

// completed tells whether every container has ended well and will not run again; failed names one that has not. A pod
// that its own activeDeadlineSeconds have ended is neither.
func (j *judge) completed() (well bool, failed string) {
	if j.in.State != lifecycle.Completed || !j.t.counts {
		return false, ""
	}
	switch j.in.Reason {
	case "":
	case lifecycle.ReasonDeadlineExceeded:
		return false, ""
	default:
		return false, j.doomed()
	}
	last, ended := newest(j.in), 0
	for _, spec := range specs(j.in.Want.Pod) {
		c, found := last[spec.Name]
		switch {
		case !found || isSidecar(&spec):
		case c.State != lifecycle.ContainerExited:
			return false, ""
		case c.ExitCode != 0:
			return false, spec.Name
		default:
			ended++
		}
	}
	runToEnd := slices.DeleteFunc(specs(j.in.Want.Pod), func(c corev1.Container) bool { return isSidecar(&c) })
	return ended > 0 && ended == len(runToEnd), ""
}

// doomed names the container that was stopped for a fault which its exit code does not tell.
func (j *judge) doomed() string {
	all := specs(j.in.Want.Pod)
	for _, spec := range all {
		if j.t.exits[spec.Name].doom != "" {
			return spec.Name
		}
	}
	return all[0].Name
}

// lacking names the first container that keeps the pod from being ready, and what is the matter with it.
func (j *judge) lacking() (container, why string) {
	if f := j.in.Failure; f != nil {
		return f.Container, clip(f.Text)
	}
	last := newest(j.in)
	for _, spec := range specs(j.in.Want.Pod) {
		c, found := last[spec.Name]
		switch {
		case !found:
			if im := j.in.Seen.Images[spec.Image]; im.Err != "" && needs(spec, im) {
				return spec.Name, fmt.Sprintf("the image %s of container %s is not there: %s", spec.Image, spec.Name, clip(im.Err))
			} else if !im.Present {
				return spec.Name, fmt.Sprintf("the image %s of container %s is not there", spec.Image, spec.Name)
			}
			return spec.Name, fmt.Sprintf("container %s has not been started", spec.Name)
		case c.State == lifecycle.ContainerExited && isEnd(j.in.Want.Pod, c):
		case c.State == lifecycle.ContainerExited:
			return spec.Name, fmt.Sprintf("container %s ended: %s", spec.Name, ending(c))
		case c.Hook.State == lifecycle.HookRunning:
			return spec.Name, fmt.Sprintf("the post-start hook of container %s has not ended", spec.Name)
		case !c.Probe.Ready && c.Probe.Message != "":
			return spec.Name, fmt.Sprintf("container %s is not ready: %s", spec.Name, clip(c.Probe.Message))
		case !c.Probe.Ready:
			return spec.Name, fmt.Sprintf("container %s is not ready", spec.Name)
		}
	}
	return "", fmt.Sprintf("it was never ready for %s", probation)
}
