package podspec

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// CgroupParent is the cgroup of a pod, as a path below the cgroup mount, for either driver. Kubernetes v1.36.3
// pkg/kubelet/cm/pod_container_manager_linux.go:112.
func CgroupParent(pod *corev1.Pod, n Node) string {
	return cgroupPath(append(qosCgroup(QOSClass(pod), n), "pod"+string(pod.UID)), n)
}

// CgroupParents are the paths that the cgroup of a pod with that uid may have, one for each quality of service.
func CgroupParents(uid string, n Node) []string {
	var out []string
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSBurstable, corev1.PodQOSGuaranteed, corev1.PodQOSBestEffort} {
		out = append(out, cgroupPath(append(qosCgroup(class, n), "pod"+uid), n))
	}
	return out
}

// QOSCgroups are the cgroups above the pods', the deepest first: what may be removed once no pod is left.
func QOSCgroups(n Node) []string {
	return []string{
		cgroupPath(qosCgroup(corev1.PodQOSBurstable, n), n),
		cgroupPath(qosCgroup(corev1.PodQOSBestEffort, n), n),
		cgroupPath(qosCgroup(corev1.PodQOSGuaranteed, n), n),
	}
}

// qosCgroup is the cgroup of a class, as the list of its names from the top.
func qosCgroup(class corev1.PodQOSClass, n Node) []string {
	names := strings.FieldsFunc(n.CgroupRoot, func(r rune) bool { return r == '/' })
	names = append(names, "kubepods")
	if class != corev1.PodQOSGuaranteed {
		names = append(names, strings.ToLower(string(class)))
	}
	return names
}

// cgroupPath writes names as a path. systemd repeats the parents in each slice's name, and its '-' separates them, so
// that one in a name becomes '_'.
func cgroupPath(names []string, n Node) string {
	if n.CgroupDriver != "systemd" {
		return path.Join("/", path.Join(names...))
	}
	out, prefix := "/", ""
	for _, name := range names {
		prefix += strings.ReplaceAll(name, "-", "_")
		out = path.Join(out, prefix+".slice")
		prefix += "-"
	}
	return out
}

// CgroupResources are the limits of a whole pod, or of all pods of a class. A nil pointer leaves the kernel's value.
type CgroupResources struct {
	CPUShares *int64
	CPUQuota  *int64 // µs per CPUPeriod; 0 is no limit
	CPUPeriod *int64 // µs
	Memory    *int64 // bytes; 0 is no limit
	PIDs      *int64
}

// PodCgroup is what the pod's own cgroup holds its containers to together. Of the containers' limits one counts only if
// every container has it. Kubernetes v1.36.3 pkg/kubelet/cm/helpers_linux.go:121.
func PodCgroup(pod *corev1.Pod, n Node) CgroupResources {
	class := QOSClass(pod)
	requests := withOverhead(pod, podRequests(pod), false)
	shares := int64(minShares)
	if class != corev1.PodQOSBestEffort {
		shares = cpuShares(requests.Cpu().MilliValue())
	}
	out := CgroupResources{CPUShares: &shares}
	if n.PodPidsLimit > 0 {
		out.PIDs = &n.PodPidsLimit
	}
	if class == corev1.PodQOSBestEffort {
		return out
	}
	limits := withOverhead(pod, podLimits(pod), true)
	if limitedAsWhole(pod, corev1.ResourceCPU) && n.CPUCFSQuota {
		quota, period := cpuQuota(limits.Cpu().MilliValue(), n.quotaPeriod()), n.quotaPeriod().Microseconds()
		out.CPUQuota, out.CPUPeriod = &quota, &period
	}
	if limitedAsWhole(pod, corev1.ResourceMemory) {
		limit := limits.Memory().Value()
		out.Memory = &limit
	}
	return out
}

// limitedAsWhole tells whether there is a limit for all of the pod: its own, or one of each container.
func limitedAsWhole(pod *corev1.Pod, name corev1.ResourceName) bool {
	if q := podResources(pod).Limits[name]; !q.IsZero() {
		return true
	}
	for c := range containers(pod) {
		if q := c.Resources.Limits[name]; q.IsZero() {
			return false
		}
	}
	return true
}

// QOSCgroup is the cgroup of a class for the pods that run at present: burstable pods together get what they ask for,
// best-effort ones the least there is.
func QOSCgroup(class corev1.PodQOSClass, pods []*corev1.Pod, n Node) (parent string, r CgroupResources) {
	parent = cgroupPath(qosCgroup(class, n), n)
	shares := int64(minShares)
	switch class {
	case corev1.PodQOSGuaranteed:
		return parent, CgroupResources{}
	case corev1.PodQOSBurstable:
		var milli int64
		for _, pod := range pods {
			if QOSClass(pod) == class {
				requests := withOverhead(pod, podRequests(pod), false)
				milli += requests.Cpu().MilliValue()
			}
		}
		shares = cpuShares(milli)
	}
	return parent, CgroupResources{CPUShares: &shares}
}
