package host

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-k8s/slipway/phases/config"
)

// FactSources is where facts come from. The zero value, with Environ and Executable set, is the running machine.
type FactSources struct {
	Root       string                      // prefix of /proc, /sys, /etc and /run; "" for the machine's own
	Environ    []string                    // "NAME=value", as os.Environ returns it
	Executable string                      // absolute path of the running program
	Interfaces func() ([]Interface, error) // nil for the machine's own
}

// Interface is a network interface with its addresses, in the kernel's order.
type Interface struct {
	Name      string
	Up        bool
	Loopback  bool
	Addresses []netip.Addr
}

// GatherFacts returns what the rendered files depend on. It sends no packets, asks no DNS and needs no rights, so that
// a dry run of any user sees what init sees. Missing sources are no error, save for the host name and the interfaces.
func GatherFacts(src FactSources) (config.HostFacts, error) {
	hostname, err := os.ReadFile(src.path("/proc/sys/kernel/hostname"))
	if err != nil {
		return config.HostFacts{}, fmt.Errorf("reading the host name: %w", err)
	}
	list := src.Interfaces
	if list == nil {
		list = systemInterfaces
	}
	interfaces, err := list()
	if err != nil {
		return config.HostFacts{}, fmt.Errorf("listing network interfaces: %w", err)
	}
	routes4, _ := os.ReadFile(src.path("/proc/net/route")) // absent where the kernel lacks the family
	routes6, _ := os.ReadFile(src.path("/proc/net/ipv6_route"))
	status, _ := os.ReadFile(src.path("/proc/self/status"))

	facts := config.HostFacts{
		Hostname:         strings.TrimSpace(string(hostname)),
		DefaultAddresses: defaultAddresses(defaultInterfaces4(routes4), defaultInterfaces6(routes6), interfaces),
		ProxyEnv:         proxyVariables(src.Environ),
		CgroupDriver:     "cgroupfs",
		Systemd:          src.exists("/run/systemd/system"),
		RestrictOOMScore: !mayLowerOOMScore(string(status)),
		Executable:       src.Executable,
	}
	for _, dir := range caDirs {
		if src.exists(dir) {
			facts.CADirs = append(facts.CADirs, dir)
		}
	}
	init, _ := os.ReadFile(src.path("/proc/1/comm"))
	if strings.TrimSpace(string(init)) == "systemd" && src.exists("/sys/fs/cgroup/cgroup.controllers") {
		facts.CgroupDriver = "systemd"
	}
	if facts.Systemd && src.resolvedActive() && src.exists(resolvedConf) {
		facts.ResolvConf = resolvedConf
	}
	return facts, nil
}

// caDirs are the directories that certificates beside /etc/ssl/certs may be linked to, in kubeadm's order
// (phases/controlplane/volumes.go of v1.36.3).
var caDirs = []string{
	"/etc/pki/ca-trust", "/etc/pki/tls/certs", "/etc/ca-certificates",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
}

const resolvedConf = "/run/systemd/resolve/resolv.conf"

// resolvedActive reports whether systemd-resolved runs: the cgroup of its unit exists only then, while its files
// under /run outlive it.
func (src FactSources) resolvedActive() bool {
	return src.exists("/sys/fs/cgroup/system.slice/systemd-resolved.service") ||
		src.exists("/sys/fs/cgroup/systemd/system.slice/systemd-resolved.service")
}

func (src FactSources) path(p string) string { return filepath.Join(src.Root, p) }

func (src FactSources) exists(p string) bool {
	_, err := os.Stat(src.path(p))
	return err == nil
}

// proxyVariables keeps every *_proxy variable that has a value, as kubeadm does, by its own spelling.
func proxyVariables(environ []string) map[string]string {
	found := map[string]string{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if strings.HasSuffix(strings.ToLower(name), "_proxy") && value != "" {
			found[name] = value
		}
	}
	return found
}

// capSysResource is CAP_SYS_RESOURCE of linux/capability.h: without it an oom_score_adj can only be raised.
const capSysResource = 24

// mayLowerOOMScore reads /proc/self/status. For root the effective set decides. For others it is what root could have
// here, the bounding set, so that a dry run without rights renders what init would.
func mayLowerOOMScore(status string) bool {
	set := "CapBnd:"
	if uids := strings.Fields(statusField(status, "Uid:")); len(uids) > 1 && uids[1] == "0" {
		set = "CapEff:"
	}
	mask, err := strconv.ParseUint(statusField(status, set), 16, 64)
	return err != nil || mask&(1<<capSysResource) != 0
}

// statusField returns the value of a line of /proc/PID/status, or "".
func statusField(status, name string) string {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func systemInterfaces() ([]Interface, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var list []Interface
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		entry := Interface{Name: i.Name, Up: i.Flags&net.FlagUp != 0, Loopback: i.Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			if prefix, err := netip.ParsePrefix(a.String()); err == nil {
				entry.Addresses = append(entry.Addresses, prefix.Addr().Unmap())
			}
		}
		list = append(list, entry)
	}
	return list, nil
}

// exists keeps to Lstat, so that a dangling link counts as something that is there.
func exists(path string) (fs.FileInfo, bool) {
	info, err := os.Lstat(path)
	return info, err == nil
}

// compactSorted sorts and removes repeats, in place.
func compactSorted[T ~string](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}
