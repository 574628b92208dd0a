package supervisor

import (
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// cache keeps what cannot change while a sandbox or container stays in its state, so that a look at a healthy pod costs
// two list calls.
type cache struct {
	sandboxes  map[inState]sandbox
	containers map[inState]container
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

// container is a container without what its probes and hooks tell, and with what else the runtime knows of it.
type container struct {
	lifecycle.Container
	preStop, ports string // as recorded when it was made: JSON
	user           *corev1.LinuxContainerUser
}

func newCache() cache {
	return cache{sandboxes: map[inState]sandbox{}, containers: map[inState]container{}}
}

// container returns the container of that id, the zero value for none.
func (c cache) container(id string) container {
	for key, known := range c.containers {
		if key.id == id {
			return known
		}
	}
	return container{}
}

// sandbox returns the sandbox of that id, the zero value for none.
func (c cache) sandbox(id string) sandbox {
	for key, known := range c.sandboxes {
		if key.id == id {
			return known
		}
	}
	return sandbox{}
}

// has tells whether there is a sandbox or container of that id.
func (c cache) has(id string) bool { return c.container(id).ID != "" || c.sandbox(id).ID != "" }

// users are what containers run as, by id.
func (c cache) users() map[string]*corev1.LinuxContainerUser {
	var out map[string]*corev1.LinuxContainerUser
	for key, known := range c.containers {
		if known.user == nil {
			continue
		}
		if out == nil {
			out = map[string]*corev1.LinuxContainerUser{}
		}
		out[key.id] = known.user
	}
	return out
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

func containerOf(c *runtimeapi.Container, st *runtimeapi.ContainerStatus) container {
	notes := c.GetAnnotations()
	grace, _ := strconv.ParseInt(notes[podspec.AnnotationGracePeriod], 10, 64) // absent or broken: no grace of its own
	out := container{preStop: notes[podspec.AnnotationPreStop], ports: notes[podspec.AnnotationPorts], user: userIn(st)}
	out.Container = lifecycle.Container{
		ID: c.GetId(), Name: c.GetMetadata().GetName(), SandboxID: c.GetPodSandboxId(), UID: c.GetLabels()[podspec.LabelPodUID],
		Attempt: c.GetMetadata().GetAttempt(), State: stateOf(st), Hash: notes[podspec.AnnotationContainerHash],
		CreatedAt: instant(st.GetCreatedAt()), StartedAt: instant(st.GetStartedAt()), FinishedAt: instant(st.GetFinishedAt()),
		ExitCode: st.GetExitCode(), Reason: st.GetReason(), Message: lastWords(st), ImageRef: st.GetImageRef(),
		TerminationGrace: time.Duration(grace) * time.Second, Watched: notes[podspec.AnnotationWatched],
	}
	return out
}

// userIn is what the container's first process runs as, nil where the runtime does not tell.
func userIn(st *runtimeapi.ContainerStatus) *corev1.LinuxContainerUser {
	user := st.GetUser().GetLinux()
	if user == nil {
		return nil
	}
	return &corev1.LinuxContainerUser{UID: user.GetUid(), GID: user.GetGid(), SupplementalGroups: user.GetSupplementalGroups()}
}

// instant turns the CRI's nanoseconds since the epoch into a time; 0 means that it has not happened.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// stateOf takes a container whose start was cut off for what it was before: it has not failed, and what is created and
// not started is made anew without a back-off and whatever the restart policy.
func stateOf(st *runtimeapi.ContainerStatus) lifecycle.ContainerState {
	switch s := st.GetState(); {
	case s == runtimeapi.ContainerState_CONTAINER_CREATED, cri.StartCutOff(st):
		return lifecycle.ContainerCreated
	case s == runtimeapi.ContainerState_CONTAINER_RUNNING:
		return lifecycle.ContainerRunning
	case s == runtimeapi.ContainerState_CONTAINER_EXITED:
		return lifecycle.ContainerExited
	default:
		return lifecycle.ContainerUnknown
	}
}
