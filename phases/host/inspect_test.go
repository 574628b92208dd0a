package host

import (
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/config"
)

func stat(pid int, name string, parent int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0\n", pid, name, parent)
}

const tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

func tcpLine(address, state string, inode int) string {
	return fmt.Sprintf("   0: %s 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0000 100 0 0 10 0\n", address, state, inode)
}

// busyHost is a machine with an nginx at 6443, our own kube-apiserver and one of a user's runtime, and an ssh connection.
func busyHost() map[string]string {
	return map[string]string{
		"/proc/net/tcp": tcpHeader + tcpLine("0100007F:2811", "0A", 101) + tcpLine("020200C0:0016", "01", 102) + tcpLine("00000000:192B", "0A", 103),
		"/proc/net/tcp6": tcpHeader + tcpLine("00000000000000000000000000000000:094B", "0A", 104) +
			tcpLine("0000000000000000FFFF00000100007F:2813", "0A", 105),

		"/proc/10/comm": "nginx\n", "/proc/10/stat": stat(10, "nginx", 1), "/proc/10/cmdline": "nginx\x00",
		"/proc/10/fd/3": "->socket:[103]", "/proc/10/fd/4": "->/dev/null",
		"/proc/11/comm": "nginx\n", "/proc/11/stat": stat(11, "nginx", 10), "/proc/11/fd/3": "->socket:[103]",

		"/proc/20/comm":    "containerd-shim\n",
		"/proc/20/cmdline": "/usr/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-id\x00x\x00-address\x00/run/slipway/containerd.sock\x00",
		"/proc/20/stat":    stat(20, "containerd-shim", 1),
		"/proc/21/comm":    "etcd\n", "/proc/21/cmdline": "etcd\x00", "/proc/21/stat": stat(21, "etcd", 20), "/proc/21/fd/7": "->socket:[104]",
		"/proc/21/cgroup": "4:memory:/kubepods/burstable/podabc/x\n",

		"/proc/30/comm": "kube-controller\n", "/proc/30/cmdline": "kcm\x00", "/proc/30/stat": stat(30, "kcm", 1), "/proc/30/fd/7": "->socket:[101]",
		"/proc/30/cgroup": "4:memory:/kubepods/burstable/podabc/x\n",
		"/proc/uptime":    "1 1\n",
	}
}

func TestListenersNameTheirProcess(t *testing.T) {
	paths := config.NewPaths("")
	i := inspector{root: fakeRoot(t, busyHost()), paths: paths, ledger: &book{owned: []string{paths.KubeletConfig}}}
	got, err := i.listeners([]uint16{6443, 2379, 2380, 10257, 10259, 22})
	must(t, err)
	want := map[uint16]Listener{
		6443:  {Address: "0.0.0.0:6443", PID: 10, Program: "nginx"},
		2379:  {Address: "[::]:2379", PID: 21, Program: "etcd", Ours: true},
		10257: {Address: "127.0.0.1:10257", PID: 30, Program: "kube-controller", Ours: true},
		10259: {Address: "127.0.0.1:10259"}, // no process that we may look at has it open
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listeners differ (-want +got):\n%s", diff)
	}
}

func TestPodsOfAnotherRuntimeAreNotOursWithoutALedger(t *testing.T) {
	i := inspector{root: fakeRoot(t, busyHost()), paths: config.NewPaths("b"), ledger: &book{}}
	got, err := i.listeners([]uint16{2379, 10257})
	must(t, err)
	if got[2379].Ours || got[10257].Ours {
		t.Errorf("got %+v", got)
	}
}

