package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// specHash returns 32 hex digits that follow the content of a pod: the API's defaults applied, the static ones not
// yet. Its own uid, its status and what the static ones overwrite are left out; the node name is in, so that two nodes
// never share a uid. Comments, key order, spelling of quantities and the file's name change nothing.
//
// A new default, or a field of the API that is printed even when empty, changes every hash and thereby restarts every
// pod at an upgrade of slipway: TestUIDIsPinned notices.
func specHash(pod *corev1.Pod, nodeName string) string {
	content := corev1.Pod{TypeMeta: pod.TypeMeta, ObjectMeta: *pod.ObjectMeta.DeepCopy(), Spec: pod.Spec}
	content.UID = ""
	content.Spec.NodeName = ""
	for _, key := range []string{AnnotationConfigHash, AnnotationConfigSource, AnnotationConfigSeen} {
		delete(content.Annotations, key)
	}
	if content.Namespace == "" {
		content.Namespace = corev1.NamespaceDefault
	}
	b, err := json.Marshal(&content) // struct order and sorted maps: one pod, one text
	if err != nil {
		panic(fmt.Sprintf("manifest: marshalling a decoded pod: %v", err)) // it came out of JSON a moment ago
	}
	h := sha256.New()
	h.Write(b)
	h.Write([]byte{0})
	h.Write([]byte(nodeName))
	return hex.EncodeToString(h.Sum(nil)[:16])
}
