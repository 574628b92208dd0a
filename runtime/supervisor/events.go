package supervisor

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/hook"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// errImageNeverPull is the kubelet's reason of that name. Kubernetes v1.36.3 pkg/kubelet/events/event.go:57.
const errImageNeverPull = "ErrImageNeverPull"

// startingFor is how long a container's probes may fail before that is an event: eager probes begin to try at once, where
// a kubelet's first try comes within the probe's period, 5 s later on average.
const startingFor = 5 * time.Second

// told is what events were recorded of already: each thing is said once.
type told struct {
	version   string
	held      string
	reason    string            // of the pod's end
	backOff   map[string]string // by container or image: the cause
	unhealthy map[string]string // by container id: the message
	hooks     map[string]bool   // by container id: its hook has failed
}

func (t *told) begin(version string) {
	*t = told{version: version, backOff: map[string]string{}, unhealthy: map[string]string{}, hooks: map[string]bool{}}
}

// record records an event. The wording is the kubelet's where it has one.
func (w *worker) record(uid, container, kind, reason, format string, args ...any) {
	w.s.c.Events.Record(event.Event{Pod: w.name, UID: uid, Container: container, Type: kind, Reason: reason, Message: oneLine(fmt.Sprintf(format, args...))})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// tell records what a look and its decision show.
func (w *worker) tell(want *manifest.StaticPod, seen lifecycle.Observed, d lifecycle.Decision) {
	if v := versionOf(want); v != w.told.version || w.told.backOff == nil {
		w.told.begin(v)
	}
	if want == nil {
		return
	}
	held := ""
	if d.State == lifecycle.Held {
		held = seen.Held
	}
	if held != w.told.held && held != "" {
		w.record(want.UID, "", event.Normal, event.Waiting, "Waiting for %s", held)
	}
	w.told.held = held
	if d.Reason == lifecycle.ReasonDeadlineExceeded && w.told.reason != d.Reason {
		w.record(want.UID, "", event.Normal, event.DeadlineExceeded, "Pod was active on the node longer than the specified deadline")
	}
	w.told.reason = d.Reason
	w.tellBackOffs(want)
	for _, c := range seen.Containers {
		if c.UID == want.UID && c.State == lifecycle.ContainerRunning {
			w.tellHealth(c)
		}
	}
}

// tellBackOffs records the back-offs in force that are new.
func (w *worker) tellBackOffs(want *manifest.StaticPod) {
	now := w.s.c.Now()
	fresh := func(key string, e lifecycle.BackOffEntry) bool {
		if e.Delay == 0 || e.Cause == "" || w.told.backOff[key] == e.Cause || !now.Before(e.Since.Add(e.Delay)) {
			return false
		}
		w.told.backOff[key] = e.Cause
		return true
	}
	for name, e := range w.mem.BackOff {
		if name != "" && fresh(name, e) {
			w.record(want.UID, name, event.Warning, event.BackOffRestart, "Back-off restarting failed container %s in pod %s_%s(%s)",
				name, want.Pod.Name, want.Pod.Namespace, want.UID)
		}
	}
	for ref, e := range w.mem.Pull {
		if fresh("image "+ref, e) {
			w.record(want.UID, userOf(want.Pod, ref), event.Normal, event.BackOffPullImage, "Back-off pulling image %q", ref)
		}
	}
}

// tellHealth records what a container's probes and hook complain of, when it is something new.
func (w *worker) tellHealth(c lifecycle.Container) {
	if c.Hook.State == lifecycle.HookFailed && !w.told.hooks[c.ID] {
		w.told.hooks[c.ID] = true
		w.log.Warn("post-start hook", "container", c.Name, "reason", c.Hook.Message)
		w.record(c.UID, c.Name, event.Warning, event.FailedPostStartHook, hook.PostStartFailed)
	}
	message := c.Probe.Message
	if age := w.s.c.Now().Sub(c.StartedAt); message == w.told.unhealthy[c.ID] || age.Abs() < startingFor && !doomed(c) {
		return
	}
	w.told.unhealthy[c.ID] = message
	if kind, output, ok := strings.Cut(message, " probe: "); ok {
		w.record(c.UID, c.Name, event.Warning, event.Unhealthy, "%s probe failed: %s", strings.ToUpper(kind[:1])+kind[1:], output)
	}
}

// doomed tells whether a probe has failed for good.
func doomed(c lifecycle.Container) bool {
	return c.Probe.StartupFailed != "" || c.Probe.LivenessFailed != ""
}

// recordKill records that a container is about to be stopped, and why.
func (w *worker) recordKill(a lifecycle.Action) {
	text := fmt.Sprintf("Stopping container %s (%s)", a.Name, a.Why)
	for _, probe := range []string{"liveness", "startup"} {
		if strings.HasPrefix(a.Why, probe+" probe failed") {
			text = fmt.Sprintf("Container %s failed %s probe, will be restarted", a.Name, probe)
		}
	}
	if strings.HasPrefix(a.Why, "post-start hook failed") { // its output may hold a secret
		text = fmt.Sprintf("Stopping container %s (post-start hook failed)", a.Name)
	}
	w.record(a.UID, a.Name, event.Normal, event.Killing, "%s", text)
}

// recordOutcome records how an action went, where that is an event.
func (w *worker) recordOutcome(a lifecycle.Action, err error) {
	switch {
	case err == nil && a.Kind == lifecycle.StartContainer:
		w.record(a.UID, a.Name, event.Normal, event.Started, "Container started")
	case err == nil:
	case a.Kind == lifecycle.RunSandbox:
		w.record(a.UID, "", event.Warning, event.FailedSandbox, "Failed to create pod sandbox: %v", err)
	case a.Kind == lifecycle.StartContainer:
		w.record(a.UID, a.Name, event.Warning, event.FailedToCreate, "Error: %v", err)
	case a.Kind == lifecycle.StopContainer && cri.IsTimeout(err):
		w.record(a.UID, a.Name, event.Warning, event.ExceededGracePeriod, "Container runtime did not kill the container within specified grace period.")
	}
}

// recordPulled records the end of a pull.
func (w *worker) recordPulled(a lifecycle.Action, took, waited time.Duration, size uint64, err error) {
	name := a.Name
	switch {
	case err != nil:
		w.record(a.UID, name, event.Warning, event.FailedToPull, "Failed to pull image %q: %v", a.Image, err)
	case took == 0:
		w.recordPresent(a)
	default:
		w.record(a.UID, name, event.Normal, event.Pulled, "Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.",
			a.Image, took.Round(time.Millisecond), waited.Round(time.Millisecond), size)
	}
}

func (w *worker) recordPresent(a lifecycle.Action) {
	w.record(a.UID, a.Name, event.Normal, event.Pulled, "Container image %q already present on machine", a.Image)
}

// userOf is the first container that is made of the image; "" when it is only mounted.
func userOf(pod *corev1.Pod, ref string) string {
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			if specs[i].Image == ref {
				return specs[i].Name
			}
		}
	}
	return ""
}
