package host

import (
	"net"
	"path/filepath"
	"slices"
	"strings"
)

// leftoverPaths are what other software leaves behind, or has beside slipway, and what may surprise once pods of a
// network of their own run here. None of it is in the way of a control plane. Patterns are filepath.Match's.
var leftoverPaths = []Owner{
	{"a CNI plugin", "/etc/cni/net.d/*.conf"},
	{"a CNI plugin", "/etc/cni/net.d/*.conflist"},
	{"a CNI plugin", "/var/lib/cni/networks/*"},
	{"Calico", "/var/lib/calico"},
	{"Cilium", "/sys/fs/bpf/tc/globals/cilium_*"},
	{"k3s", "/etc/rancher/k3s"},
	{"k3s", "/var/lib/rancher/k3s/data"},
	{"k3s", "/usr/local/bin/k3s-uninstall.sh"},
	{"rke2", "/etc/rancher/rke2"},
	{"rke2", "/usr/local/bin/rke2-uninstall.sh"},
	{"k0s", "/etc/k0s"},
	{"microk8s", "/var/snap/microk8s/common"},
	{"Docker", "/run/docker/containerd/containerd.sock"},
	{"Docker", "/run/docker.sock"},
}

// kubeadmRemains are files that kubeadm and the kubelet of a former node leave behind where this instance would write.
var kubeadmRemains = []string{"bootstrap-kubelet.conf", "tmp/kubeadm-*"}

// leftoverLinks are interfaces that networks of pods leave behind, by the beginning of their names.
var leftoverLinks = []struct{ name, prefix string }{
	{"flannel", "flannel."}, {"a CNI plugin", "cni0"}, {"Calico", "cali"}, {"Calico", "vxlan.calico"}, {"Cilium", "cilium_"},
	{"kube-proxy", "kube-ipvs0"}, {"Weave", "weave"},
}

// leftovers returns one sign for each piece of software: the first, as the rest follows from it.
func (i inspector) leftovers(links []string) []Owner {
	var found []Owner
	add := func(o Owner) {
		if !slices.ContainsFunc(found, func(f Owner) bool { return f.Name == o.Name }) {
			found = append(found, o)
		}
	}
	signs := slices.Clone(leftoverPaths)
	for _, name := range kubeadmRemains {
		signs = append(signs, Owner{"kubeadm", filepath.Join(i.paths.Kubernetes, name)})
	}
	for _, sign := range signs {
		matches, _ := filepath.Glob(i.path(sign.Evidence)) // the only error is of a pattern, and those are ours
		for _, m := range matches {
			at := "/" + strings.TrimPrefix(strings.TrimPrefix(m, i.root), "/")
			if !i.ledger.Owns(at) {
				add(Owner{sign.Name, at})
				break
			}
		}
	}
	for _, link := range links {
		for _, l := range leftoverLinks {
			if strings.HasPrefix(link, l.prefix) {
				add(Owner{l.name, "network interface " + link})
			}
		}
	}
	return found
}

// systemLinks are the names of the machine's interfaces. A machine that does not tell has none.
func systemLinks() []string {
	interfaces, _ := net.Interfaces()
	var names []string
	for _, i := range interfaces {
		names = append(names, i.Name)
	}
	return names
}
