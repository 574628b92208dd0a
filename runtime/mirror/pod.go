package mirror

import (
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// wanted is a static pod as the API shall show it.
type wanted struct {
	pod    *corev1.Pod // the mirror, without an owner and a status
	hash   string      // which version: the static pod's own uid
	face   face
	status corev1.PodStatus
	ending bool // its manifest is gone, its containers not yet
}

// wantedOf turns what the supervisor knows of a pod into its mirror. Nothing of static is changed.
func wantedOf(static *corev1.Pod) wanted {
	hash := static.Annotations[manifest.AnnotationConfigHash]
	if hash == "" {
		hash = string(static.UID) // a pod that ends has no annotations any more
	}
	w := wanted{pod: mirrorPod(static, hash), hash: hash, status: static.Status, ending: static.DeletionTimestamp != nil}
	w.face = faceOf(w.pod)
	delete(w.face.annotations, manifest.AnnotationConfigSeen) // another time after each start of the supervisor
	return w
}

// mirrorPod returns the object to create: the static pod with the mirror annotation, and without what only the local
// API shows. Its spec is shared with static.
func mirrorPod(static *corev1.Pod, hash string) *corev1.Pod {
	annotations := map[string]string{}
	for k, v := range static.Annotations {
		if !status.IsLocal(k) {
			annotations[k] = v
		}
	}
	annotations[corev1.MirrorPodAnnotationKey] = hash
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: static.Namespace, Name: static.Name, Labels: static.Labels, Annotations: annotations},
		Spec:       static.Spec,
	}
	// Mirrors of pods that came from a URL do not tolerate everything: without this, the taint of a node that has no
	// kubelet would have them deleted as soon as they are created.
	if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return tolerates(t, noExecute()) }) {
		pod.Spec.Tolerations = append(slices.Clone(pod.Spec.Tolerations),
			corev1.Toleration{Key: TaintKey, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	}
	return pod
}

func tolerates(t corev1.Toleration, taint corev1.Taint) bool {
	return (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == "" || t.Key == taint.Key) &&
		(t.Operator == corev1.TolerationOpExists || t.Value == taint.Value)
}

// ownedBy returns the mirror with the one owner that a node may give it.
func ownedBy(pod *corev1.Pod, node string, uid types.UID) *corev1.Pod {
	controller := true
	owned := *pod
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: uid, Controller: &controller}}
	return &owned
}

// seen is what matters of a pod in the API that is bound to this node.
type seen struct {
	uid      types.UID
	hash     string    // of its static pod; "" for a pod that is no mirror
	owner    types.UID // its controller
	deleting bool
	started  bool // it has, or had, a container
	version  uint64
	face     face
	status   corev1.PodStatus
}

func seenOf(p *corev1.Pod) seen {
	s := seen{uid: p.UID, hash: p.Annotations[corev1.MirrorPodAnnotationKey], deleting: p.DeletionTimestamp != nil, version: version(p.ResourceVersion)}
	for _, o := range p.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			s.owner = o.UID
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		s.started = s.started || c.ContainerID != ""
	}
	if s.hash != "" { // of the others, nothing else is of interest
		s.face, s.status = faceOf(p), p.Status
	}
	return s
}

// version orders the states of pods; 0 when the server's are not numbers.
func version(resourceVersion string) uint64 {
	n, err := strconv.ParseUint(resourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// face is what of a mirror can be edited through the API. Kubernetes v1.36.3 pkg/apis/core/validation/validation.go,
// ValidatePodUpdate.
type face struct {
	labels, annotations map[string]string
	images              map[string]string // by container
	tolerations         []corev1.Toleration
	deadline            *int64 // seconds
}

func faceOf(p *corev1.Pod) face {
	f := face{labels: p.Labels, annotations: maps.Clone(p.Annotations), images: map[string]string{},
		tolerations: p.Spec.Tolerations, deadline: p.Spec.ActiveDeadlineSeconds}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		f.images[c.Name] = c.Image
	}
	return f
}

// edited names what of f is otherwise in now, "" when nothing is. Labels and annotations that others added stay: taking
// them away again from a controller that insists would never end. So do tolerations, unless f is known to be what the API
// server itself had made of the pod: some are added on admission.
func (f face) edited(now face, known bool) string {
	for _, part := range []struct {
		what     string
		was, now map[string]string
	}{{"label", f.labels, now.labels}, {"annotation", f.annotations, now.annotations}, {"image of container", f.images, now.images}} {
		for _, k := range slices.Sorted(maps.Keys(part.was)) {
			if v, there := part.now[k]; !there || v != part.was[k] {
				return part.what + " " + k
			}
		}
	}
	if !subset(f.tolerations, now.tolerations) || known && !subset(now.tolerations, f.tolerations) {
		return "spec.tolerations"
	}
	if (f.deadline == nil) != (now.deadline == nil) || f.deadline != nil && *f.deadline != *now.deadline {
		return "spec.activeDeadlineSeconds"
	}
	return ""
}

// subset tells whether all of some are in all.
func subset(some, all []corev1.Toleration) bool {
	for _, t := range some {
		if !slices.ContainsFunc(all, func(u corev1.Toleration) bool { return equality.Semantic.DeepEqual(t, u) }) {
			return false
		}
	}
	return true
}
