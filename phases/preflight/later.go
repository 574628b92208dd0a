package preflight

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// later is a warning about what harms no control plane, because only a kubelet or kube-proxy needs it. kubeadm refuses
// the machine for some of these.
func later(name, fix, message string, args ...any) Problem {
	p := warning(name, fix, message, args...)
	p.Later = true
	return p
}

// laterPorts are those of programs that slipway does not run: the kubelet's API and health, kube-proxy's metrics and
// health (Kubernetes v1.36.3 pkg/cluster/ports).
var laterPorts = []port{
	{10250, "a kubelet", ""}, {10248, "a kubelet", ""}, {10249, "kube-proxy", ""}, {10256, "kube-proxy", ""},
}

// checkLaterPorts only warns: nothing of the control plane listens there, and a kubelet that takes over would not start.
func checkLaterPorts(_ *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, p := range laterPorts {
		l, taken := seen.Listeners[p.number]
		if !taken || l.Ours || l.Program == "kubelet" || l.Program == "kube-proxy" {
			continue
		}
		holder := "a program that cannot be told"
		if l.PID != 0 {
			holder = fmt.Sprintf("process %d (%s)", l.PID, l.Program)
		}
		problems = append(problems, later(fmt.Sprintf("Port-%d", p.number), "move it before this node gets one",
			"port %d, which %s would need, is taken by %s at %s", p.number, p.user, holder, l.Address))
	}
	return problems
}

// laterPrograms are what a kubelet's volumes need; kubeadm refuses a machine without them.
var laterPrograms = []string{"losetup", "mount", "cp"}

func checkLaterPrograms(_ *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, name := range laterPrograms {
		if seen.Programs[name] == "" {
			problems = append(problems, later("FileExisting-"+name, "install it before this node gets a kubelet",
				"there is no %s on PATH, which a kubelet needs for volumes", name))
		}
	}
	return problems
}

// checkKubelet looks at a kubelet that is installed and not running: one that runs is an owner of this machine.
func checkKubelet(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	if unit := seen.Units[kubeletUnit]; unit.Enabled {
		problems = append(problems, warning("Service-kubelet", "turn it off with systemctl disable kubelet, until it shall take over",
			"kubelet.service is enabled: at the next boot a kubelet and slipway would both run the pods of %s", cfg.Paths.Manifests))
	}
	has, err := version.ParseSemantic(seen.KubeletVersion)
	wanted, errWanted := version.ParseSemantic(cfg.KubernetesVersion)
	if err != nil || errWanted != nil {
		return problems
	}
	// Kubernetes' version skew policy: a kubelet is as old as the API server, or up to three minor versions older.
	switch {
	case has.Minor() > wanted.Minor():
		problems = append(problems, later("KubeletVersion", "install one of "+cfg.KubernetesVersion,
			"the kubelet on PATH is v%s, newer than the control plane's %s", has, cfg.KubernetesVersion))
	case has.Minor()+3 < wanted.Minor():
		problems = append(problems, later("KubeletVersion", "install one of "+cfg.KubernetesVersion,
			"the kubelet on PATH is v%s, more than three minor versions older than the control plane's %s", has, cfg.KubernetesVersion))
	}
	return problems
}

// checkLaterKernel has what kubeadm's SystemVerification demands and only a kubelet does not do without.
func checkLaterKernel(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	if seen.CgroupVersion == 1 {
		problems = append(problems, later("SystemVerification", "boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false for the kubelet",
			"this machine has cgroups of version 1, with which a kubelet from v1.35 does not start"))
	}
	var lost []string
	for _, controller := range []string{"hugetlb", "io"} {
		v1 := map[string]string{"io": "blkio"}[controller] // its name in version 1
		if !slices.Contains(seen.Cgroups, controller) && !slices.Contains(seen.Cgroups, v1) {
			lost = append(lost, controller)
		}
	}
	if lost != nil {
		problems = append(problems, later("SystemVerification", "", "the kernel (%s) lacks the cgroup controllers %s, which some pods may want",
			seen.Kernel, strings.Join(lost, ", ")))
	}
	if value, known := seen.Sysctls[ipv6Forward]; known && value != "1" && hasIPv6(cfg) {
		problems = append(problems, later("FileContent--proc-sys-net-ipv6-conf-default-forwarding", "set it with sysctl -w "+ipv6Forward+"=1",
			"IPv6 packets between pods are not forwarded"))
	}
	if seen.Units[firewallUnit].Active {
		problems = append(problems, warning("Firewalld", fmt.Sprintf("open ports %d and 10250, as with firewall-cmd --add-port=%d/tcp", cfg.BindPort, cfg.BindPort),
			"firewalld is active: other nodes reach this one only where it lets them"))
	}
	return problems
}

func hasIPv6(cfg *config.Cluster) bool {
	for _, subnet := range cfg.PodSubnets {
		if subnet.Addr().Is6() {
			return true
		}
	}
	return false
}

// checkLeftovers only warns: slipway's own containerd shares nothing with what these are of.
func checkLeftovers(_ *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, o := range seen.Leftovers {
		if o.Name == "Docker" {
			problems = append(problems, later("Leftover", "", "Docker runs here too (%s): it sets the firewall's policy for forwarded packets to drop, which pods with a network of their own will notice", o.Evidence))
			continue
		}
		problems = append(problems, later("Leftover", fmt.Sprintf("remove what is left of %s, unless it is wanted", o.Name),
			"this machine has something of %s: %s; a kubelet here would use it", o.Name, o.Evidence))
	}
	return problems
}
