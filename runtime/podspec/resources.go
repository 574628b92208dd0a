package podspec

import (
	"cmp"
	"maps"
	"math"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// The kernel's bounds. Kubernetes v1.36.3 pkg/kubelet/cm/helpers_linux.go:40.
const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000 // µs
)

// cpuShares converts CPU to the weight of cgroup v1; runtimes convert it further for v2.
func cpuShares(milli int64) int64 {
	return min(max(milli*1024/1000, minShares), maxShares)
}

// cpuQuota is how many µs of each period a limit allows; 0 is no limit.
func cpuQuota(milli int64, period time.Duration) int64 {
	if milli == 0 {
		return 0
	}
	return max(milli*period.Microseconds()/1000, minQuota)
}

func (n Node) quotaPeriod() time.Duration { return cmp.Or(n.CPUCFSQuotaPeriod, 100*time.Millisecond) }

// linuxResources is what containers and sandboxes have in common. request is nil where nobody set one.
func linuxResources(request *resource.Quantity, cpuLimit, memoryLimit resource.Quantity, n Node) *runtimeapi.LinuxContainerResources {
	share := cpuLimit
	if request != nil {
		share = *request
	}
	out := &runtimeapi.LinuxContainerResources{CpuShares: cpuShares(share.MilliValue()), MemoryLimitInBytes: memoryLimit.Value()}
	if n.CPUCFSQuota {
		out.CpuPeriod = n.quotaPeriod().Microseconds()
		out.CpuQuota = cpuQuota(cpuLimit.MilliValue(), n.quotaPeriod())
	}
	if n.CgroupV2 && !n.SingleProcessOOMKill {
		out.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return out
}

// containerResources follows Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container_linux.go:128. A container
// without a limit of its own has the pod's.
func containerResources(pod *corev1.Pod, c *corev1.Container, n Node) *runtimeapi.LinuxContainerResources {
	own, whole := c.Resources.Limits, podResources(pod).Limits
	limit := func(name corev1.ResourceName) resource.Quantity {
		if q := own[name]; !q.IsZero() {
			return q
		}
		return whole[name]
	}
	out := linuxResources(quantity(c.Resources.Requests, corev1.ResourceCPU), limit(corev1.ResourceCPU), limit(corev1.ResourceMemory), n)
	out.OomScoreAdj = OOMScoreAdj(pod, c, n.MemoryCapacity)
	for _, size := range n.HugePageSizes {
		bytes, ok := hugePageLimit(own, size)
		if !ok {
			bytes, _ = hugePageLimit(whole, size)
		}
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: bytes})
	}
	if n.SwapController { // static pods are critical, and critical pods do not swap
		if n.CgroupV2 {
			if out.Unified == nil {
				out.Unified = map[string]string{}
			}
			out.Unified["memory.swap.max"] = "0"
		} else {
			out.MemorySwapLimitInBytes = out.MemoryLimitInBytes // memory and swap together: none beyond the memory
		}
	}
	return out
}

// hugePageLimit finds the limit of a page size: "2MB" is the resource hugepages-2Mi.
func hugePageLimit(limits corev1.ResourceList, size string) (bytes uint64, ok bool) {
	for name, q := range limits {
		if page, huge := manifest.HugePage(string(name)); huge && pageSizeName(page) == size {
			return uint64(q.Value()), true
		}
	}
	return 0, false
}

// pageSizeName is a page size as the kernel and the runtime name it.
func pageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	i := 0
	for ; bytes >= 1024 && bytes%1024 == 0 && i < len(units)-1; i++ {
		bytes /= 1024
	}
	return strconv.FormatInt(bytes, 10) + units[i]
}

func sandboxResources(pod *corev1.Pod, n Node) *runtimeapi.LinuxContainerResources {
	requests, limits := podRequests(pod), podLimits(pod)
	return linuxResources(quantity(requests, corev1.ResourceCPU), limits[corev1.ResourceCPU], limits[corev1.ResourceMemory], n)
}

