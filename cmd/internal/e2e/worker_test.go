//go:build e2e

package e2e

import (
	"path/filepath"
	"testing"
	"time"
)

// kubeletUnit does what the unit of kubeadm's packages does: kubeadm writes the files that it names, and until then the
// kubelet ends at once and is started again.
const kubeletUnit = `[Unit]
Description=kubelet
Wants=network-online.target
After=network-online.target containerd.service

[Service]
Environment="CREDENTIALS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
EnvironmentFile=-/etc/default/kubelet
ExecStart=/usr/bin/kubelet $CREDENTIALS --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
Restart=always
StartLimitInterval=0
RestartSec=1

[Install]
WantedBy=multi-user.target
`

// kernelSettings shows the kubelet the values that it would set otherwise: they are the machine's, not the host's.
const kernelSettings = `[Unit]
Description=kernel settings that a kubelet wants
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -ec 'for s in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do \
  f=/run/setting-$(basename $${s%%=*}); echo $${s##*=} >$f; mount --bind $f /proc/sys/$${s%%=*}; done'

[Install]
WantedBy=multi-user.target
`

// workerContainerd is Debian's file with what no registry and a missing CAP_SYS_RESOURCE ask for.
const workerContainerd = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10.2"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
`

// newWorker returns a host as an operator prepares it for kubeadm join: a container runtime, a kubelet that waits for its
// configuration, forwarding. The images that it will be asked to run are there, since no registry is.
func newWorker(t *testing.T, hostname, address, bridge, controlPlane string) *debianHost {
	t.Helper()
	h := newHost(t, hostSpec{
		hostname: hostname, address: address, bridge: bridge,
		packages: []string{"containernetworking-plugins", "iptables"},
		files: map[string]string{
			"/etc/systemd/system/kubelet.service":         kubeletUnit,
			"/etc/systemd/system/kernel-settings.service": kernelSettings,
			"/etc/containerd/config.toml":                 workerContainerd,
			"/etc/sysctl.d/kubernetes.conf":               "net.ipv4.ip_forward = 1\n",
			// The kubelet takes the address of the host's name for the node's; there is no default route to tell it.
			"/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n" + address + " " + hostname + "\n",
			// CoreDNS forwards to the host's name server and will not start without one. This one refuses at once.
			"/etc/resolv.conf": "nameserver " + controlPlane + "\n",
		},
		binds: map[string]string{
			program("kubeadm"):                        "/usr/bin/kubeadm",
			program("kubelet"):                        "/usr/bin/kubelet",
			"/dev/kmsg":                               "/dev/kmsg", // the kubelet looks for processes that ran out of memory
			program("subject.tar"):                    "/opt/addons/subject.tar",
			filepath.Join(addons(), "coredns.tar"):    "/opt/addons/coredns.tar",
			filepath.Join(addons(), "kube-proxy.tar"): "/opt/addons/kube-proxy.tar",
		},
		enabled: []string{"containerd.service", "kernel-settings.service", "kubelet.service"},
	})
	h.run(t, "mkdir", "-p", "/etc/kubernetes/manifests").must(t, "making the directory that comes with the kubelet's package")
	eventually(t, time.Minute, "the worker's containerd", func() string { return h.run(t, "ctr", "version").stderr })
	h.run(t, "sh", "-ec", "for archive in /opt/images/pause.tar /opt/addons/*.tar; do ctr -n k8s.io images import $archive; done").must(t, "loading the worker's images")
	return h
}

// addons are the archives of what runs on workers.
func addons() string { return filepath.Join(repository, "bin/addons") }
