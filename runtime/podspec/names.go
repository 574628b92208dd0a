package podspec

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Labels by which the kubelet, crictl and nerdctl know whose a sandbox or container is.
const (
	LabelPodName       = "io.kubernetes.pod.name"
	LabelPodNamespace  = "io.kubernetes.pod.namespace"
	LabelPodUID        = "io.kubernetes.pod.uid"
	LabelContainerName = "io.kubernetes.container.name"
)

// Annotations of a container; the kubelet restores from them what it needs to stop a container whose pod it has never
// seen. Kubernetes v1.36.3 pkg/kubelet/kuberuntime/labels.go.
const (
	AnnotationContainerHash            = "io.kubernetes.container.hash"
	AnnotationRestartCount             = "io.kubernetes.container.restartCount"
	AnnotationTerminationMessagePath   = "io.kubernetes.container.terminationMessagePath"
	AnnotationTerminationMessagePolicy = "io.kubernetes.container.terminationMessagePolicy"
	AnnotationGracePeriod              = "io.kubernetes.pod.terminationGracePeriod" // seconds
	AnnotationPreStop                  = "io.kubernetes.container.preStopHandler"   // JSON
	AnnotationPorts                    = "io.kubernetes.container.ports"            // JSON
)

// Annotations that slipway alone writes: on the sandbox, and AnnotationWatched on a container.
const (
	AnnotationSpecHash = "slipway.dev/spec-hash" // StaticPod.SpecHash
	AnnotationInstance = "slipway.dev/instance"  // Node.Instance
	AnnotationWatched  = "slipway.dev/watched"   // Attempt.Watched
)

// PodDir is where the files of one version of a pod lie.
func PodDir(uid string, n Node) string { return filepath.Join(n.KubeletRoot, "pods", uid) }

// LogDir is the directory of a pod's logs; the log of a container's attempt N is NAME/N.log in it.
func LogDir(p *manifest.StaticPod, n Node) string {
	return filepath.Join(n.PodLogsDir, p.Pod.Namespace+"_"+p.Pod.Name+"_"+p.UID)
}

// LogPath is a container's log, relative to its pod's LogDir.
func LogPath(container string, attempt uint32) string {
	return filepath.Join(container, fmt.Sprintf("%d.log", attempt))
}

// LogLink is the name of the symlink in Node.ContainerLogsDir that log collectors read a container's log by.
func LogLink(p *manifest.StaticPod, container, id string) string {
	return fmt.Sprintf("%s_%s_%s-%s.log", p.Pod.Name, p.Pod.Namespace, container, id)
}

// TerminationLog is the host's file for a container's last words; "" when the container has none.
func TerminationLog(p *manifest.StaticPod, c *corev1.Container, attempt uint32, n Node) string {
	if c.TerminationMessagePath == "" {
		return ""
	}
	// The kubelet takes eight random digits here; the attempt is as unique and can be found again.
	return filepath.Join(PodDir(p.UID, n), "containers", c.Name, fmt.Sprintf("%08x", attempt))
}

func etcHosts(p *manifest.StaticPod, n Node) string {
	return filepath.Join(PodDir(p.UID, n), "etc-hosts")
}

func volumeDir(p *manifest.StaticPod, plugin, volume string, n Node) string {
	return filepath.Join(PodDir(p.UID, n), "volumes", "kubernetes.io~"+plugin, volume)
}
