package supervisor

import (
	"context"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/hook"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// marker is the file that says that a container's post-start hook has not ended well. It goes with the pod's directory.
func (w *worker) marker(uid, container, id string) string {
	return filepath.Join(podspec.PodDir(uid, w.s.c.Node), "containers", container, id+".post-start")
}

func hasPostStart(spec *corev1.Container) bool {
	return spec != nil && spec.Lifecycle != nil && spec.Lifecycle.PostStart != nil
}

// markHook records that the post-start hook of a container that is about to start is due: a supervisor that dies before
// the hook has ended runs it again.
func (w *worker) markHook(want *manifest.StaticPod, spec *corev1.Container, id string) error {
	if !hasPostStart(spec) {
		return nil
	}
	path := w.marker(want.UID, spec.Name, id)
	if err := makeDir(podspec.HostPath{Path: filepath.Dir(path), Mode: 0o750}); err != nil {
		return err
	}
	return hook.Mark(path)
}

// unmarkHook forgets the hook of a container that is gone.
func (w *worker) unmarkHook(a lifecycle.Action) error {
	if !isElement(a.UID) || !isElement(a.Name) {
		return nil
	}
	return hook.Unmark(w.marker(a.UID, a.Name, a.ID))
}

// startHook runs the post-start hook of a container that runs, if it has one. It does not wait for it.
func (w *worker) startHook(want *manifest.StaticPod, spec *corev1.Container, id string, sandbox lifecycle.Sandbox) {
	err := w.s.hooks.Start(hook.PostStart{
		FullName: w.name, ID: id, PodIP: w.podIP(sandbox), Container: spec, Marker: w.marker(want.UID, spec.Name, id),
	})
	if err != nil { // it runs all the same
		w.log.Warn("a supervisor that starts now would not run the hook again", "container", spec.Name, "reason", err.Error())
	}
}

// followHooks joins the states of the post-start hooks of what runs. A hook that was due when a former supervisor ended
// is run again.
func (w *worker) followHooks(want *manifest.StaticPod, seen *lifecycle.Observed) {
	var running []string
	for i := range seen.Containers {
		c := &seen.Containers[i]
		if c.State != lifecycle.ContainerRunning {
			continue
		}
		running = append(running, c.ID)
		if want != nil && c.UID == want.UID {
			spec := containerSpec(want.Pod, c.Name)
			if hasPostStart(spec) && !w.s.hooks.Known(c.ID) && hook.Pending(w.marker(c.UID, c.Name, c.ID)) {
				w.startHook(want, spec, c.ID, sandboxIn(seen, c.SandboxID))
			}
		}
		c.Hook = w.s.hooks.Result(c.ID)
	}
	w.s.hooks.Keep(w.name, running)
}

func sandboxIn(seen *lifecycle.Observed, id string) lifecycle.Sandbox {
	for _, sb := range seen.Sandboxes {
		if sb.ID == id {
			return sb
		}
	}
	return lifecycle.Sandbox{}
}

// podIP is where hooks and probes of a sandbox's containers go that name no host.
func (w *worker) podIP(sb lifecycle.Sandbox) string {
	if sb.HostNetwork && len(w.s.c.Node.HostIPs) > 0 {
		return w.s.c.Node.HostIPs[0].String()
	}
	return sb.IP
}

// stopContainer runs the container's preStop hook and stops it, both within the grace period. The hook is the one that
// was recorded when the container was made: its manifest may not be known any more. It is not run again for a stop that
// failed.
func (w *worker) stopContainer(ctx context.Context, a lifecycle.Action) error {
	w.recordKill(a)
	grace, err := w.preStop(ctx, a)
	if err != nil {
		w.log.Warn("preStop hook", "container", a.Name, "reason", err.Error())
		w.record(a.UID, a.Name, event.Warning, event.FailedPreStopHook, hook.PreStopFailed)
	}
	return w.s.c.Runtime.StopContainer(ctx, a.ID, grace)
}

func (w *worker) preStop(ctx context.Context, a lifecycle.Action) (left time.Duration, err error) {
	c := w.cache.container(a.ID)
	h, spec, err := hook.Recorded(a.Name, c.preStop, c.ports)
	if h == nil || err != nil {
		return a.Grace, err
	}
	w.mu.Lock()
	again := w.preStopped[a.ID]
	w.preStopped[a.ID] = true
	w.mu.Unlock()
	if again {
		return a.Grace, nil
	}
	return w.s.c.Hooks.PreStop(ctx, h, spec, a.ID, w.podIP(w.cache.sandbox(a.SandboxID).Sandbox), a.Grace)
}
