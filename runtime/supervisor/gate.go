package supervisor

import (
	"fmt"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// AnnotationStartAfter names, separated by commas, the pods of the same namespace (as their manifests name them,
// without the node) that must be ready before this one is started for the first time. A name that has no manifest on
// this node holds nothing back. A kubelet ignores the annotation.
const AnnotationStartAfter = "slipway.dev/start-after"

// annotationSeen is the kubelet's: when this process first saw the manifest, RFC 3339 with nanoseconds.
// Kubernetes v1.36.3 pkg/kubelet/types/pod_update.go.
const annotationSeen = "kubernetes.io/config.seen"

// seenAt returns a copy of the pod that carries the time of its first sight.
func seenAt(p *manifest.StaticPod, now time.Time) *manifest.StaticPod {
	copied := *p
	copied.Pod = p.Pod.DeepCopy()
	if copied.Pod.Annotations == nil {
		copied.Pod.Annotations = map[string]string{}
	}
	copied.Pod.Annotations[annotationSeen] = now.Format(time.RFC3339Nano)
	return &copied
}

// held says which pods the wanted one still waits for, or returns "". The worker is woken when one of them turns ready.
func (s *Supervisor) held(w *worker, want *manifest.StaticPod) string {
	if want == nil {
		return ""
	}
	var missing []string
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, short := range strings.Split(want.Pod.Annotations[AnnotationStartAfter], ",") {
		short = strings.TrimSpace(short)
		name := fmt.Sprintf("%s/%s-%s", want.Pod.Namespace, short, s.c.Node.Name)
		if short == "" || name == w.name || !s.wanted[name] || s.ready[name] {
			continue
		}
		missing = append(missing, short)
		if s.waiters[name] == nil {
			s.waiters[name] = map[*worker]bool{}
		}
		s.waiters[name][w] = true
	}
	return strings.Join(missing, ", ")
}
