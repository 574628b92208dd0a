package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// apply performs the actions in order, those of one group at the same time. It stops at the first failure: the next
// look decides anew.
func (w *worker) apply(ctx context.Context, want *manifest.StaticPod, actions []lifecycle.Action) error {
	act := func(a lifecycle.Action) error { return w.act(ctx, want, a) }
	for len(actions) > 0 {
		n := 1
		for actions[0].Group > 0 && n < len(actions) && actions[n].Group == actions[0].Group {
			n++
		}
		if n == 1 {
			if err := act(actions[0]); err != nil {
				return err
			}
		} else {
			var group errgroup.Group
			for _, a := range actions[:n] {
				group.Go(func() error { return act(a) })
			}
			if err := group.Wait(); err != nil {
				return err
			}
		}
		actions = actions[n:]
	}
	return nil
}

// act performs one action. Removing what is already gone is a success.
func (w *worker) act(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	switch a.Kind {
	case lifecycle.EnsureImage:
		a.Name = userOf(want.Pod, a.Image)
	case lifecycle.RunSandbox, lifecycle.StartContainer:
		a.Attempt = w.freeAttempt(a)
	}
	began := time.Now()
	err := w.perform(ctx, want, a)
	took := time.Since(began)
	if ctx.Err() == nil {
		w.recordOutcome(a, err)
		if w.s.c.Observe != nil {
			w.s.c.Observe(a.Kind, took, err)
		}
	}
	if err != nil {
		w.blame(a, err)
		return fmt.Errorf("%s: %w", a, err)
	}
	w.log.Info("done", "action", a.String(), "took", took.Round(time.Millisecond).String())
	return nil
}

func (w *worker) perform(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	rt := w.s.c.Runtime
	switch a.Kind {
	case lifecycle.EnsureImage:
		return w.ensureImage(ctx, a)
	case lifecycle.RunSandbox:
		return w.runSandbox(ctx, want, a)
	case lifecycle.StartContainer:
		return w.startContainer(ctx, want, a)
	case lifecycle.StopContainer:
		return w.stopContainer(ctx, a)
	case lifecycle.StopSandbox:
		return rt.StopPodSandbox(ctx, a.ID)
	case lifecycle.RemoveContainer:
		if err := rt.RemoveContainer(ctx, a.ID); err != nil {
			return err
		}
		return errors.Join(w.removeTraces(a), w.unmarkHook(a))
	case lifecycle.RemoveSandbox:
		return rt.RemovePodSandbox(ctx, a.ID)
	case lifecycle.CleanUp:
		err := w.cleanUp(a.UID)
		w.owe(a.UID, err != nil)
		return err
	}
	panic("supervisor: no such action: " + a.String())
}

func (w *worker) runSandbox(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	if err := makeLayout(podspec.Layout(want, w.s.c.Node)); err != nil {
		return err
	}
	if err := w.s.c.Cgroups.Ensure(podspec.CgroupParent(want.Pod, w.s.c.Node), podspec.PodCgroup(want.Pod, w.s.c.Node)); err != nil {
		return err
	}
	if a.Attempt > 0 {
		w.record(a.UID, "", event.Normal, event.SandboxChanged, "Pod sandbox changed, it will be killed and re-created.")
	}
	_, err := w.s.c.Runtime.RunPodSandbox(ctx, podspec.Sandbox(want, a.Attempt, w.s.c.Node), podspec.Handler(want.Pod))
	w.makeWay(ctx, a, err)
	return err
}

func (w *worker) startContainer(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	spec := containerSpec(want.Pod, a.Name)
	if spec == nil {
		return fmt.Errorf("the manifest has no container %q", a.Name)
	}
	home := w.cache.sandboxes[inState{a.SandboxID, int32(runtimeapi.PodSandboxState_SANDBOX_READY)}]
	w.mu.Lock()
	known := w.images[spec.Image]
	w.mu.Unlock()
	attempt := podspec.Attempt{Number: a.Attempt, Image: known.spec, PodIPs: home.ips, Volumes: w.volumeImages(want.Pod), Watched: w.view.Seen.Watched}
	var err error
	if attempt.Files, err = readVolumeFiles(podspec.EnvFiles(want, spec, w.s.c.Node)); err != nil {
		return err
	}
	config, err := podspec.Container(want, spec, attempt, w.s.c.Node)
	if err != nil {
		return err
	}
	layout, err := podspec.ContainerLayout(want, spec, attempt, w.s.c.Node)
	if err != nil {
		return err
	}
	if err := makeLayout(layout); err != nil {
		return err
	}
	id, err := w.s.c.Runtime.CreateContainer(ctx, a.SandboxID, config, podspec.Sandbox(want, home.Attempt, w.s.c.Node))
	if err != nil {
		w.makeWay(ctx, a, err)
		w.doubt(lifecycle.Images(want.Pod)...) // they may have been removed
		return err
	}
	w.record(a.UID, a.Name, event.Normal, event.Created, "Container created")
	if err := w.markHook(want, spec, id); err != nil { // the hook runs all the same
		w.log.Warn("noting that a hook is due", "container", spec.Name, "reason", err.Error())
	}
	if err := w.s.c.Runtime.StartContainer(ctx, id); err != nil {
		return err
	}
	w.startHook(want, spec, id, home.Sandbox)
	w.mu.Lock()
	w.begun.acted = true
	w.mu.Unlock()
	if err := linkLog(want, spec.Name, a.Attempt, id, w.s.c.Node); err != nil { // the container runs all the same
		w.log.Warn("offering the log to collectors", "container", spec.Name, "reason", err.Error())
	}
	return nil
}

func containerSpec(pod *corev1.Pod, name string) *corev1.Container {
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			if specs[i].Name == name {
				return &specs[i]
			}
		}
	}
	return nil
}
