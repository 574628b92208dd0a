package host

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// vigil is what has been seen of the pods that are waited for. It has no clock and no I/O.
type vigil struct {
	want  Wait
	began time.Time
	pods  map[string]*corev1.Pod // by name as in Wait.Pods; the latest
	ready map[string]bool
	exits map[string][]exit // by pod and container: those since the wait began, oldest first

	readySince time.Time // when the last of them became ready; zero while one is not
	running    string    // the ids of what ran then
}

// exit is one end of a container.
type exit struct {
	id   string
	code int32
	ran  time.Duration // to the second, as the status has it
}

func newVigil(w Wait, began time.Time) *vigil {
	return &vigil{want: w, began: began, pods: map[string]*corev1.Pod{}, ready: map[string]bool{}, exits: map[string][]exit{}}
}

// The annotations by which the supervisor shows that a pod is not of its manifest's version, and why.
const (
	annotationVersion         = "slipway.dev/version"
	annotationProblem         = "slipway.dev/problem"
	annotationRejected        = "slipway.dev/rejected"
	annotationRejectedVersion = "slipway.dev/rejected-version"
	annotationRejectedLog     = "slipway.dev/rejected-log"
)

// current tells whether the supervisor runs, or tries, the version that is waited for.
func (v *vigil) current(name string, pod *corev1.Pod) bool {
	want, shown := v.want.Versions[name], pod.Annotations[annotationVersion]
	if shown == "" { // by a supervisor that shows no versions
		return want == "" || strings.HasPrefix(want, string(pod.UID)+"/")
	}
	return want == "" || shown == want
}

// rejected tells whether the supervisor has given up the version that is waited for. One that it gave up before does
// not count.
func (v *vigil) rejected(name string, pod *corev1.Pod) bool {
	want, given := v.want.Versions[name], pod.Annotations[annotationRejectedVersion]
	if _, restarted := v.want.Former[name]; restarted && want == "" {
		return false // whatever runs is to run anew
	}
	return pod.Annotations[annotationRejected] != "" && (want == "" || given == want)
}

// waits tells whether a pod is still in the run that does not count any more.
func (v *vigil) waits(name string, pod *corev1.Pod) bool {
	former, restarted := v.want.Former[name]
	return restarted && !former.over(pod)
}

// see takes a snapshot and returns the pods that became ready with it. A pod that was ready and is no more counts as
// not ready again.
func (v *vigil) see(pods []corev1.Pod) (newlyReady []string) {
	for _, name := range v.want.Pods {
		pod := find(pods, v.want.Namespace, name+"-"+v.want.NodeName)
		v.pods[name] = pod
		now := pod != nil && isReady(pod) && v.current(name, pod) && !v.rejected(name, pod) && !v.waits(name, pod)
		if now && !v.ready[name] {
			newlyReady = append(newlyReady, name)
		}
		v.ready[name] = now
		if pod != nil && v.current(name, pod) {
			v.rememberExits(name, pod)
		}
	}
	return newlyReady
}

