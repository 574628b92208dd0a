package preflight

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

const (
	minCPUs      = 2    // kubeadm's, v1.36.3 constants.ControlPlaneNumCPU
	minMemoryMiB = 1700 // kubeadm's, constants.ControlPlaneMem
	// minDiskMiB is etcd's default quota of 2 GiB (--quota-backend-bytes), which its database may grow to.
	minDiskMiB = 2048

	ipForward    = "net.ipv4.ip_forward"
	ipv6Forward  = "net.ipv6.conf.default.forwarding"
	kubeletUnit  = "kubelet.service"
	firewallUnit = "firewalld.service"
)

// minKernel is the oldest of kubeadm v1.36.3's list (system-validators v1.12.1). It refuses older ones and odd ones; an
// older kernel with all that containers need runs a control plane.
var minKernel = version.MustParseGeneric("5.4")

// Check returns every problem, in a fixed order, and nothing else when the user lacks the rights.
func Check(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if problems := checkPrivileges(seen); problems != nil {
		return problems
	}
	return append(checkMachine(cfg, seen), checkConfiguration(cfg)...)
}

// checkConfiguration has the checks that need no machine.
func checkConfiguration(cfg *config.Cluster) []Problem { return checkFlags(cfg) }

func checkMachine(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var all []Problem
	for _, check := range []func(*config.Cluster, *host.Inspection) []Problem{
		checkOwners, checkSize, checkVersion, checkAddress, checkPorts, checkFiles, checkPrograms, checkRuntime,
		checkImages, checkKernel, checkDisk, checkNames, checkProxy, checkClock, checkRoutes, checkEndpoint, checkHostPaths, checkExternalEtcd,
		checkKubelet, checkLaterPorts, checkLaterPrograms, checkLaterKernel, checkLeftovers,
	} {
		all = append(all, check(cfg, seen)...)
	}
	return all
}

func fatal(name, fix, message string, args ...any) Problem {
	return Problem{Name: name, Severity: Fatal, Message: fmt.Sprintf(message, args...), Fix: fix}
}

func warning(name, fix, message string, args ...any) Problem {
	return Problem{Name: name, Severity: Warning, Message: fmt.Sprintf(message, args...), Fix: fix}
}

func checkPrivileges(seen *host.Inspection) []Problem {
	if seen.EUID == 0 {
		return nil
	}
	return []Problem{fatal("IsPrivilegedUser", "run slipway as root, for example with sudo; --dry-run, diff and --root need no rights",
		"this is user %d, and only root may start a control plane", seen.EUID)}
}

func checkOwners(_ *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, o := range seen.Owners {
		problems = append(problems, fatal("Owner", fmt.Sprintf("use another machine, or remove %s from this one first", o.Name),
			"this machine belongs to %s already: %s", o.Name, o.Evidence))
	}
	return problems
}

func checkSize(_ *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	if seen.CPUs < minCPUs {
		problems = append(problems, fatal("NumCPU", "use a larger machine", "%d CPU, a control plane needs %d", seen.CPUs, minCPUs))
	}
	if seen.MemoryMiB < minMemoryMiB {
		problems = append(problems, fatal("Mem", "use a larger machine", "%d MB of memory, a control plane needs %d MB", seen.MemoryMiB, minMemoryMiB))
	}
	return problems
}

// checkVersion only compares patch levels: Load refuses minor versions that slipway does not know.
func checkVersion(cfg *config.Cluster, _ *host.Inspection) []Problem {
	wanted, err := version.ParseSemantic(cfg.KubernetesVersion)
	known := version.MustParseSemantic(config.DefaultKubernetesVersion)
	if err != nil || !known.LessThan(wanted) {
		return nil
	}
	return []Problem{warning("KubernetesVersion", "", "%s is newer than %s, the newest that this slipway was tested with", cfg.KubernetesVersion, config.DefaultKubernetesVersion)}
}

func checkAddress(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if slices.Contains(seen.Addresses, cfg.AdvertiseAddress) {
		return nil
	}
	var others []string
	for _, a := range seen.Addresses {
		if a.IsGlobalUnicast() {
			others = append(others, a.String())
		}
	}
	fix := "choose one with --apiserver-advertise-address"
	if others == nil {
		fix = "give an interface a global address"
	}
	return []Problem{fatal("AdvertiseAddress", fix, "the advertise address %s is not on this machine, which has %s",
		cfg.AdvertiseAddress, orNone(strings.Join(others, ", ")))}
}

func orNone(list string) string {
	if list == "" {
		return "none"
	}
	return list
}

