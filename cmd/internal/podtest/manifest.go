//go:build e2e || bench

package podtest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// Manifest is a pod under construction. Every method changes it and returns it. What has no method is set on Pod.
type Manifest struct{ Pod corev1.Pod }

// Pod begins a manifest of that name: on the host's network, in the namespace default, with a grace period of 2 s.
func Pod(name string) *Manifest {
	grace := int64(2)
	return &Manifest{corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{HostNetwork: true, TerminationGracePeriodSeconds: &grace},
	}}
}

// Container adds one that runs the subject with these arguments.
func (m *Manifest) Container(name string, args ...string) *Manifest {
	m.Pod.Spec.Containers = append(m.Pod.Spec.Containers, subject(name, args))
	return m
}

// InitContainer adds one that runs the subject with these arguments before the containers.
func (m *Manifest) InitContainer(name string, args ...string) *Manifest {
	m.Pod.Spec.InitContainers = append(m.Pod.Spec.InitContainers, subject(name, args))
	return m
}

// Sidecar adds a restartable init container.
func (m *Manifest) Sidecar(name string, args ...string) *Manifest {
	c, always := subject(name, args), corev1.ContainerRestartPolicyAlways
	c.RestartPolicy = &always
	m.Pod.Spec.InitContainers = append(m.Pod.Spec.InitContainers, c)
	return m
}

func subject(name string, args []string) corev1.Container {
	c := corev1.Container{Name: name, Image: Image, ImagePullPolicy: corev1.PullIfNotPresent}
	for _, step := range args {
		if step == "forever" { // Go ends a program that only waits: "all goroutines are asleep"
			step = "sleep:24h"
		}
		c.Args = append(c.Args, step)
	}
	return c
}

// Edit changes the last container that was added with Container.
func (m *Manifest) Edit(change func(*corev1.Container)) *Manifest {
	change(&m.Pod.Spec.Containers[len(m.Pod.Spec.Containers)-1])
	return m
}

// Spec changes what has no method of its own.
func (m *Manifest) Spec(change func(*corev1.PodSpec)) *Manifest {
	change(&m.Pod.Spec)
	return m
}

// Namespace moves the pod.
func (m *Manifest) Namespace(name string) *Manifest {
	m.Pod.Namespace = name
	return m
}

// Annotate sets an annotation.
func (m *Manifest) Annotate(key, value string) *Manifest {
	metav1.SetMetaDataAnnotation(&m.Pod.ObjectMeta, key, value)
	return m
}

// Label sets a label.
func (m *Manifest) Label(key, value string) *Manifest {
	metav1.SetMetaDataLabel(&m.Pod.ObjectMeta, key, value)
	return m
}

// Restart sets the restartPolicy.
func (m *Manifest) Restart(policy corev1.RestartPolicy) *Manifest {
	m.Pod.Spec.RestartPolicy = policy
	return m
}

// Grace sets the terminationGracePeriodSeconds.
func (m *Manifest) Grace(seconds int64) *Manifest {
	m.Pod.Spec.TerminationGracePeriodSeconds = &seconds
	return m
}

// PodNetwork gives the pod a network of its own.
func (m *Manifest) PodNetwork() *Manifest {
	m.Pod.Spec.HostNetwork = false
	return m
}

// HostPath mounts a path of the host at the same path into every container that was added.
func (m *Manifest) HostPath(name, path string, kind corev1.HostPathType) *Manifest {
	return m.Volume(name, path, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}})
}

// Volume mounts a volume at a path into every container that was added.
func (m *Manifest) Volume(name, path string, source corev1.VolumeSource) *Manifest {
	m.Pod.Spec.Volumes = append(m.Pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
	for _, list := range [][]corev1.Container{m.Pod.Spec.InitContainers, m.Pod.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = append(list[i].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
		}
	}
	return m
}

// YAML is the manifest as a file.
func (m *Manifest) YAML() string {
	data, err := yaml.Marshal(&m.Pod)
	if err != nil {
		panic(fmt.Sprintf("podtest: a pod cannot be encoded: %v", err))
	}
	return string(data)
}
