package critest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version implements the CRI.
func (r *Runtime) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	if v := r.options.Version; v != nil {
		return proto.CloneOf(v), nil
	}
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: "critest", RuntimeVersion: "v0.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status implements the CRI.
func (r *Runtime) Status(_ context.Context, req *runtimeapi.StatusRequest) (*runtimeapi.StatusResponse, error) {
	resp := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
		{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
	}}}
	for _, h := range r.options.Handlers {
		resp.RuntimeHandlers = append(resp.RuntimeHandlers, proto.CloneOf(h))
	}
	if req.GetVerbose() {
		resp.Info = r.options.Info
	}
	return resp, nil
}

// RuntimeConfig implements the CRI if the options name a cgroup driver.
func (r *Runtime) RuntimeConfig(context.Context, *runtimeapi.RuntimeConfigRequest) (*runtimeapi.RuntimeConfigResponse, error) {
	if r.options.CgroupDriver == nil {
		return nil, status.Error(codes.Unimplemented, "unknown method RuntimeConfig for service runtime.v1.RuntimeService")
	}
	return &runtimeapi.RuntimeConfigResponse{Linux: &runtimeapi.LinuxRuntimeConfiguration{CgroupDriver: *r.options.CgroupDriver}}, nil
}

// RunPodSandbox implements the CRI.
func (r *Runtime) RunPodSandbox(_ context.Context, req *runtimeapi.RunPodSandboxRequest) (*runtimeapi.RunPodSandboxResponse, error) {
	meta := req.GetConfig().GetMetadata()
	switch {
	case meta == nil:
		return nil, status.Error(codes.InvalidArgument, "sandbox config must include metadata")
	case meta.GetName() == "", meta.GetNamespace() == "", meta.GetUid() == "":
		return nil, status.Errorf(codes.InvalidArgument, "sandbox metadata must have name, namespace, uid: %v", meta)
	}
	r.mu.Lock()
	defer r.unlock()
	if ref := r.options.SandboxImage; ref != "" && r.findImage(ref) == nil {
		if err := r.pull(ref); err != nil {
			return nil, status.Errorf(codes.NotFound, "failed to get sandbox image %q: %v", ref, err)
		}
	}
	id := r.newID("sandbox")
	name := fmt.Sprintf("%s_%s_%s_%d", meta.GetName(), meta.GetNamespace(), meta.GetUid(), meta.GetAttempt())
	if err := r.reserve("sandbox", name, id); err != nil {
		return nil, err
	}
	r.sandboxes = append(r.sandboxes, &sandbox{
		id: id, name: name, config: proto.CloneOf(req.GetConfig()), handler: req.GetRuntimeHandler(), ready: true, createdAt: r.now(),
	})
	r.emit("/containers/create", id)
	r.emit("/tasks/start", id)
	return &runtimeapi.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox implements the CRI.
func (r *Runtime) StopPodSandbox(_ context.Context, req *runtimeapi.StopPodSandboxRequest) (*runtimeapi.StopPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	if s, err := r.findSandbox(req.GetPodSandboxId()); err == nil {
		r.stopSandbox(s)
	}
	return &runtimeapi.StopPodSandboxResponse{}, nil
}

// stopSandbox kills what runs in it, without grace.
func (r *Runtime) stopSandbox(s *sandbox) {
	for _, c := range r.containers {
		if c.sandbox == s {
			r.end(c, killed)
		}
	}
	r.killSandbox(s)
}

func (r *Runtime) killSandbox(s *sandbox) {
	if s.ready {
		s.ready = false
		r.emit("/tasks/exit", s.id)
	}
}

// RemovePodSandbox implements the CRI.
func (r *Runtime) RemovePodSandbox(_ context.Context, req *runtimeapi.RemovePodSandboxRequest) (*runtimeapi.RemovePodSandboxResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return &runtimeapi.RemovePodSandboxResponse{}, nil
	}
	r.stopSandbox(s)
	for _, c := range slices.Clone(r.containers) {
		if c.sandbox == s {
			r.remove(c)
		}
	}
	r.sandboxes = slices.DeleteFunc(r.sandboxes, func(x *sandbox) bool { return x == s })
	r.release("sandbox", s.name)
	r.emit("/containers/delete", s.id)
	return &runtimeapi.RemovePodSandboxResponse{}, nil
}

// PodSandboxStatus implements the CRI.
func (r *Runtime) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	s, err := r.findSandbox(req.GetPodSandboxId())
	if err != nil {
		return nil, err
	}
	st := &runtimeapi.PodSandboxStatus{
		Id: s.id, Metadata: s.config.GetMetadata(), State: s.state(), CreatedAt: s.createdAt,
		Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
		Network: &runtimeapi.PodSandboxNetworkStatus{},
		Linux: &runtimeapi.LinuxPodSandboxStatus{Namespaces: &runtimeapi.Namespace{
			Options: s.config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
		}},
	}
	if s.config.GetLinux().GetSecurityContext().GetNamespaceOptions().GetNetwork() != runtimeapi.NamespaceMode_NODE && s.ready {
		st.Network.Ip = "10.88.0.2" // nothing tells pods apart by it here
	}
	return &runtimeapi.PodSandboxStatusResponse{Status: proto.CloneOf(st)}, nil
}

// ListPodSandbox implements the CRI. The order is that of creation, on which nobody may rely.
func (r *Runtime) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	filter, resp := req.GetFilter(), &runtimeapi.ListPodSandboxResponse{}
	for _, s := range r.sandboxes {
		if !strings.HasPrefix(s.id, filter.GetId()) ||
			filter.GetState() != nil && filter.GetState().GetState() != s.state() ||
			!matches(filter.GetLabelSelector(), s.config.GetLabels()) {
			continue
		}
		resp.Items = append(resp.Items, proto.CloneOf(&runtimeapi.PodSandbox{
			Id: s.id, Metadata: s.config.GetMetadata(), State: s.state(), CreatedAt: s.createdAt,
			Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(), RuntimeHandler: s.handler,
		}))
	}
	return resp, nil
}

func (s *sandbox) state() runtimeapi.PodSandboxState {
	if s.ready {
		return runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return runtimeapi.PodSandboxState_SANDBOX_NOTREADY
}