func checkPorts(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, p := range ports(cfg) {
		l, taken := seen.Listeners[p.number]
		if !taken || l.Ours {
			continue
		}
		holder, end := "a program that cannot be told", "find it with ss -ltnp and end it"
		if l.PID != 0 {
			holder, end = fmt.Sprintf("process %d (%s)", l.PID, l.Program), fmt.Sprintf("end process %d", l.PID)
		}
		problems = append(problems, fatal(fmt.Sprintf("Port-%d", p.number), fmt.Sprintf("%s, or choose another port with %s", end, p.option),
			"port %d, which %s needs, is taken by %s at %s", p.number, p.user, holder, l.Address))
	}
	return problems
}

// checkFiles refuses what an init would overwrite. What slipway recorded as its own is a former init that continues.
func checkFiles(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	ours := false
	for _, path := range manifests(cfg) {
		at := seen.Paths[path]
		ours = ours || at.Ours
		if at.Exists && !at.Ours {
			problems = append(problems, fatal("FileAvailable-"+dashed(path), "move it away",
				"%s exists, and slipway did not write it", path))
		}
	}
	if cfg.Etcd.Local == nil {
		return problems
	}
	data := cfg.Etcd.Local.DataDir
	if at := seen.Paths[data]; at.Exists && !at.Ours && !ours && !(at.Dir && at.Empty) {
		problems = append(problems, fatal("DirAvailable-"+dashed(data), "move it away, or choose another one with etcd.local.dataDir",
			"%s is not empty, and slipway did not fill it", data))
	}
	return problems
}

// dashed is how kubeadm makes a check's name of a path.
func dashed(path string) string { return strings.ReplaceAll(path, "/", "-") }

func checkPrograms(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if cfg.CRISocket != "" {
		return nil
	}
	var problems []Problem
	for _, program := range []struct{ name, pack string }{
		{"containerd", "containerd"}, {"containerd-shim-runc-v2", "containerd"}, {"runc", "runc"},
	} {
		if seen.Programs[program.name] == "" {
			problems = append(problems, fatal("FileExisting-"+program.name,
				fmt.Sprintf("install it, with apt-get install %[1]s or dnf install %[1]s, or use a running runtime with --cri-socket", program.pack),
				"there is no %s on PATH", program.name))
		}
	}
	return problems
}

// checkRuntime looks at a runtime that the user brings. With different cgroup drivers two managers would write the same
// cgroups, and pods die at the next reload of one of them.
func checkRuntime(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if cfg.CRISocket == "" {
		return nil
	}
	r := seen.Runtime
	if r.Err != "" {
		return []Problem{fatal("CRI", "start it, or leave out --cri-socket to use slipway's own containerd",
			"the container runtime at %s does not answer: %s", cfg.CRISocket, r.Err)}
	}
	if r.CgroupDriver == "" {
		return []Problem{warning("ContainerRuntimeVersion", "make sure that it is "+cgroupDriver(cfg)+", or take a newer runtime",
			"%s %s does not tell its cgroup driver", r.Name, r.Version)}
	}
	if wanted := cgroupDriver(cfg); r.CgroupDriver != wanted {
		return []Problem{fatal("ContainerRuntimeVersion", fmt.Sprintf("add a KubeletConfiguration with cgroupDriver: %s to the --config file, or configure the runtime", r.CgroupDriver),
			"%s %s uses the cgroup driver %s, the pods would use %s", r.Name, r.Version, r.CgroupDriver, wanted)}
	}
	return nil
}

// cgroupDriver is the user's, or the machine's.
func cgroupDriver(cfg *config.Cluster) string {
	var kubelet struct {
		CgroupDriver string `json:"cgroupDriver"`
	}
	if json.Unmarshal(cfg.Kubelet, &kubelet) == nil && kubelet.CgroupDriver != "" {
		return kubelet.CgroupDriver
	}
	return cfg.Facts.CgroupDriver
}

func checkImages(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if len(seen.MissingImages) == 0 {
		return nil
	}
	return []Problem{fatal("ImagePull", host.BringImages(cfg.Paths.ImageArchives),
		"missing images: %s (%s)", strings.Join(seen.MissingImages, ", "), seen.RegistryErr)}
}

