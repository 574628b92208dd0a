package podspec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Image is what the runtime's store says of a container's image.
type Image struct {
	ID string // what the container is made from: "sha256:…"
	// The user that the image names, by number or by name; neither means root.
	UID      *int64
	Username string
}

// ImageOf takes from the runtime's answer what a container needs.
func ImageOf(img *runtimeapi.Image) Image {
	out := Image{ID: img.GetId(), Username: img.GetUsername()}
	if img.GetUid() != nil {
		uid := img.GetUid().GetValue()
		out.UID, out.Username = &uid, ""
	}
	return out
}

// Attempt is what is known of one attempt of a container only when it is about to be made.
type Attempt struct {
	Number uint32
	Image  Image
	PodIPs []string // the sandbox's; not looked at for a pod on the host's network
	// Watched is the fingerprint of the host files that the pod watches, recorded as AnnotationWatched; "" is not.
	Watched string
	// Files are the contents of EnvFiles. A file that does not exist is left out.
	Files map[VolumeFile][]byte
	// Volumes are the images of the pod's image volumes as the store has them, by reference: "sha256:…".
	Volumes map[string]string
}

// Container is what CreateContainer is told for one attempt of a container. It fails where the manifest asks for what
// this image or pod cannot give, such as runAsNonRoot with an image of root's. Kubernetes v1.36.3
// pkg/kubelet/kuberuntime/kuberuntime_container.go:343.
func Container(p *manifest.StaticPod, c *corev1.Container, a Attempt, n Node) (*runtimeapi.ContainerConfig, error) {
	env, err := environment(p, c, a, n)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	security, err := containerSecurity(p.Pod, c, a.Image, n)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	mounts, err := mounts(p, c, a, env, n)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", c.Name, err)
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: a.Number},
		Image:       &runtimeapi.ImageSpec{Image: a.Image.ID, UserSpecifiedImage: c.Image},
		Command:     env.expandAll(c.Command),
		Args:        env.expandAll(c.Args),
		WorkingDir:  c.WorkingDir,
		Envs:        env.list(),
		Mounts:      mounts,
		Labels:      podLabels(p),
		Annotations: containerAnnotations(p.Pod, c, a),
		LogPath:     LogPath(c.Name, a.Number),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       containerResources(p.Pod, c, n),
			SecurityContext: security,
		},
	}
	config.Labels[LabelContainerName] = c.Name
	if l := c.Lifecycle; l != nil && l.StopSignal != nil {
		config.StopSignal = signal(*l.StopSignal)
	}
	return config, nil
}

// signal is the runtime's number of a signal; 0 leaves it to the image.
func signal(s corev1.Signal) runtimeapi.Signal {
	name := strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(string(s))
	return runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+name])
}

// podIPs are the addresses that a container of the pod may be told.
func podIPs(p *manifest.StaticPod, a Attempt, n Node) []string {
	if p.Pod.Spec.HostNetwork {
		return addresses(n.HostIPs)
	}
	return a.PodIPs
}

func containerAnnotations(pod *corev1.Pod, c *corev1.Container, a Attempt) map[string]string {
	out := map[string]string{
		AnnotationContainerHash:            ContainerHash(c),
		AnnotationRestartCount:             strconv.FormatUint(uint64(a.Number), 10),
		AnnotationTerminationMessagePath:   c.TerminationMessagePath,
		AnnotationTerminationMessagePolicy: string(c.TerminationMessagePolicy),
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		out[AnnotationGracePeriod] = strconv.FormatInt(*g, 10)
	}
	if c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		out[AnnotationPreStop] = mustJSON(c.Lifecycle.PreStop)
	}
	if a.Watched != "" {
		out[AnnotationWatched] = a.Watched
	}
	if len(c.Ports) > 0 {
		out[AnnotationPorts] = mustJSON(c.Ports)
	}
	return out
}

// ContainerHash is the kubelet's fingerprint of a container: whoever starts one with another has it killed by the next
// kubelet.
func ContainerHash(c *corev1.Container) string { return lifecycle.ContainerHash(c.Name, c.Image) }

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("podspec: marshalling %T: %v", v, err)) // plain API types always marshal
	}
	return string(b)
}