func TestOwners(t *testing.T) {
	files := map[string]string{
		"/proc/self/ns/pid": "->pid:[1]",
		"/proc/10/comm":     "kubelet\n", "/proc/10/cmdline": "/usr/bin/kubelet\x00--config\x00/var/lib/kubelet/config.yaml\x00-v\x005\x00", "/proc/10/ns/pid": "->pid:[1]",
		"/proc/15/comm": "kubelet\n", "/proc/15/cmdline": "kubelet\x00--version\x00", "/proc/15/ns/pid": "->pid:[1]", // only asked, as preflight itself does
		"/proc/11/comm": "k3s-server\n", "/proc/11/cmdline": "/usr/local/bin/k3s server\x00", "/proc/11/ns/pid": "->pid:[2]", // in a container
		"/proc/12/comm":                      "sshd\n",
		"/var/lib/rancher/k3s/server/":       "",
		"/var/lib/kubelet/kubeadm-flags.env": "KUBELET_KUBEADM_ARGS=\n",
		"/etc/kubernetes/kubelet.conf":       "",
	}
	i := inspector{root: fakeRoot(t, files), paths: config.NewPaths(""), ledger: &book{owned: []string{"/etc/kubernetes/kubelet.conf"}}}
	want := []Owner{
		{"kubelet", "process 10 (kubelet --config /var/lib/kubelet/config.yaml -v …)"},
		{"kubeadm", "/var/lib/kubelet/kubeadm-flags.env"},
		{"k3s", "/var/lib/rancher/k3s/server"},
	}
	if diff := cmp.Diff(want, i.owners()); diff != "" {
		t.Errorf("owners differ (-want +got):\n%s", diff)
	}
}

func TestLook(t *testing.T) {
	files := map[string]string{
		"/proc/meminfo":                    "MemTotal:       2048000 kB\nMemFree: 1 kB\n",
		"/proc/swaps":                      "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n",
		"/proc/sys/kernel/osrelease":       "6.18.0\n",
		"/proc/sys/net/ipv4/ip_forward":    "0\n",
		"/proc/cgroups":                    "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t27\t0\npids\t8\t1\t1\n",
		"/etc/hosts":                       "127.0.0.1 localhost # node-2\n192.0.2.2 node-1.example node-1\n",
		"/etc/kubernetes/manifests/a.yaml": "x",
		"/var/lib/etcd/":                   "",
		"/var/lib/full/file":               "x",
	}
	i := inspector{root: fakeRoot(t, files), ledger: &book{owned: []string{"/var/lib/full"}}, interfaces: func() ([]Interface, error) {
		return []Interface{{Name: "eth0", Addresses: addresses("192.0.2.2")}}, nil
	}}
	seen, err := i.look(Query{
		Paths:    []string{"/etc/kubernetes/manifests/a.yaml", "/var/lib/etcd", "/var/lib/full", "/nothing"},
		Sysctls:  []string{"net.ipv4.ip_forward", "net.ipv4.no_such_key"},
		Disk:     "/var/lib/etcd/member",
		Programs: []string{"sh", "no-such-program"},
		NodeName: "node-1",
	})
	must(t, err)
	if seen.DiskFreeMiB <= 0 || seen.CPUs == 0 || seen.Programs["sh"] == "" || seen.EUID != os.Geteuid() || seen.Now.IsZero() {
		t.Errorf("got %+v", seen)
	}
	got := Inspection{MemoryMiB: seen.MemoryMiB, Swap: seen.Swap, Kernel: seen.Kernel, Addresses: seen.Addresses, Paths: seen.Paths,
		Sysctls: seen.Sysctls, Cgroups: seen.Cgroups, HostnameOK: seen.HostnameOK}
	want := Inspection{
		MemoryMiB: 2000, Swap: true, Kernel: "6.18.0", Addresses: addresses("192.0.2.2"),
		Paths: map[string]PathState{
			"/etc/kubernetes/manifests/a.yaml": {Exists: true},
			"/var/lib/etcd":                    {Exists: true, Dir: true, Empty: true},
			"/var/lib/full":                    {Exists: true, Dir: true, Ours: true},
			"/nothing":                         {},
		},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "0"},
		Cgroups: []string{"cpu", "pids"}, HostnameOK: true,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if inHosts(files["/etc/hosts"], "node-2") {
		t.Error("a comment counts as a name")
	}
}

func TestUnifiedHierarchyHasDevicesAndFreezer(t *testing.T) {
	i := inspector{root: fakeRoot(t, map[string]string{"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"})}
	if diff := cmp.Diff([]string{"cpu", "cpuset", "devices", "freezer", "io", "memory", "pids"}, i.cgroupControllers()); diff != "" {
		t.Errorf("controllers differ (-want +got):\n%s", diff)
	}
}

// BenchmarkLook is how long preflight looks at this machine with every port free: its budget is 40 ms.
func BenchmarkLook(b *testing.B) {
	i := inspector{paths: config.NewPaths(""), ledger: &book{}}
	for b.Loop() {
		if _, err := i.look(Query{Ports: []uint16{6443, 2379}, Programs: []string{"runc"}, Disk: "/var/lib/etcd"}); err != nil {
			b.Fatal(err)
		}
	}
}
