package supervisor

import (
	"context"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// Runtime is what the supervisor asks of a container runtime: the CRI calls it makes, each with a deadline of its own
// inside the implementation. Stopping or removing what is gone is no error. cri.Client implements it.
type Runtime interface {
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error)
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error)
	StopPodSandbox(ctx context.Context, id string) error
	RemovePodSandbox(ctx context.Context, id string) error

	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error)
	CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error)
	StartContainer(ctx context.Context, id string) error
	StopContainer(ctx context.Context, id string, grace time.Duration) error
	RemoveContainer(ctx context.Context, id string) error

	// ImageStatus returns nil without an error when the image is not in the store.
	ImageStatus(ctx context.Context, ref string) (*runtimeapi.Image, error)
	PullImage(ctx context.Context, ref string, sandbox *runtimeapi.PodSandboxConfig) (string, error)
}

// Cgroups makes and removes the cgroups that hold whole pods, and those above them. Paths are below the cgroup mount.
// cgroup.Tree implements it.
type Cgroups interface {
	// Ensure makes the cgroup with its parents, or sets the resources of one that is there.
	Ensure(path string, r podspec.CgroupResources) error
	// Remove removes the cgroup. One that is not there is no error; one in which processes are still ending gives an
	// error that is cgroup.ErrBusy: the supervisor asks again soon.
	Remove(path string) error
}

// Hint says that something may have changed in the runtime.
type Hint struct {
	ID     string // container or sandbox; "" means that anything may have
	Images bool   // it is the image store that has changed; ID does not count
	// Exit is how the container ended, where the hint tells. The CRI shows an end only once it has cleaned up, some 30 ms
	// later; a container that has ended once never runs again, so that nobody needs to wait for that.
	Exit *Exit
}

// Exit is the end of a container's process.
type Exit struct {
	Code int32
	At   time.Time
}
