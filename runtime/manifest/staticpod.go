// Package manifest reads static pods from files and URLs.
package manifest

import corev1 "k8s.io/api/core/v1"

// The annotations that a static pod carries besides its own; the names are the kubelet's.
const (
	AnnotationConfigHash   = "kubernetes.io/config.hash"   // equals the pod's UID
	AnnotationConfigSource = "kubernetes.io/config.source" // "file" or "http"
	AnnotationConfigSeen   = "kubernetes.io/config.seen"   // when the supervisor first saw it; written by the supervisor
	AnnotationConfigMirror = "kubernetes.io/config.mirror" // only ever on a mirror pod; refused in a manifest
)

// StaticPod is one valid manifest with the kubelet's defaults applied: name suffixed with the node name, namespace,
// uid, nodeName, the config.hash and config.source annotations and the NoExecute toleration. It is never changed.
type StaticPod struct {
	Pod      *corev1.Pod
	UID      string // the pod's uid: 32 hex digits of its content, or the file's own metadata.uid
	SpecHash string // hash of the whole defaulted pod; equals UID unless the file brings its own
	Source   string // path or URL, for messages
}

// FullName is "namespace/name" with the node suffix: the identity that one worker owns.
func (p *StaticPod) FullName() string { return p.Pod.Namespace + "/" + p.Pod.Name }
