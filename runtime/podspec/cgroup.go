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

// PodCgroup is what the pod's own cgroup holds its containers to together. A limit counts only if every container has
// one. Kubernetes v1.36.3 pkg/kubelet/cm/helpers_linux.go:121.
func PodCgroup(pod *corev1.Pod, n Node) CgroupResources {
	class := QOSClass(pod)
	requests, limits := total(pod, requestsOf), total(pod, limitsOf)
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
	cpu, memory := true, true
	for c := range containers(pod) {
		cpu = cpu && !c.Resources.Limits.Cpu().IsZero()
		memory = memory && !c.Resources.Limits.Memory().IsZero()
	}
	if cpu && n.CPUCFSQuota {
		quota, period := cpuQuota(limits.Cpu().MilliValue(), n.quotaPeriod()), n.quotaPeriod().Microseconds()
		out.CPUQuota, out.CPUPeriod = &quota, &period
	}
	if memory {
		limit := limits.Memory().Value()
		out.Memory = &limit
	}
	return out
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
				requests := total(pod, requestsOf)
				milli += requests.Cpu().MilliValue()
			}
		}
		shares = cpuShares(milli)
	}
	return parent, CgroupResources{CPUShares: &shares}
}