// overheadResources are what the runtime's own processes for the pod take: requested and limited alike.
func overheadResources(pod *corev1.Pod, n Node) *runtimeapi.LinuxContainerResources {
	o := pod.Spec.Overhead
	if o == nil {
		return &runtimeapi.LinuxContainerResources{}
	}
	cpu := o[corev1.ResourceCPU]
	return linuxResources(&cpu, cpu, o[corev1.ResourceMemory], n)
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

// podResources are those of the pod as a whole; none is the zero value.
func podResources(pod *corev1.Pod) corev1.ResourceRequirements {
	if pod.Spec.Resources == nil {
		return corev1.ResourceRequirements{}
	}
	return *pod.Spec.Resources
}

// podRequests and podLimits are what the pod as a whole has, without its overhead: what it says itself, else what its
// containers have together. Nothing of them is shared with the pod. Kubernetes v0.36.3 component-helpers/resource/helpers.go.
func podRequests(pod *corev1.Pod) corev1.ResourceList {
	sum := manifest.Peak(pod, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
	maps.Copy(sum, podResources(pod).Requests)
	return sum
}

func podLimits(pod *corev1.Pod) corev1.ResourceList {
	sum := manifest.Peak(pod, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Limits })
	maps.Copy(sum, podResources(pod).Limits)
	return sum
}

// withOverhead adds the pod's overhead to what is counted in sum; to what is not limited nothing is added.
func withOverhead(pod *corev1.Pod, sum corev1.ResourceList, limits bool) corev1.ResourceList {
	for name, more := range pod.Spec.Overhead {
		have, counted := sum[name]
		if limits && (!counted || have.IsZero()) {
			continue
		}
		have = have.DeepCopy()
		have.Add(more)
		sum[name] = have
	}
	return sum
}

func isSidecar(pod *corev1.Pod, c *corev1.Container) bool {
	if c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		return false
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			return true
		}
	}
	return false
}

// QOSClass is the pod's quality of service; only cpu and memory count. Resources of the pod as a whole count alone.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := true
	count := func(r *corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if q, ok := r.Requests[name]; ok && !q.IsZero() {
				sum := requests[name].DeepCopy()
				sum.Add(q)
				requests[name] = sum
			}
			if q, ok := r.Limits[name]; ok && !q.IsZero() {
				sum := limits[name].DeepCopy()
				sum.Add(q)
				limits[name] = sum
			} else {
				guaranteed = false
			}
		}
	}
	if pod.Spec.Resources != nil {
		count(pod.Spec.Resources)
	} else {
		for c := range containers(pod) {
			count(&c.Resources)
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	for name, limit := range limits {
		if request, ok := requests[name]; !ok || request.Cmp(limit) != 0 {
			guaranteed = false
		}
	}
	if guaranteed {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// OOMScoreAdj is how readily the kernel kills a container when memory runs out, -1000 never to 1000 first. memory is
// the host's, in bytes. Kubernetes v1.36.3 pkg/kubelet/qos/policy.go:45.
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, memory int64) int64 {
	const guaranteed, bestEffort = -997, 1000
	// A static pod is critical by definition, so the class alone makes it node-critical.
	if pod.Spec.PriorityClassName == "system-node-critical" {
		return guaranteed
	}
	switch QOSClass(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteed
	case corev1.PodQOSBestEffort:
		return bestEffort
	}
	// What the pod requests beyond its containers is shared out among them.
	var share int64
	if whole := podResources(pod).Requests; !whole.Memory().IsZero() {
		parts := manifest.Peak(pod, func(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests })
		share = (whole.Memory().Value() - parts.Memory().Value()) / int64(len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
	}
	request := c.Resources.Requests.Memory().Value()
	if isSidecar(pod, c) {
		least := int64(math.MaxInt64)
		for i := range pod.Spec.Containers {
			least = min(least, pod.Spec.Containers[i].Resources.Requests.Memory().Value())
		}
		request = max(request, least)
	}
	request += share
	adj := int64(bestEffort)
	if memory > 0 {
		adj = 1000 - 1000*min(request, memory)/memory
	}
	return min(max(adj, 1000+guaranteed), bestEffort-1)
}