func checkKernel(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	var lost []string
	for _, controller := range []string{"cpu", "cpuset", "devices", "freezer", "memory", "pids"} {
		if !slices.Contains(seen.Cgroups, controller) {
			lost = append(lost, controller)
		}
	}
	if lost != nil {
		problems = append(problems, fatal("SystemVerification", "enable them on the kernel's command line, for example with cgroup_enable=memory",
			"the kernel (%s) lacks the cgroup controllers %s", seen.Kernel, strings.Join(lost, ", ")))
	}
	if seen.KernelLacks != nil {
		problems = append(problems, fatal("SystemVerification", "boot a kernel that has them",
			"the kernel (%s) was built without %s, which containers need", seen.Kernel, strings.Join(seen.KernelLacks, ", ")))
	}
	if v, err := version.ParseGeneric(seen.Kernel); err == nil && v.LessThan(minKernel) {
		problems = append(problems, warning("SystemVerification", "boot a newer kernel", "the kernel %s is older than %s, the oldest that Kubernetes is tested with", seen.Kernel, minKernel))
	}
	if seen.Swap {
		problems = append(problems, warning("Swap", "turn it off with swapoff -a, or set memorySwap in the KubeletConfiguration",
			"swap is on: memory limits of pods will not hold"))
	}
	// Only pods with a network of their own need it, and the control plane has none: no reason to stop here.
	if value, known := seen.Sysctls[ipForward]; known && value != "1" && len(cfg.PodSubnets) > 0 {
		problems = append(problems, warning("FileContent--proc-sys-net-ipv4-ip_forward", "set it with sysctl -w "+ipForward+"=1",
			"packets between pods are not forwarded"))
	}
	return problems
}

func checkDisk(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if cfg.Etcd.Local == nil || seen.DiskFreeMiB < 0 || seen.DiskFreeMiB >= minDiskMiB {
		return nil
	}
	return []Problem{warning("DiskSpace", "make room", "%d MB are free for %s, and etcd's database may grow to %d MB",
		seen.DiskFreeMiB, cfg.Etcd.Local.DataDir, minDiskMiB)}
}

func checkNames(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if seen.HostnameOK {
		return nil
	}
	return []Problem{warning("Hostname", fmt.Sprintf("add a line %q", cfg.AdvertiseAddress.String()+" "+cfg.NodeName),
		"the node name %q is not in /etc/hosts: a kubelet would look it up in DNS", cfg.NodeName)}
}

// checkProxy finds cluster traffic that the proxy variables would send out of the cluster.
func checkProxy(cfg *config.Cluster, _ *host.Inspection) []Problem {
	var problems []Problem
	if proxy := proxyFor(cfg.Facts.ProxyEnv, cfg.AdvertiseAddress); proxy != "" {
		problems = append(problems, warning("HTTPProxy", fmt.Sprintf("add %s to no_proxy", cfg.AdvertiseAddress),
			"connections to the API server at %s would go through the proxy %s", cfg.AdvertiseAddress, proxy))
	}
	for _, subnet := range append(slices.Clone(cfg.ServiceSubnets), cfg.PodSubnets...) {
		if proxy := proxyFor(cfg.Facts.ProxyEnv, firstHost(subnet)); proxy != "" {
			problems = append(problems, warning("HTTPProxyCIDR", fmt.Sprintf("add %s to no_proxy", subnet),
				"connections to %s would go through the proxy %s", subnet, proxy))
		}
	}
	return problems
}

func firstHost(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// Standing returns what is wrong with a machine whose control plane exists: the checks that still mean something then.
// It runs despite a small machine, so its size is no more than a warning; cfg is what runs.
func Standing(cfg *config.Cluster, seen *host.Inspection) []Problem {
	if problems := checkPrivileges(seen); problems != nil {
		return problems
	}
	small := checkSize(cfg, seen)
	for i := range small {
		small[i].Severity = Warning
	}
	outside := *cfg
	outside.PodSubnets = nil // routes to pods are now the pods' own
	return slices.Concat(small, checkOwners(cfg, seen), checkVersion(cfg, seen), checkAddress(cfg, seen), checkPorts(cfg, seen), checkPrograms(cfg, seen),
		checkKernel(cfg, seen), checkDisk(cfg, seen), checkNames(cfg, seen), checkClock(cfg, seen), checkRoutes(&outside, seen), checkEndpoint(cfg, seen),
		checkKubelet(cfg, seen), checkLaterPorts(cfg, seen), checkLaterPrograms(cfg, seen), checkLaterKernel(cfg, seen), checkLeftovers(cfg, seen),
		checkConfiguration(cfg))
}

// StandingQuestion is Question without what only an init asks for.
func StandingQuestion(cfg *config.Cluster) host.Query {
	q := Question(cfg)
	q.Images, q.Archives, q.Socket, q.Etcd = nil, "", "", host.ExternalEtcd{}
	return q
}

// Ignore turns the errors of the checks that are named into warnings.
func Ignore(problems []Problem, ignored []string) []Problem {
	for i, p := range problems {
		if ignores(ignored, p.Name) {
			problems[i].Severity = Warning
		}
	}
	return problems
}
