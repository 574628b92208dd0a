package supervisor

import (
	"context"
	"fmt"
	"path/filepath"
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

// image is what this worker learned of an image reference.
type image struct {
	lifecycle.Image
	spec podspec.Image
}

// cache keeps what cannot change any more, so that a look at a healthy pod costs two list calls: a sandbox's network,
// and the status of a container in a given state.
type cache struct {
	sandboxes  map[string]*runtimeapi.PodSandboxStatus
	containers map[string]*runtimeapi.ContainerStatus
}

func newCache() cache {
	return cache{sandboxes: map[string]*runtimeapi.PodSandboxStatus{}, containers: map[string]*runtimeapi.ContainerStatus{}}
}

func fullNameOf(labels map[string]string) string {
	return labels[podspec.LabelPodNamespace] + "/" + labels[podspec.LabelPodName]
}

func selector(name string) map[string]string {
	namespace, pod, _ := strings.Cut(name, "/")
	return map[string]string{podspec.LabelPodNamespace: namespace, podspec.LabelPodName: pod}
}

// observe looks at everything in the runtime that carries this worker's name, and at the probes of what runs.
func (w *worker) observe(ctx context.Context, want *manifest.StaticPod) (lifecycle.Observed, error) {
	seen := lifecycle.Observed{Images: map[string]lifecycle.Image{}}
	for ref, im := range w.images {
		seen.Images[ref] = im.Image
	}
	seen.Left = keys(w.left)
	next := newCache()
	sandboxes, err := w.s.c.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector(w.name)})
	if err != nil {
		return seen, err
	}
	for _, sb := range sandboxes {
		st := w.cache.sandboxes[sb.GetId()]
		if st == nil {
			if st, err = w.s.c.Runtime.PodSandboxStatus(ctx, sb.GetId()); err != nil {
				if cri.IsNotFound(err) {
					continue // gone between the two calls
				}
				return seen, err
			}
		}
		next.sandboxes[sb.GetId()] = st
		seen.Sandboxes = append(seen.Sandboxes, sandboxOf(sb, st))
	}
	containers, err := w.s.c.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector(w.name)})
	if err != nil {
		return seen, err
	}
	for _, c := range containers {
		key := c.GetId() + "/" + c.GetState().String()
		st := w.cache.containers[key]
		if st == nil {
			if st, err = w.s.c.Runtime.ContainerStatus(ctx, c.GetId()); err != nil {
				if cri.IsNotFound(err) {
					continue
				}
				return seen, err
			}
		}
		if st.GetState() == c.GetState() {
			next.containers[key] = st
		}
		seen.Containers = append(seen.Containers, containerOf(c, st))
	}
	w.cache = next
	seen.LastAttempt = lastAttempts(want, seen.Containers, w.s.c.Node)
	w.probe(want, &seen)
	return seen, nil
}

// lastAttempts reads, for the containers of the wanted pod that are not in the runtime, the highest attempt that has a
// log, so that restart counts go on where they were.
func lastAttempts(want *manifest.StaticPod, have []lifecycle.Container, n podspec.Node) map[string]uint32 {
	if want == nil {
		return nil
	}
	present := map[string]bool{}
	for _, c := range have {
		present[c.Name] = present[c.Name] || c.UID == want.UID
	}
	var last map[string]uint32
	for _, c := range append(append([]corev1.Container(nil), want.Pod.Spec.InitContainers...), want.Pod.Spec.Containers...) {
		if present[c.Name] {
			continue
		}
		logs, err := filepath.Glob(filepath.Join(podspec.LogDir(want, n), c.Name, "*.log"))
		if err != nil {
			continue // the only error is a bad pattern: a name that cannot have a log
		}
		for _, log := range logs {
			attempt, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(log), ".log"), 10, 32)
			if err != nil {
				continue // a rotated log
			}
			if last == nil {
				last = map[string]uint32{}
			}
			last[c.Name] = max(last[c.Name], uint32(attempt))
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

func sandboxOf(sb *runtimeapi.PodSandbox, st *runtimeapi.PodSandboxStatus) lifecycle.Sandbox {
	return lifecycle.Sandbox{
		ID: sb.GetId(), UID: sb.GetLabels()[podspec.LabelPodUID], Attempt: sb.GetMetadata().GetAttempt(),
		Ready:       sb.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY,
		HostNetwork: st.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
		IP:          st.GetNetwork().GetIp(),
		SpecHash:    sb.GetAnnotations()[podspec.AnnotationSpecHash],
		CreatedAt:   time.Unix(0, sb.GetCreatedAt()),
	}
}

func containerOf(c *runtimeapi.Container, st *runtimeapi.ContainerStatus) lifecycle.Container {
	grace, _ := strconv.ParseInt(c.GetAnnotations()[podspec.AnnotationGracePeriod], 10, 64) // absent or broken: no grace of its own
	return lifecycle.Container{
		ID: c.GetId(), Name: c.GetMetadata().GetName(), SandboxID: c.GetPodSandboxId(), UID: c.GetLabels()[podspec.LabelPodUID],
		Attempt: c.GetMetadata().GetAttempt(), State: stateOf(st.GetState()), Hash: c.GetAnnotations()[podspec.AnnotationContainerHash],
		CreatedAt: instant(st.GetCreatedAt()), StartedAt: instant(st.GetStartedAt()), FinishedAt: instant(st.GetFinishedAt()),
		ExitCode: st.GetExitCode(), Reason: st.GetReason(), Message: st.GetMessage(), ImageRef: st.GetImageRef(),
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

// podReady tells whether every main container of the wanted version runs and is ready.
func podReady(want *manifest.StaticPod, seen lifecycle.Observed) bool {
	if want == nil {
		return false
	}
	ready := map[string]bool{}
	for _, c := range seen.Containers {
		if c.UID == want.UID && c.State == lifecycle.ContainerRunning && c.Probe.Ready {
			ready[c.Name] = true
		}
	}
	for _, c := range want.Pod.Spec.Containers {
		if !ready[c.Name] {
			return false
		}
	}
	return len(want.Pod.Spec.Containers) > 0
}

var errImageAbsent = fmt.Errorf("the image is not in the runtime's store")
