package host

import (
	"path/filepath"
	"strings"
)

// UnitState is what the files of systemd say of a unit. Nobody is asked, so that a hung systemd is no obstacle.
type UnitState struct {
	Installed bool // there is a unit file
	Enabled   bool // a target wants it
	Active    bool // its cgroup is there, which is so only while it runs
}

func (i inspector) unitState(name string) UnitState {
	any := func(patterns ...string) bool {
		for _, p := range patterns {
			if matches, _ := filepath.Glob(i.path(p)); len(matches) > 0 { // the only error is of a pattern, and those are ours
				return true
			}
		}
		return false
	}
	return UnitState{
		Installed: any("/etc/systemd/system/"+name, "/usr/lib/systemd/system/"+name, "/lib/systemd/system/"+name),
		Enabled:   any("/etc/systemd/system/*.wants/" + name),
		Active:    any("/sys/fs/cgroup/system.slice/"+name, "/sys/fs/cgroup/systemd/system.slice/"+name),
	}
}

// kernelOptions are those that kubeadm demands of a kernel (system-validators v1.12.1, types_unix.go), less what only
// some file systems, kube-proxy or a kubelet need.
var kernelOptions = []string{"NAMESPACES", "NET_NS", "PID_NS", "IPC_NS", "UTS_NS", "CGROUPS", "INET", "PROC_FS", "SECCOMP", "OVERLAY_FS"}

// kernelLacks returns which of the options a kernel's configuration does not set; none where it has no word of any.
func kernelLacks(config string) []string {
	set := map[string]bool{}
	for line := range strings.Lines(config) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "CONFIG_"), "=")
		set[name] = value == "y" || value == "m"
	}
	if !set["INET"] && !set["PROC_FS"] { // not a configuration
		return nil
	}
	var lost []string
	for _, option := range kernelOptions {
		if !set[option] {
			lost = append(lost, option)
		}
	}
	return lost
}
