package supervisor

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
)

// cache keeps what cannot change while a sandbox or container stays in its state, so that a look at a healthy pod costs
// two list calls.
type cache struct {
	sandboxes  map[inState]sandbox
	containers map[inState]lifecycle.Container // without probe results
}

// inState is a sandbox or container for as long as it is in one CRI state.
type inState struct {
	id    string
	state int32
}

// sandbox is a sandbox with all of its addresses.
type sandbox struct {
	lifecycle.Sandbox
	ips []string
}

func newCache() cache {
	return cache{sandboxes: map[inState]sandbox{}, containers: map[inState]lifecycle.Container{}}
}

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
		seen.Containers = append(seen.Containers, w.ended(known))
	}
	w.cache = next
	w.forgetExits(saw)
	w.recall(want, &seen)
	seen.LastAttempt = lastAttempts(want, seen.Containers, w.s.c.Node)
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
				ip = sb.IP
			}
		}
		if pod.Spec.HostNetwork && len(w.s.c.Node.HostIPs) > 0 {
			ip = w.s.c.Node.HostIPs[0].String()
		}
		for _, c := range seen.Containers {
			if c.State == lifecycle.ContainerRunning && c.UID == want.UID {
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

func sandboxOf(sb *runtimeapi.PodSandbox, st *runtimeapi.PodSandboxStatus) sandbox {
	out := sandbox{Sandbox: lifecycle.Sandbox{
		ID: sb.GetId(), UID: sb.GetLabels()[podspec.LabelPodUID], Attempt: sb.GetMetadata().GetAttempt(),
		Ready:       sb.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		HostNetwork: st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
		IP:          st.GetNetwork().GetIp(),
		SpecHash:    sb.GetAnnotations()[podspec.AnnotationSpecHash],
		CreatedAt:   time.Unix(0, sb.GetCreatedAt()),
	}}
	if out.IP != "" {
		out.ips = append(out.ips, out.IP)
	}
	for _, more := range st.GetNetwork().GetAdditionalIps() {
		out.ips = append(out.ips, more.GetIp())
	}
	return out
}

func containerOf(c *runtimeapi.Container, st *runtimeapi.ContainerStatus) lifecycle.Container {
	grace, _ := strconv.ParseInt(c.GetAnnotations()[podspec.AnnotationGracePeriod], 10, 64) // absent or broken: no grace of its own
	return lifecycle.Container{
		ID: c.GetId(), Name: c.GetMetadata().GetName(), SandboxID: c.GetPodSandboxId(), UID: c.GetLabels()[podspec.LabelPodUID],
		Attempt: c.GetMetadata().GetAttempt(), State: stateOf(st.GetState()), Hash: c.GetAnnotations()[podspec.AnnotationContainerHash],
		CreatedAt: instant(st.GetCreatedAt()), StartedAt: instant(st.GetStartedAt()), FinishedAt: instant(st.GetFinishedAt()),
		ExitCode: st.GetExitCode(), Reason: st.GetReason(), Message: lastWords(st), ImageRef: st.GetImageRef(),
		TerminationGrace: time.Duration(grace) * time.Second,
	}
}

// instant turns the CRI's nanoseconds since the epoch into a time; 0 means that it has not happened.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func stateOf(s runtimeapi.ContainerState) lifecycle.ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return lifecycle.ContainerCreated
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return lifecycle.ContainerRunning
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return lifecycle.ContainerExited
	default:
		return lifecycle.ContainerUnknown
	}
}

// podReady tells whether every main container and every sidecar of the wanted version runs and is ready.
func podReady(want *manifest.StaticPod, seen lifecycle.Observed) bool {
	if want == nil {
		return false
	}
	ready := func(spec corev1.Container) bool {
		return slices.ContainsFunc(seen.Containers, func(c lifecycle.Container) bool {
			return c.Name == spec.Name && c.UID == want.UID && c.State == lifecycle.ContainerRunning && c.Probe.Ready
		})
	}
	for _, c := range want.Pod.Spec.InitContainers {
		if sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways; sidecar && !ready(c) {
			return false
		}
	}
	for _, c := range want.Pod.Spec.Containers {
		if !ready(c) {
			return false
		}
	}
	return true
}
