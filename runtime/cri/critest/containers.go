package critest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	killed     = 128 + 9  // exit code after SIGKILL
	terminated = 128 + 15 // exit code of a program that does not handle SIGTERM
	startError = 128      // containerd's code for a container that could not be started
)

// CreateContainer implements the CRI.
func (r *Runtime) CreateContainer(_ context.Context, req *runtimeapi.CreateContainerRequest) (*runtimeapi.CreateContainerResponse, error) {
	config := req.GetConfig()
	switch {
	case config.GetMetadata().GetName() == "":
		return nil, status.Error(codes.InvalidArgument, "container config must include metadata with a name")
	case config.GetImage().GetImage() == "":
		return nil, status.Error(codes.InvalidArgument, "container config must include an image")
	case req.GetSandboxConfig() == nil:
		return nil, status.Error(codes.InvalidArgument, "sandbox config is empty")
	}
	r.mu.Lock()
	defer r.unlock()
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	if !proto.Equal(s.config.GetMetadata(), req.GetSandboxConfig().GetMetadata()) {
		return nil, status.Errorf(codes.InvalidArgument, "sandbox config is not the one that sandbox %q was run with: %v, want %v",
			s.id, req.GetSandboxConfig().GetMetadata(), s.config.GetMetadata())
	}
	if !s.ready {
		return nil, status.Errorf(codes.Unknown, "sandbox container %q is not running", s.id)
	}
	id, pod := r.newID("container"), s.config.GetMetadata()
	name := fmt.Sprintf("%s_%s_%s_%s_%d", config.GetMetadata().GetName(), pod.GetName(), pod.GetNamespace(), pod.GetUid(), config.GetMetadata().GetAttempt())
	if err := r.reserve("container", name, id); err != nil {
		return nil, err
	}
	image := r.findImage(config.GetImage().GetImage())
	if image == nil {
		r.release("container", name)
		return nil, status.Errorf(codes.NotFound, "failed to resolve image %q: not found", config.GetImage().GetImage())
	}
	r.containers = append(r.containers, &container{
		id: id, name: name, sandbox: s, config: proto.CloneOf(config), imageID: image.GetId(),
		state: runtimeapi.ContainerState_CONTAINER_CREATED, created: r.now(), ended: make(chan struct{}),
	})
	r.emit("/containers/create", id)
	return &runtimeapi.CreateContainerResponse{ContainerId: id}, nil
}

// StartContainer implements the CRI.
func (r *Runtime) StartContainer(ctx context.Context, req *runtimeapi.StartContainerRequest) (*runtimeapi.StartContainerResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	switch {
	case c.starting:
		return nil, status.Errorf(codes.Unknown, "failed to set starting state for container %q: container is already in starting state", c.id)
	case c.state != runtimeapi.ContainerState_CONTAINER_CREATED:
		return nil, status.Errorf(codes.Unknown, "failed to set starting state for container %q: container is in %s state", c.id, c.state)
	}
	if takes, hangs := r.hungStarts[c.config.GetMetadata().GetName()]; hangs {
		return nil, r.giveUp(ctx, c, takes)
	}
	if err := r.start(c); err != nil {
		r.failStart(c, err)
		return nil, status.Errorf(codes.Unknown, "failed to start container %q: %v", c.id, err)
	}
	return &runtimeapi.StartContainerResponse{}, nil
}

// giveUp waits until the caller of a start goes away, and lets the start end that long afterwards. The caller holds mu,
// which is free meanwhile.
func (r *Runtime) giveUp(ctx context.Context, c *container, takes time.Duration) error {
	c.starting = true
	r.unlock()
	<-ctx.Done()
	time.AfterFunc(takes, func() {
		r.mu.Lock()
		defer r.unlock()
		c.starting = false
		r.failStart(c, fmt.Errorf("failed to create containerd task: failed to create shim task: %w: unknown", context.Canceled))
	})
	r.mu.Lock()
	return status.FromContextError(ctx.Err()).Err()
}

func (r *Runtime) failStart(c *container, err error) {
	c.state, c.reason, c.message, c.code, c.end = runtimeapi.ContainerState_CONTAINER_EXITED, "StartError", err.Error(), startError, r.now()
	c.closeLog()
	close(c.ended)
}

func (r *Runtime) start(c *container) error {
	if !c.sandbox.ready {
		return fmt.Errorf("sandbox container %q is not running", c.sandbox.id)
	}
	if err := r.openLog(c); err != nil {
		return fmt.Errorf("failed to create container loggers: %w", err)
	}
	var outcome Outcome
	if r.options.Program != nil {
		outcome = r.options.Program(proto.CloneOf(c.config))
	}
	if outcome.Err != nil {
		return outcome.Err
	}
	c.state, c.start, c.ignoresStop = runtimeapi.ContainerState_CONTAINER_RUNNING, r.now(), outcome.IgnoresStop
	r.emit("/tasks/start", c.id)
	if c.log != nil && outcome.Says != "" {
		_, _ = fmt.Fprintf(c.log, "%s stdout F %s\n", time.Now().Format(time.RFC3339Nano), outcome.Says)
	}
	if outcome.Exits {
		r.end(c, outcome.Code)
	}
	return nil
}

