package manifest

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Peak is what the containers of a pod have together at most at any moment, by what of tells of each: its containers
// and sidecars, or one init container with the sidecars that precede it. Nothing of it is shared with the pod.
func Peak(pod *corev1.Pod, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	sum, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		addResources(sum, of(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if restartable(c) {
			addResources(sum, of(c))
			addResources(sidecars, of(c))
			raiseResources(peak, sidecars)
			continue
		}
		now := corev1.ResourceList{}
		addResources(now, sidecars)
		addResources(now, of(c))
		raiseResources(peak, now)
	}
	raiseResources(sum, peak)
	return sum
}

func addResources(sum, more corev1.ResourceList) {
	for name, q := range more {
		have := sum[name].DeepCopy()
		have.Add(q)
		sum[name] = have
	}
}

func raiseResources(sum, floor corev1.ResourceList) {
	for name, q := range floor {
		if have, ok := sum[name]; !ok || have.Cmp(q) < 0 {
			sum[name] = q.DeepCopy()
		}
	}
}

func requestsOf(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limitsOf(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// HugePage returns the page size, in bytes, of a resource such as hugepages-2Mi, or of an emptyDir's medium such as
// HugePages-2Mi; false when the name is of neither kind.
func HugePage(name string) (bytes int64, ok bool) {
	for _, prefix := range []string{corev1.ResourceHugePagesPrefix, string(corev1.StorageMediumHugePagesPrefix)} {
		if size, found := strings.CutPrefix(name, prefix); found {
			q, err := resource.ParseQuantity(size)
			return q.Value(), err == nil && q.Sign() > 0
		}
	}
	return 0, false
}

// ofWholePod tells whether a resource can be set for a pod as a whole.
func ofWholePod(name corev1.ResourceName) bool {
	return name == corev1.ResourceCPU || name == corev1.ResourceMemory || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// defaultPodResources completes resources of the whole pod that are set in part: huge pages have the containers' limits,
// cpu and memory their requests, and what is requested nowhere is requested as it is limited. Kubernetes v1.36.3
// pkg/apis/core/v1/defaults.go:433.
func defaultPodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil || len(r.Limits)+len(r.Requests) == 0 {
		return
	}
	for name, q := range Peak(pod, limitsOf) {
		_, limited := r.Limits[name]
		_, requested := r.Requests[name]
		if strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) && !limited && !requested {
			setResource(&r.Limits, name, q)
		}
	}
	if len(r.Limits) == 0 {
		return
	}
	for name, q := range Peak(pod, requestsOf) {
		if _, ok := r.Requests[name]; !ok && (name == corev1.ResourceCPU || name == corev1.ResourceMemory) {
			setResource(&r.Requests, name, q)
		}
	}
	for name, q := range r.Limits {
		if _, ok := r.Requests[name]; !ok && ofWholePod(name) {
			setResource(&r.Requests, name, q.DeepCopy())
		}
	}
}

func setResource(list *corev1.ResourceList, name corev1.ResourceName, q resource.Quantity) {
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = q
}
