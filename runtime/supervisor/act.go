package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// apply performs the actions in order, those of one group at the same time. It stops at the first failure: the next
// look decides anew.
func (w *worker) apply(ctx context.Context, want *manifest.StaticPod, actions []lifecycle.Action) error {
	for len(actions) > 0 {
		n := 1
		for actions[0].Group > 0 && n < len(actions) && actions[n].Group == actions[0].Group {
			n++
		}
		if n == 1 {
			if err := w.act(ctx, want, actions[0]); err != nil {
				return err
			}
		} else {
			var group errgroup.Group
			for _, a := range actions[:n] {
				group.Go(func() error { return w.act(ctx, want, a) })
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
	start := w.s.c.Now()
	err := w.perform(ctx, want, a)
	if err != nil {
		return fmt.Errorf("%s: %w", a, err)
	}
	w.log.Info("done", "action", a.String(), "took", w.s.c.Now().Sub(start).Round(time.Millisecond).String())
	return nil
}

func (w *worker) perform(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	rt := w.s.c.Runtime
	switch a.Kind {
	case lifecycle.EnsureImage:
		return w.ensureImage(ctx, want, a)
	case lifecycle.RunSandbox:
		return w.runSandbox(ctx, want, a)
	case lifecycle.StartContainer:
		return w.startContainer(ctx, want, a)
	case lifecycle.StopContainer:
		return rt.StopContainer(ctx, a.ID, a.Grace)
	case lifecycle.StopSandbox:
		return rt.StopPodSandbox(ctx, a.ID)
	case lifecycle.RemoveContainer:
		return rt.RemoveContainer(ctx, a.ID)
	case lifecycle.RemoveSandbox:
		return rt.RemovePodSandbox(ctx, a.ID)
	case lifecycle.CleanUp:
		err := w.cleanUp(a.UID)
		w.owe(a.UID, err != nil)
		return err
	}
	panic("supervisor: no such action: " + a.String())
}

// ensureImage asks the store, and pulls where the container's policy says so. What it learns, a failed pull too, is
// what the next look shows; it is an error only when the runtime does not answer.
func (w *worker) ensureImage(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	policy := a.Pull
	var found *runtimeapi.Image
	var err error
	if policy != corev1.PullAlways {
		if found, err = w.s.c.Runtime.ImageStatus(ctx, a.Image); err != nil {
			return err
		}
	}
	if found == nil && policy != corev1.PullNever {
		_, err = w.s.c.Runtime.PullImage(ctx, a.Image, nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			if found, err = w.s.c.Runtime.ImageStatus(ctx, a.Image); err != nil {
				return err
			}
		}
	}
	im := image{}
	switch {
	case found != nil:
		im.Present, im.ID, im.spec = true, found.GetId(), podspec.ImageOf(found)
	case err != nil:
		im.Err, im.FailedAt = err.Error(), w.s.c.Now()
	default:
		im.Err, im.FailedAt = errImageAbsent.Error()+" and its pull policy is Never", w.s.c.Now()
	}
	w.learn(a.Image, im)
	return nil
}

func (w *worker) learn(ref string, im image) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.images[ref] = im
}

func (w *worker) known(ref string) image {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.images[ref]
}

func (w *worker) runSandbox(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	if err := makeLayout(podspec.Layout(want, w.s.c.Node)); err != nil {
		return err
	}
	if err := w.s.c.Cgroups.Ensure(podspec.CgroupParent(want.Pod, w.s.c.Node), podspec.PodCgroup(want.Pod, w.s.c.Node)); err != nil {
		return err
	}
	_, err := w.s.c.Runtime.RunPodSandbox(ctx, podspec.Sandbox(want, a.Attempt, w.s.c.Node), "")
	return err
}

func (w *worker) startContainer(ctx context.Context, want *manifest.StaticPod, a lifecycle.Action) error {
	spec := containerSpec(want.Pod, a.Name)
	if spec == nil {
		return fmt.Errorf("the manifest has no container %q", a.Name)
	}
	ips := w.sandboxIPs(a.SandboxID)
	config, err := podspec.Container(want, spec, a.Attempt, w.known(spec.Image).spec, w.s.c.Node, ips)
	if err != nil {
		return err
	}
	if err := makeLayout(podspec.ContainerLayout(want, spec, a.Attempt, w.s.c.Node, ips)); err != nil {
		return err
	}
	id, err := w.s.c.Runtime.CreateContainer(ctx, a.SandboxID, config, podspec.Sandbox(want, 0, w.s.c.Node))
	if err != nil {
		w.mu.Lock()
		delete(w.images, spec.Image) // it may have been removed; ask again
		w.mu.Unlock()
		return err
	}
	if err := w.s.c.Runtime.StartContainer(ctx, id); err != nil {
		return err
	}
	return linkLog(want, spec.Name, a.Attempt, id, w.s.c.Node)
}

func containerSpec(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

func (w *worker) sandboxIPs(id string) []string {
	st := w.cache.sandboxes[id]
	if st.GetNetwork().GetIp() == "" {
		return nil
	}
	ips := []string{st.GetNetwork().GetIp()}
	for _, more := range st.GetNetwork().GetAdditionalIps() {
		ips = append(ips, more.GetIp())
	}
	return ips
}

// owe notes whether the clean-up of a uid must be asked for again.
func (w *worker) owe(uid string, owed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if owed {
		w.left[uid] = true
	} else {
		delete(w.left, uid)
	}
}

// cleanUp removes what the supervisor made for one version of a pod: its directories, log links and cgroup.
func (w *worker) cleanUp(uid string) error {
	node := w.s.c.Node
	logs, err := filepath.Glob(filepath.Join(node.PodLogsDir, "*_"+uid))
	if err != nil {
		return fmt.Errorf("finding the log directory of %s: %w", uid, err)
	}
	errs := []error{removePodDir(podspec.PodDir(uid, node))}
	for _, parent := range podspec.CgroupParents(uid, node) {
		errs = append(errs, w.s.c.Cgroups.Remove(parent))
	}
	for _, dir := range logs {
		errs = append(errs, removeLogLinks(node.ContainerLogsDir, dir), os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