func find(pods []corev1.Pod, namespace, name string) *corev1.Pod {
	for i := range pods {
		if pods[i].Name == name && pods[i].Namespace == namespace {
			return &pods[i]
		}
	}
	return nil
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// rememberExits keeps those since the wait began: older ones may belong to a fault that has been mended since. Times in
// a status are cut to the second.
func (v *vigil) rememberExits(name string, pod *corev1.Pod) {
	for _, c := range pod.Status.ContainerStatuses {
		key := name + "/" + c.Name
		for _, end := range []*corev1.ContainerStateTerminated{c.LastTerminationState.Terminated, c.State.Terminated} {
			if end == nil || slices.Contains(v.want.Former[name].Containers, end.ContainerID) || end.FinishedAt.Time.Before(v.began.Truncate(time.Second)) || known(v.exits[key], end.ContainerID) {
				continue
			}
			v.exits[key] = append(v.exits[key], exit{end.ContainerID, end.ExitCode, end.FinishedAt.Sub(end.StartedAt.Time)})
		}
	}
}

func known(exits []exit, id string) bool {
	for _, e := range exits {
		if e.id == id {
			return true
		}
	}
	return false
}

// steady tells whether all have been ready for as long as is wanted, in the same containers.
func (v *vigil) steady(now time.Time) bool {
	if !v.allReady() {
		v.readySince = time.Time{}
		return false
	}
	if ids := v.ids(); v.readySince.IsZero() || ids != v.running {
		v.readySince, v.running = now, ids
	}
	return now.Sub(v.readySince) >= v.want.Steady
}

func (v *vigil) ids() string {
	var ids []string
	for _, name := range v.want.Pods {
		for _, c := range v.pods[name].Status.ContainerStatuses {
			ids = append(ids, c.ContainerID)
		}
	}
	return strings.Join(ids, " ")
}

func (v *vigil) countReady() int {
	n := 0
	for _, name := range v.want.Pods {
		if v.ready[name] {
			n++
		}
	}
	return n
}

func (v *vigil) allReady() bool { return v.countReady() == len(v.want.Pods) }

// lacks returns a pod that this one needs and that is not ready, or "".
func (v *vigil) lacks(name string) string {
	for _, need := range v.want.Needs[name] {
		if !v.ready[need] {
			return need
		}
	}
	return ""
}

func (v *vigil) fullName(name string) string {
	return v.want.Namespace + "/" + name + "-" + v.want.NodeName
}

// container returns the one whose log tells most: the first that is not ready, or the pod's first.
func (v *vigil) container(name string) string {
	pod := v.pods[name]
	if pod == nil {
		return name
	}
	for _, c := range pod.Status.ContainerStatuses {
		if !c.Ready {
			return c.Name
		}
	}
	if len(pod.Spec.Containers) > 0 {
		return pod.Spec.Containers[0].Name
	}
	return name
}

// suspect is a container in a crash loop.
type suspect struct {
	pod, container string
	code           int32
	exits          int
	quick          bool // ended twice in a row with the same non-zero code, within quickExit of its start
	alone          bool // all that it needs is ready
}

const (
	// quickExit is the longest run of a program that ends over its flags, files or certificates. Those take some
	// 0.2 s on an idle machine.
	quickExit = 2 * time.Second
	// manyExits are taken for a loop whatever the program did in between. With the kubelet's back-off the third comes
	// about 10 s after the first.
	manyExits = 3
	// moreExits are one more than those after which the supervisor returns to an earlier version: it has none then.
	moreExits = manyExits + 1
)

func (v *vigil) suspects() []suspect {
	var found []suspect
	for _, name := range v.want.Pods {
		pod := v.pods[name]
		if pod == nil {
			continue
		}
		for _, c := range pod.Status.ContainerStatuses {
			if c.State.Waiting == nil || c.State.Waiting.Reason != "CrashLoopBackOff" {
				continue
			}
			exits := v.exits[name+"/"+c.Name]
			s := suspect{pod: name, container: c.Name, exits: len(exits), quick: quickTwice(exits), alone: v.lacks(name) == ""}
			if v.want.Verdict && s.exits < moreExits || s.exits < manyExits && !s.quick {
				continue
			}
			s.code = exits[len(exits)-1].code
			found = append(found, s)
		}
	}
	return found
}

func quickTwice(exits []exit) bool {
	if len(exits) < 2 {
		return false
	}
	a, b := exits[len(exits)-2], exits[len(exits)-1]
	return a.code == b.code && b.code != 0 && a.ran <= quickExit && b.ran <= quickExit
}

// cannotHeal decides over a suspect by what its log says. A program that only lacks another one gets as long as that
// one is on its way. A cause that no waiting mends ends the wait even before the program's turn has come.
func (s suspect) cannotHeal(cause Cause, known bool) bool {
	if known && !cause.Waits {
		return true
	}
	return s.alone && (s.exits >= manyExits || !known)
}

// waitingFor is one line about the first pod that is not ready and whose turn it is; "" when all are.
func (v *vigil) waitingFor() string {
	for _, name := range v.want.Pods {
		if !v.ready[name] && v.lacks(name) == "" {
			return fmt.Sprintf("waiting for %s: %s", name, v.describe(name))
		}
	}
	return ""
}

// describe says where a pod stands: what the supervisor says of it, and the state of its containers.
func (v *vigil) describe(name string) string {
	pod := v.pods[name]
	switch {
	case v.ready[name]:
		return "ready"
	case pod == nil:
		return "the supervisor has no such pod: its manifest is missing or not valid"
	case !v.current(name, pod):
		return "the supervisor still runs the version before its manifest's"
	case isReady(pod) && v.waits(name, pod):
		return "it has not been restarted yet"
	}
	var parts []string
	for _, text := range []string{pod.Status.Reason, pod.Status.Message} {
		if text != "" {
			parts = append(parts, text)
		}
	}
	for _, c := range pod.Status.ContainerStatuses {
		if text := describeContainer(c); text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return strings.ToLower(string(pod.Status.Phase)) + ", not ready"
	}
	return strings.Join(parts, ", ")
}

func describeContainer(c corev1.ContainerStatus) string {
	var text string
	switch s := c.State; {
	case c.Ready:
		return ""
	case s.Waiting != nil:
		text = s.Waiting.Reason
		if s.Waiting.Message != "" {
			text += ": " + s.Waiting.Message
		}
	case s.Terminated != nil:
		text = fmt.Sprintf("exit code %d", s.Terminated.ExitCode)
	case s.Running != nil:
		text = "running, not ready"
	}
	if last := c.LastTerminationState.Terminated; last != nil {
		text += fmt.Sprintf(" (exit code %d before, %d restarts)", last.ExitCode, c.RestartCount)
	}
	return text
}
