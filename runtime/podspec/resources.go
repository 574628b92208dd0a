package podspec

import (
	"cmp"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
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

// containerResources follows Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container_linux.go:128.
func containerResources(pod *corev1.Pod, c *corev1.Container, n Node) *runtimeapi.LinuxContainerResources {
	limits := c.Resources.Limits
	out := linuxResources(quantity(c.Resources.Requests, corev1.ResourceCPU), limits[corev1.ResourceCPU], limits[corev1.ResourceMemory], n)
	out.OomScoreAdj = OOMScoreAdj(pod, c, n.MemoryCapacity)
	for _, size := range n.HugePageSizes {
		out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: hugePageLimit(limits, size)})
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
func hugePageLimit(limits corev1.ResourceList, size string) uint64 {
	for name, q := range limits {
		if page, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok && strings.TrimSuffix(page, "i")+"B" == size {
			return uint64(q.Value())
		}
	}
	return 0
}

func sandboxResources(pod *corev1.Pod, n Node) *runtimeapi.LinuxContainerResources {
	requests, limits := total(pod, requestsOf), total(pod, limitsOf)
	return linuxResources(quantity(requests, corev1.ResourceCPU), limits[corev1.ResourceCPU], limits[corev1.ResourceMemory], n)
}

func quantity(list corev1.ResourceList, name corev1.ResourceName) *resource.Quantity {
	if q, ok := list[name]; ok {
		return &q
	}
	return nil
}

func requestsOf(c *corev1.Container) corev1.ResourceList { return c.Resources.Requests }
func limitsOf(c *corev1.Container) corev1.ResourceList   { return c.Resources.Limits }

// total is what a pod needs at most at any moment: its containers and sidecars together, or one init container with
// the sidecars that precede it.
func total(pod *corev1.Pod, of func(*corev1.Container) corev1.ResourceList) corev1.ResourceList {
	sum, sidecars, peak := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	for i := range pod.Spec.Containers {
		add(sum, of(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if isSidecar(pod, c) {
			add(sum, of(c))
			add(sidecars, of(c))
			raise(peak, sidecars)
			continue
		}
		now := corev1.ResourceList{}
		add(now, sidecars)
		add(now, of(c))
		raise(peak, now)
	}
	raise(sum, peak)
	return sum
}

func add(sum, more corev1.ResourceList) {
	for name, q := range more {
		have := sum[name].DeepCopy()
		have.Add(q)
		sum[name] = have
	}
}

func raise(sum, floor corev1.ResourceList) {
	for name, q := range floor {
		if have, ok := sum[name]; !ok || have.Cmp(q) < 0 {
			sum[name] = q.DeepCopy()
		}
	}
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

// QOSClass is the pod's quality of service; only cpu and memory count.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := true
	for c := range containers(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if q, ok := c.Resources.Requests[name]; ok && !q.IsZero() {
				add(requests, corev1.ResourceList{name: q})
			}
			if q, ok := c.Resources.Limits[name]; ok && !q.IsZero() {
				add(limits, corev1.ResourceList{name: q})
			} else {
				guaranteed = false
			}
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
	request := c.Resources.Requests.Memory().Value()
	if isSidecar(pod, c) {
		least := int64(math.MaxInt64)
		for i := range pod.Spec.Containers {
			least = min(least, pod.Spec.Containers[i].Resources.Requests.Memory().Value())
		}
		request = max(request, least)
	}
	adj := int64(bestEffort)
	if memory > 0 {
		adj = 1000 - 1000*min(request, memory)/memory
	}
	return min(max(adj, 1000+guaranteed), bestEffort-1)
}
