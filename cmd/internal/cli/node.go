package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/garbage"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// readKubeletConfig reads and strictly decodes a KubeletConfiguration.
func readKubeletConfig(path string) (*kubeletv1beta1.KubeletConfiguration, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("reading the KubeletConfiguration: %s does not exist", path), "name the file with --config, or write it with: slipway init phase kubelet-config")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the KubeletConfiguration: %w", err)
	}
	c, err := kubeletconfig.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// nodeOf gathers what the conversion of pods needs to know of this host.
func nodeOf(c *kubeletv1beta1.KubeletConfiguration, name, instance string, v2 bool, paths config.Paths, facts config.HostFacts) (podspec.Node, error) {
	resolv := cmp.Or(deref(c.ResolverConfig), "/etc/resolv.conf")
	dns, err := os.ReadFile(resolv)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return podspec.Node{}, fmt.Errorf("reading the host's DNS configuration: %w", err)
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return podspec.Node{}, fmt.Errorf("reading the hosts file: %w", err)
	}
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return podspec.Node{}, fmt.Errorf("asking for the memory of this machine: %w", err)
	}
	n := podspec.Node{
		Name: name, Instance: instance, HostIPs: facts.DefaultAddresses,
		KubeletRoot: paths.Kubelet, PodLogsDir: cmp.Or(c.PodLogsDir, paths.PodLogs), ContainerLogsDir: paths.ContainerLogs,
		CgroupDriver: cmp.Or(c.CgroupDriver, "cgroupfs"), CgroupRoot: c.CgroupRoot, CgroupV2: v2,
		MemoryCapacity: int64(memory.Totalram) * int64(memory.Unit), CPUCFSQuota: c.CPUCFSQuota == nil || *c.CPUCFSQuota,
		SeccompDefault:       c.SeccompDefault != nil && *c.SeccompDefault,
		AllowedUnsafeSysctls: c.AllowedUnsafeSysctls,
		ClusterDNS:           c.ClusterDNS, ClusterDomain: c.ClusterDomain, HostDNS: podspec.ParseResolvConf(dns), HostsFile: hosts,
	}
	// Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container_linux.go: a swap limit is set only where the
	// kernel counts swap per cgroup.
	n.SwapController = v2 && exists("/sys/fs/cgroup/kubepods/memory.swap.max")
	n.CPUs = int64(runtime.NumCPU())
	sys := os.DirFS("/sys")
	if countsHugePages(sys, v2) {
		if n.HugePageSizes, err = hugePageSizes(sys); err != nil {
			return podspec.Node{}, err
		}
	}
	if n.MaskedPaths, err = throttlePaths(sys); err != nil {
		return podspec.Node{}, err
	}
	disk, err := garbage.FileSystem(nearestDir(paths.Kubelet))
	if err != nil {
		return podspec.Node{}, err
	}
	n.EphemeralStorage = int64(disk.Capacity)
	n.SELinux = exists("/sys/fs/selinux/enforce")
	if c.CPUCFSQuotaPeriod != nil {
		n.CPUCFSQuotaPeriod = c.CPUCFSQuotaPeriod.Duration
	}
	if c.PodPidsLimit != nil {
		n.PodPidsLimit = *c.PodPidsLimit
	}
	if c.SingleProcessOOMKill != nil {
		n.SingleProcessOOMKill = *c.SingleProcessOOMKill
	}
	return n, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }
