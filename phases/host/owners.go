package host

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases/config"
)

// ownerPaths are what other distributions keep on a node that they run. Each is made by their own start or init, not
// by the mere installation of a package. kubeadm's count where this instance would write.
func ownerPaths(p config.Paths) []Owner {
	return []Owner{
		{"kubeadm", p.Kubelet + "/kubeadm-flags.env"},
		{"kubeadm", p.Kubeconfig("kubelet.conf")},
		{"k3s", "/var/lib/rancher/k3s/server"},
		{"k3s", "/var/lib/rancher/k3s/agent"},
		{"rke2", "/var/lib/rancher/rke2/server"},
		{"rke2", "/var/lib/rancher/rke2/agent"},
		{"microk8s", "/var/snap/microk8s/current"},
		{"k0s", "/var/lib/k0s"},
	}
}

// distributionOf names the distribution that a program which runs pods belongs to; "" for any other program.
func distributionOf(program string) string {
	switch program {
	case "kubelet", "k0s", "k3s", "rke2":
		return program
	case "k3s-server", "k3s-agent":
		return "k3s"
	case "kubelite":
		return "microk8s"
	}
	return ""
}

// owners returns the signs that something else runs Kubernetes here: processes first, as the stronger sign. What
// slipway recorded as its own is no sign, and neither is what runs inside containers, where the names are the same.
func (i inspector) owners() []Owner {
	var found []Owner
	for _, pid := range pids(i.path("/proc")) {
		name := distributionOf(i.read(fmt.Sprintf("/proc/%d/comm", pid)))
		if name == "" || i.contained(pid) {
			continue
		}
		argv := strings.Split(strings.TrimRight(i.read(fmt.Sprintf("/proc/%d/cmdline", pid)), "\x00"), "\x00")
		if len(argv) == 2 && argv[1] == "--version" {
			continue // it runs nothing; our own question for the kubelet's version may be among them
		}
		found = append(found, Owner{Name: name, Evidence: fmt.Sprintf("process %d (%s)", pid, shorten(argv))})
	}
	for _, sign := range ownerPaths(i.paths) {
		if _, ok := exists(i.path(sign.Evidence)); ok && !i.ledger.Owns(sign.Evidence) {
			found = append(found, sign)
		}
	}
	return found
}

// contained reports whether the process lives in another pid namespace: in a container.
func (i inspector) contained(pid int) bool {
	own, _ := os.Readlink(i.path("/proc/self/ns/pid"))
	its, _ := os.Readlink(i.path(fmt.Sprintf("/proc/%d/ns/pid", pid)))
	return own != its
}

// shorten keeps the program and its first arguments.
func shorten(argv []string) string {
	argv = slices.DeleteFunc(slices.Clone(argv), func(a string) bool { return a == "" })
	if len(argv) == 0 {
		return "no command line"
	}
	argv[0] = path.Base(argv[0])
	if len(argv) > 4 {
		argv = append(argv[:4:4], "…")
	}
	return strings.Join(argv, " ")
}