// end makes a running container an exited one.
func (r *Runtime) end(c *container, code int32) {
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return
	}
	c.state, c.code, c.end, c.reason = runtimeapi.ContainerState_CONTAINER_EXITED, code, r.now(), "Error"
	if code == 0 {
		c.reason = "Completed"
	}
	c.closeLog()
	close(c.ended)
	r.emit("/tasks/exit", c.id)
}

// StopContainer implements the CRI. It returns when the container has ended, or with ctx.
func (r *Runtime) StopContainer(ctx context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	r.mu.Lock()
	c, err := r.findContainer(req.GetContainerId())
	if err != nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		r.unlock()
		return &runtimeapi.StopContainerResponse{}, nil
	}
	how, ok := r.stops[c.config.GetMetadata().GetName()]
	if !ok {
		how = stop{code: terminated}
	}
	if grace := time.Duration(req.GetTimeout()) * time.Second; grace == 0 || how.takes > grace || c.ignoresStop {
		how = stop{takes: grace, code: killed}
	}
	r.unlock()

	if how.takes > 0 {
		timer := time.NewTimer(how.takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.ended:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	r.mu.Lock()
	r.end(c, how.code)
	r.unlock()
	return &runtimeapi.StopContainerResponse{}, nil
}

// RemoveContainer implements the CRI.
func (r *Runtime) RemoveContainer(_ context.Context, req *runtimeapi.RemoveContainerRequest) (*runtimeapi.RemoveContainerResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	if c, err := r.findContainer(req.GetContainerId()); err == nil {
		if c.starting {
			return nil, status.Errorf(codes.Unknown, "failed to set removing state for container %q: container is in starting state, can't be removed", c.id)
		}
		r.remove(c)
	}
	return &runtimeapi.RemoveContainerResponse{}, nil
}

func (r *Runtime) remove(c *container) {
	r.end(c, killed)
	r.containers = slices.DeleteFunc(r.containers, func(x *container) bool { return x == c })
	r.release("container", c.name)
	r.emit("/containers/delete", c.id)
}

// ListContainers implements the CRI. The order is that of creation, on which nobody may rely.
func (r *Runtime) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	filter, resp := req.GetFilter(), &runtimeapi.ListContainersResponse{}
	for _, c := range r.containers {
		if !strings.HasPrefix(c.id, filter.GetId()) || !strings.HasPrefix(c.sandbox.id, filter.GetPodSandboxId()) ||
			filter.GetState() != nil && filter.GetState().GetState() != c.state ||
			!matches(filter.GetLabelSelector(), c.config.GetLabels()) {
			continue
		}
		resp.Containers = append(resp.Containers, proto.CloneOf(&runtimeapi.Container{
			Id: c.id, PodSandboxId: c.sandbox.id, Metadata: c.config.GetMetadata(), Image: c.config.GetImage(), ImageRef: c.imageID,
			ImageId: c.imageID, State: c.state, CreatedAt: c.created, Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(),
		}))
	}
	return resp, nil
}

// ContainerStatus implements the CRI.
func (r *Runtime) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	return &runtimeapi.ContainerStatusResponse{Status: proto.CloneOf(&runtimeapi.ContainerStatus{
		Id: c.id, Metadata: c.config.GetMetadata(), State: c.state, CreatedAt: c.created, StartedAt: c.start, FinishedAt: c.end,
		ExitCode: c.code, Reason: c.reason, Message: c.message, Image: c.config.GetImage(), ImageRef: c.imageID, ImageId: c.imageID,
		Labels: c.config.GetLabels(), Annotations: c.config.GetAnnotations(), Mounts: c.config.GetMounts(), LogPath: c.logPath(),
		StopSignal: c.config.GetStopSignal(),
	})}, nil
}

// ExecSync implements the CRI by what the test gave to OnExec. Without it every command succeeds silently.
func (r *Runtime) ExecSync(_ context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	c, err := r.running(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	run := r.execs[c.config.GetMetadata().GetName()]
	r.mu.Unlock()
	if run == nil {
		return &runtimeapi.ExecSyncResponse{}, nil
	}
	return run(req.GetCmd())
}

// UpdateContainerResources implements the CRI.
func (r *Runtime) UpdateContainerResources(_ context.Context, req *runtimeapi.UpdateContainerResourcesRequest) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(req.GetContainerId())
	if err != nil {
		return nil, err
	}
	if c.config.Linux == nil {
		c.config.Linux = &runtimeapi.LinuxContainerConfig{}
	}
	c.config.Linux.Resources = proto.CloneOf(req.GetLinux())
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func (r *Runtime) running(id string) (*container, error) {
	r.mu.Lock()
	defer r.unlock()
	c, err := r.findContainer(id)
	if err != nil {
		return nil, err
	}
	if c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, status.Errorf(codes.Unknown, "container %q is in %s state", c.id, c.state)
	}
	return c, nil
}
