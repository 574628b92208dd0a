package cri

import (
	"context"
	"fmt"
	"math"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The deadlines are the kubelet's: runtimeRequestTimeout is 2 minutes, twice that for a sandbox, which sets up networks
// and may pull the sandbox image, and on top of the grace for a stop. Lists answer from memory.
const (
	callTimeout    = 2 * time.Minute
	sandboxTimeout = 2 * callTimeout
	listTimeout    = 10 * time.Second
)

// call runs one request under its own deadline and wraps its error. A limit of 0 leaves only ctx's.
func call[Resp any](ctx context.Context, limit time.Duration, what string, do func(context.Context) (Resp, error)) (Resp, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		outer, limited := ctx.Deadline()
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
		if limited && time.Until(outer) < limit {
			limit = 0 // it is the caller's deadline that would end the call
		}
	}
	resp, err := do(ctx)
	if err != nil {
		var none Resp
		return none, fmt.Errorf("%s: %w", what, &callError{err: err, limit: limit})
	}
	return resp, nil
}

// absentIsDone lets the stop and remove calls succeed for what does not exist. The CRI asks runtimes to do so, and
// containerd 1.6 does not.
func absentIsDone(err error) error {
	if IsNotFound(err) {
		return nil
	}
	return err
}

// Version returns the runtime's name, its version and the CRI version it speaks.
func (c *Client) Version(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	return call(ctx, listTimeout, "asking for the runtime's version", func(ctx context.Context) (*runtimeapi.VersionResponse, error) {
		return c.runtime.Version(ctx, &runtimeapi.VersionRequest{})
	})
}

// Status returns the runtime's conditions, and with verbose its configuration as JSON in Info.
func (c *Client) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	return call(ctx, callTimeout, "asking for the runtime's status", func(ctx context.Context) (*runtimeapi.StatusResponse, error) {
		return c.runtime.Status(ctx, &runtimeapi.StatusRequest{Verbose: verbose})
	})
}

// RuntimeConfig returns what the runtime wants the kubelet to know. The error wraps ErrUnimplemented where the runtime
// does not have the call: containerd before 2.0.
func (c *Client) RuntimeConfig(ctx context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
	return call(ctx, listTimeout, "asking for the runtime's configuration", func(ctx context.Context) (*runtimeapi.RuntimeConfigResponse, error) {
		return c.runtime.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	})
}

// RunPodSandbox makes and starts a sandbox, and returns its id. The empty handler is the runtime's default.
func (c *Client) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, handler string) (string, error) {
	what := fmt.Sprintf("running sandbox of %s/%s (attempt %d)",
		config.GetMetadata().GetNamespace(), config.GetMetadata().GetName(), config.GetMetadata().GetAttempt())
	resp, err := call(ctx, sandboxTimeout, what, func(ctx context.Context) (*runtimeapi.RunPodSandboxResponse, error) {
		return c.runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	})
	return resp.GetPodSandboxId(), err
}

// StopPodSandbox stops the sandbox and kills its containers without grace. A sandbox that is stopped or gone is no error.
func (c *Client) StopPodSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, callTimeout, "stopping sandbox "+short(id), func(ctx context.Context) (*runtimeapi.StopPodSandboxResponse, error) {
		return c.runtime.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	})
	return absentIsDone(err)
}

// RemovePodSandbox removes the sandbox with its containers, by force where they run. One that is gone is no error.
func (c *Client) RemovePodSandbox(ctx context.Context, id string) error {
	_, err := call(ctx, callTimeout, "removing sandbox "+short(id), func(ctx context.Context) (*runtimeapi.RemovePodSandboxResponse, error) {
		return c.runtime.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id})
	})
	return absentIsDone(err)
}

// PodSandboxStatus returns the sandbox's state, network and labels; IsNotFound tells that it does not exist.
func (c *Client) PodSandboxStatus(ctx context.Context, id string) (*runtimeapi.PodSandboxStatus, error) {
	resp, err := call(ctx, callTimeout, "asking for the status of sandbox "+short(id), func(ctx context.Context) (*runtimeapi.PodSandboxStatusResponse, error) {
		return c.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
	})
	return resp.GetStatus(), err
}

// ListPodSandbox returns the sandboxes that match filter, in no order; nil matches all.
func (c *Client) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	resp, err := call(ctx, listTimeout, "listing sandboxes", func(ctx context.Context) (*runtimeapi.ListPodSandboxResponse, error) {
		return c.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: filter})
	})
	return resp.GetItems(), err
}

