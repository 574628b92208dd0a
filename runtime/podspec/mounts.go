package podspec

import (
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const etcHostsPath = "/etc/hosts"

// mounts are the container's volumes, then the hosts file, then the termination log: the kubelet's order.
func mounts(p *manifest.StaticPod, c *corev1.Container, attempt uint32, n Node) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	for _, m := range c.VolumeMounts {
		source, err := volumeSource(p, m.Name, n)
		if err != nil {
			return nil, err
		}
		target := m.MountPath
		if !path.IsAbs(target) {
			target = "/" + target
		}
		out = append(out, &runtimeapi.Mount{
			ContainerPath: target, HostPath: source.path,
			Readonly:    m.ReadOnly || source.readOnly,
			Propagation: propagation(m.MountPropagation),
		})
	}
	if mountsHosts(c) {
		out = append(out, &runtimeapi.Mount{ContainerPath: etcHostsPath, HostPath: etcHosts(p, n)})
	}
	if log := TerminationLog(p, c, attempt, n); log != "" {
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: log})
	}
	return out, nil
}

type source struct {
	path     string
	readOnly bool
}

func volumeSource(p *manifest.StaticPod, name string, n Node) (source, error) {
	for i := range p.Pod.Spec.Volumes {
		v := &p.Pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		switch {
		case v.HostPath != nil:
			return source{path: v.HostPath.Path}, nil
		case v.EmptyDir != nil:
			return source{path: volumeDir(p, "empty-dir", name, n)}, nil
		case v.DownwardAPI != nil:
			return source{path: volumeDir(p, "downward-api", name, n), readOnly: true}, nil
		case v.Projected != nil:
			return source{path: volumeDir(p, "projected", name, n), readOnly: true}, nil
		}
		return source{}, fmt.Errorf("volume %s is of a type that is not supported", name)
	}
	return source{}, fmt.Errorf("there is no volume %s", name)
}

// mountsHosts says that the container gets the pod's hosts file: unless it brings one.
func mountsHosts(c *corev1.Container) bool {
	for _, m := range c.VolumeMounts {
		if m.MountPath == etcHostsPath {
			return false
		}
	}
	return true
}

func propagation(mode *corev1.MountPropagationMode) runtimeapi.MountPropagation {
	switch {
	case mode != nil && *mode == corev1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case mode != nil && *mode == corev1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}
