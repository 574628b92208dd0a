package podspec

import (
	"errors"
	"fmt"
	"path"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const etcHostsPath = "/etc/hosts"

// mounts are the container's volumes, then the hosts file, then the termination log: the kubelet's order.
func mounts(p *manifest.StaticPod, c *corev1.Container, a Attempt, e env, n Node) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	for i, m := range c.VolumeMounts {
		from, err := volumeSource(p, m.Name, n)
		if err != nil {
			return nil, err
		}
		sub, err := subPath(m, e)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.MountPath, err)
		}
		recursive, err := recursiveReadOnly(m, n)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.MountPath, err)
		}
		mount := &runtimeapi.Mount{
			ContainerPath: m.MountPath, HostPath: from.path,
			Readonly: m.ReadOnly || from.readOnly, RecursiveReadOnly: recursive,
			Propagation: propagation(m.MountPropagation), SelinuxRelabel: n.SELinux && from.ours,
		}
		if !path.IsAbs(mount.ContainerPath) {
			mount.ContainerPath = "/" + mount.ContainerPath
		}
		switch {
		case from.image != "":
			id := a.Volumes[from.image]
			if id == "" {
				return nil, fmt.Errorf("volume %s: the image %s is not in the runtime's store", m.Name, from.image)
			}
			mount.ImageSubPath = sub
			mount.Image = &runtimeapi.ImageSpec{Image: id, UserSpecifiedImage: from.image, Annotations: p.Pod.Annotations}
		case sub != "":
			mount.HostPath = subPathTarget(p, c, i, m.Name, n)
		}
		out = append(out, mount)
	}
	if mountsHosts(c) {
		out = append(out, &runtimeapi.Mount{ContainerPath: etcHostsPath, HostPath: etcHosts(p, n), SelinuxRelabel: n.SELinux})
	}
	if log := TerminationLog(p, c, a.Number, n); log != "" {
		target := c.TerminationMessagePath
		if !path.IsAbs(target) {
			target = "/" + target
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: target, HostPath: log, SelinuxRelabel: n.SELinux})
	}
	return out, nil
}

// recursiveReadOnly tells whether what is mounted below a volume is read-only as well.
func recursiveReadOnly(m corev1.VolumeMount, n Node) (bool, error) {
	switch {
	case m.RecursiveReadOnly == nil:
		return false, nil
	case *m.RecursiveReadOnly == corev1.RecursiveReadOnlyIfPossible:
		return n.RecursiveReadOnlyMounts, nil
	case *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled && !n.RecursiveReadOnlyMounts:
		return false, errors.New("the runtime cannot make a mount read-only recursively")
	}
	return *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled, nil
}

// source is where a volume's content is.
type source struct {
	path     string // on the host; "" for an image
	image    string // the reference of an image that is mounted as it is; else ""
	readOnly bool
	ours     bool // made for the pod, and so labelled for it
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
			return source{path: volumeDir(p, "empty-dir", name, n), ours: true}, nil
		case v.DownwardAPI != nil:
			return source{path: volumeDir(p, "downward-api", name, n), readOnly: true, ours: true}, nil
		case v.Projected != nil:
			return source{path: volumeDir(p, "projected", name, n), readOnly: true, ours: true}, nil
		case v.Image != nil:
			return source{image: v.Image.Reference, readOnly: true}, nil
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
