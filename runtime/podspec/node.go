// Package podspec turns a static pod into what the container runtime is told to run.
//
// Everything here is a pure function of the pod and a Node: what must exist on the host comes back as data (Layout),
// and what this version cannot do comes back by name (Unsupported).
package podspec

import (
	"net/netip"
	"time"
)

// Node is what the conversion needs to know of its host. Every value was read by the caller.
type Node struct {
	Name     string
	Instance string // which slipway on this host; written on each sandbox
	// HostIPs are the node's addresses, the preferred one first.
	HostIPs []netip.Addr

	KubeletRoot string // pod directories are made below it; /var/lib/kubelet
	PodLogsDir  string // /var/log/pods
	// ContainerLogsDir holds one symlink per container for log collectors; /var/log/containers. Empty for none.
	ContainerLogsDir string

	CgroupDriver string // "cgroupfs" or "systemd"
	CgroupRoot   string // the kubelet's cgroupRoot: "" or "/" for the top
	CgroupV2     bool
	// SwapController says that the kernel counts swap per cgroup; containers then get none.
	SwapController bool
	// SingleProcessOOMKill false, the default on cgroup v2, has the kernel kill a container as a whole.
	SingleProcessOOMKill bool
	HugePageSizes        []string // as the kernel and the runtime name them: "2MB", "1GB"

	CPUs              int64 // of the host, for limits.cpu of a container without one
	MemoryCapacity    int64 // bytes, for the OOM score and for limits.memory
	EphemeralStorage  int64 // bytes of the file system of KubeletRoot, for limits.ephemeral-storage; 0: not known
	CPUCFSQuota       bool
	CPUCFSQuotaPeriod time.Duration // 0 means 100 ms
	PodPidsLimit      int64         // 0 or less means none

	SeccompDefault bool // RuntimeDefault instead of Unconfined where the pod says nothing
	// MaskedPaths are hidden in addition to the fixed ones: the /sys/devices/system/cpu/cpuN/thermal_throttle that
	// exist on this host.
	MaskedPaths []string

	// Labels are those of the Node object, as the kubelet's --node-labels; kubernetes.io/os, /arch and /hostname are known
	// without them.
	Labels map[string]string
	// AllowedUnsafeSysctls is the kubelet's list: names, or prefixes that end in "*".
	AllowedUnsafeSysctls []string

	// RuntimeHandlers are the names that spec.runtimeClassName can take: the runtime's handlers. nil means that they are
	// not known, and then none is refused.
	RuntimeHandlers []string
	// RecursiveReadOnlyMounts says that the runtime's handlers can make a mount and all below it read-only.
	RecursiveReadOnlyMounts bool
	// ImageVolumes says that the runtime mounts images as volumes: containerd from 2.1.
	ImageVolumes bool
	// SupplementalGroupsPolicy says that the runtime can leave the groups of the image's /etc/group out.
	SupplementalGroupsPolicy bool
	// StopSignals says that the runtime takes the signal that ends a container from who makes it: containerd does in 2.4.
	// It has no way to tell.
	StopSignals bool
	// SELinux says that the host labels files: the pod's own volumes and files are then relabelled for its containers.
	SELinux bool

	ClusterDNS    []string
	ClusterDomain string
	HostDNS       DNS    // from the kubelet's resolvConf
	HostsFile     []byte // the host's /etc/hosts
}

// DNS is a resolver's configuration.
type DNS struct {
	Servers, Searches, Options []string
}