// CreateContainer makes a container in a ready sandbox, whose own config must be passed again, and returns its id. The
// container does not run yet.
func (c *Client) CreateContainer(ctx context.Context, sandboxID string, config *runtimeapi.ContainerConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	what := fmt.Sprintf("creating container %s (attempt %d) in sandbox %s",
		config.GetMetadata().GetName(), config.GetMetadata().GetAttempt(), short(sandboxID))
	resp, err := call(ctx, callTimeout, what, func(ctx context.Context) (*runtimeapi.CreateContainerResponse, error) {
		return c.runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sandboxID, Config: config, SandboxConfig: sandbox})
	})
	return resp.GetContainerId(), err
}

// StartContainer starts a created container. One that was started before is an error, even if it has exited.
func (c *Client) StartContainer(ctx context.Context, id string) error {
	_, err := call(ctx, callTimeout, "starting container "+short(id), func(ctx context.Context) (*runtimeapi.StartContainerResponse, error) {
		return c.runtime.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: id})
	})
	return err
}

// StopContainer sends the stop signal and kills what still runs after the grace, which the CRI takes in whole seconds:
// it is rounded up. A container that does not run or is gone is no error.
func (c *Client) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	grace = max(grace, 0)
	_, err := call(ctx, grace+callTimeout, "stopping container "+short(id), func(ctx context.Context) (*runtimeapi.StopContainerResponse, error) {
		return c.runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds(grace)})
	})
	return absentIsDone(err)
}

// RemoveContainer removes the container, by force if it runs. One that is gone is no error.
func (c *Client) RemoveContainer(ctx context.Context, id string) error {
	_, err := call(ctx, callTimeout, "removing container "+short(id), func(ctx context.Context) (*runtimeapi.RemoveContainerResponse, error) {
		return c.runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id})
	})
	return absentIsDone(err)
}

// ListContainers returns the containers that match filter, in no order; nil matches all.
func (c *Client) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	resp, err := call(ctx, listTimeout, "listing containers", func(ctx context.Context) (*runtimeapi.ListContainersResponse, error) {
		return c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: filter})
	})
	return resp.GetContainers(), err
}

// ContainerStatus returns the container's state, times and exit code; IsNotFound tells that it does not exist.
func (c *Client) ContainerStatus(ctx context.Context, id string) (*runtimeapi.ContainerStatus, error) {
	resp, err := call(ctx, callTimeout, "asking for the status of container "+short(id), func(ctx context.Context) (*runtimeapi.ContainerStatusResponse, error) {
		return c.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	})
	return resp.GetStatus(), err
}

// ExecSync runs cmd in the container and returns its output and exit code; an exit code other than 0 is no error.
// The runtime kills cmd after timeout, rounded up to whole seconds; 0 is no limit but ctx's.
func (c *Client) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (*runtimeapi.ExecSyncResponse, error) {
	timeout = max(timeout, 0)
	limit := timeout + callTimeout
	if timeout == 0 {
		limit = 0
	}
	return call(ctx, limit, "running a command in container "+short(id), func(ctx context.Context) (*runtimeapi.ExecSyncResponse, error) {
		return c.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: cmd, Timeout: seconds(timeout)})
	})
}

// ReopenContainerLog makes the runtime write to a new file at the container's log path, after the old one was moved.
func (c *Client) ReopenContainerLog(ctx context.Context, id string) error {
	_, err := call(ctx, callTimeout, "reopening the log of container "+short(id), func(ctx context.Context) (*runtimeapi.ReopenContainerLogResponse, error) {
		return c.runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id})
	})
	return err
}

// UpdateContainerResources changes the limits of a container that was not started yet or runs.
func (c *Client) UpdateContainerResources(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	_, err := call(ctx, callTimeout, "updating the resources of container "+short(id), func(ctx context.Context) (*runtimeapi.UpdateContainerResourcesResponse, error) {
		return c.runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources})
	})
	return err
}

// seconds rounds up, so that a grace of half a second is not a kill at once.
func seconds(d time.Duration) int64 { return int64(math.Ceil(d.Seconds())) }

// short is an id as crictl prints it. Messages stay readable, and crictl takes the short form.
func short(id string) string {
	const n = 13
	if len(id) > n {
		return id[:n]
	}
	return id
}
