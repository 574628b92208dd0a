package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
)

// observe looks at everything in the runtime that carries this worker's name, and at the probes of what runs.
func (w *worker) observe(ctx context.Context, want *manifest.StaticPod) (states, lifecycle.Observed, error) {
	if err := w.askAgain(ctx); err != nil {
		return nil, lifecycle.Observed{}, err
	}
	all := w.s.looks.of(ctx, w.name)
	if all.err != nil {
		return nil, lifecycle.Observed{}, all.err
	}
	next, saw, seen := newCache(), states{}, lifecycle.Observed{}
	for _, sb := range all.sandboxes {
		key := inState{sb.GetId(), int32(sb.GetState())}
		known, ok := w.cache.sandboxes[key]
		if !ok {
			st, err := w.s.c.Runtime.PodSandboxStatus(ctx, sb.GetId())
			if cri.IsNotFound(err) {
				continue // gone between the two calls
			}
			if err != nil {
				return nil, seen, err
			}
			known = sandboxOf(sb, st)
		}
		next.sandboxes[key], saw[key.id] = known, key.state
		seen.Sandboxes = append(seen.Sandboxes, known.Sandbox)
	}
	for _, c := range all.containers {
		key := inState{c.GetId(), int32(c.GetState())}
		known, ok := w.cache.containers[key]
		if !ok {
			st, err := w.s.c.Runtime.ContainerStatus(ctx, c.GetId())
			if cri.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, seen, err
			}
			known = containerOf(c, st)
			key.state = int32(st.GetState()) // it may have changed since it was listed
		}
		next.containers[key], saw[key.id] = known, key.state
		seen.Containers = append(seen.Containers, w.ended(known.Container))
	}
	w.cache = next
	w.forgetGone(saw)
	w.recall(want, &seen)
	w.recallAsked(want, &seen)
	seen.LastAttempt = lastAttempts(want, seen.Containers, w.s.c.Node)
	seen.Watched = w.watchFiles(want)
	w.followHooks(want, &seen)
	w.probe(want, &seen)
	return saw, seen, nil
}

// recall adds what was learned of the wanted pod's images, and which clean-ups are owed. It forgets other images.
func (w *worker) recall(want *manifest.StaticPod, seen *lifecycle.Observed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropImages(want)
	seen.Images = map[string]lifecycle.Image{}
	for ref, im := range w.images {
		seen.Images[ref] = im.Image
	}
	for uid := range w.left {
		seen.Left = append(seen.Left, uid)
	}
	slices.Sort(seen.Left)
}

// lastAttempts reads, for the containers of the wanted pod that are not in the runtime, the highest attempt that has a
// log, so that restart counts go on where they were.
func lastAttempts(want *manifest.StaticPod, have []lifecycle.Container, n podspec.Node) map[string]uint32 {
	if want == nil {
		return nil
	}
	var last map[string]uint32
	for _, specs := range [][]corev1.Container{want.Pod.Spec.InitContainers, want.Pod.Spec.Containers} {
		for i := range specs {
			name := specs[i].Name
			if slices.ContainsFunc(have, func(c lifecycle.Container) bool { return c.Name == name && c.UID == want.UID }) {
				continue
			}
			logs, err := os.ReadDir(filepath.Join(podspec.LogDir(want, n), name))
			if err != nil {
				continue // it has none
			}
			for _, log := range logs {
				number, isLog := strings.CutSuffix(log.Name(), ".log")
				attempt, err := strconv.ParseUint(number, 10, 32)
				if !isLog || err != nil {
					continue // a rotated one
				}
				if last == nil {
					last = map[string]uint32{}
				}
				last[name] = max(last[name], uint32(attempt))
			}
		}
	}
	return last
}

// probe keeps the probes of the wanted version's running containers going and joins their results.
func (w *worker) probe(want *manifest.StaticPod, seen *lifecycle.Observed) {
	var running []probe.Running
	var ip string
	var pod *corev1.Pod
	if want != nil {
		pod = want.Pod
		for _, sb := range seen.Sandboxes {
			if sb.Ready && sb.UID == want.UID {
				ip = w.podIP(sb)
			}
		}
		for _, c := range seen.Containers { // until its hook has ended a container is not probed
			if c.State == lifecycle.ContainerRunning && c.UID == want.UID && c.Hook.State == lifecycle.HookDone {
				running = append(running, probe.Running{Name: c.Name, ID: c.ID, StartedAt: c.StartedAt})
			}
		}
	}
	w.s.probes.Sync(w.name, pod, ip, running)
	for i := range seen.Containers {
		if seen.Containers[i].State == lifecycle.ContainerRunning {
			seen.Containers[i].Probe = w.s.probes.Result(seen.Containers[i].ID)
		}
	}
}

// podReady tells whether every main container and every sidecar of the wanted version runs and is ready.
func podReady(want *manifest.StaticPod, seen lifecycle.Observed) bool {
	return want != nil && every(want.Pod, func(spec *corev1.Container) bool {
		c := runningIn(seen, want.UID, spec.Name)
		return c != nil && c.Probe.Ready // never until its hook has ended: see probe
	})
}
