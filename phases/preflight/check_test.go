package preflight

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

func cluster() *config.Cluster {
	return &config.Cluster{
		Paths: config.NewPaths(""), NodeName: "node-1", KubernetesVersion: "v1.36.3",
		AdvertiseAddress: netip.MustParseAddr("192.0.2.2"), BindPort: 6443,
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		Images:         config.Images{Etcd: "r/etcd:1", APIServer: "r/api:1", ControllerManager: "r/cm:1", Scheduler: "r/s:1", Pause: "r/pause:1"},
		Etcd:           config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}},
		Facts:          config.HostFacts{CgroupDriver: "systemd"},
	}
}

func machine() *host.Inspection {
	return &host.Inspection{
		CPUs: 2, MemoryMiB: 1700, DiskFreeMiB: 2048, Kernel: "6.1.0", HostnameOK: true,
		Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fd00::2")},
		Listeners: map[uint16]host.Listener{},
		Programs: map[string]string{"containerd": "/usr/bin/containerd", "containerd-shim-runc-v2": "/usr/bin/containerd-shim-runc-v2", "runc": "/usr/sbin/runc",
			"losetup": "/usr/sbin/losetup", "mount": "/usr/bin/mount", "cp": "/usr/bin/cp"},
		Paths:   map[string]host.PathState{},
		Sysctls: map[string]string{"net.ipv4.ip_forward": "0"},
		Cgroups: []string{"cpu", "cpuset", "devices", "freezer", "memory", "pids", "hugetlb", "io"}, CgroupVersion: 2,
	}
}

// Each case changes one thing about a good machine. The text is the whole problem, as a user reads it.
func TestCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster, *host.Inspection)
		want   []string
	}{
		{"a good machine", func(*config.Cluster, *host.Inspection) {}, nil},
		{"not root: nothing else is looked at", func(_ *config.Cluster, m *host.Inspection) { m.EUID, m.CPUs = 1000, 1 },
			[]string{"error [IsPrivilegedUser] this is user 1000, and only root may start a control plane: run slipway as root, for example with sudo; --dry-run, diff and --root need no rights"}},
		{"a small machine", func(_ *config.Cluster, m *host.Inspection) { m.CPUs, m.MemoryMiB = 1, 1699 },
			[]string{
				"error [NumCPU] 1 CPU, a control plane needs 2: use a larger machine",
				"error [Mem] 1699 MB of memory, a control plane needs 1700 MB: use a larger machine",
			}},
		{"a kubelet runs", func(_ *config.Cluster, m *host.Inspection) {
			m.Owners = []host.Owner{{Name: "kubelet", Evidence: "process 10 (kubelet --config …)"}}
		}, []string{"error [Owner] this machine belongs to kubelet already: process 10 (kubelet --config …): use another machine, or remove kubelet from this one first"}},
		{"a newer patch", func(c *config.Cluster, _ *host.Inspection) { c.KubernetesVersion = "v1.36.9" },
			[]string{"warning [KubernetesVersion] v1.36.9 is newer than v1.36.3, the newest that this slipway was tested with"}},
		{"an older patch", func(c *config.Cluster, _ *host.Inspection) { c.KubernetesVersion = "v1.36.1" }, nil},
		{"an address of another machine", func(c *config.Cluster, _ *host.Inspection) { c.AdvertiseAddress = netip.MustParseAddr("198.51.100.1") },
			[]string{"error [AdvertiseAddress] the advertise address 198.51.100.1 is not on this machine, which has 192.0.2.2, fd00::2: choose one with --apiserver-advertise-address"}},
		{"no address at all", func(_ *config.Cluster, m *host.Inspection) { m.Addresses = m.Addresses[:1] },
			[]string{"error [AdvertiseAddress] the advertise address 192.0.2.2 is not on this machine, which has none: give an interface a global address"}},
		{"ports taken", func(_ *config.Cluster, m *host.Inspection) {
			m.Listeners[6443] = host.Listener{Address: "0.0.0.0:6443", PID: 42, Program: "nginx"}
			m.Listeners[10257] = host.Listener{Address: "127.0.0.1:10257"}
			m.Listeners[10259] = host.Listener{Address: "127.0.0.1:10259", PID: 1, Program: "a"}
			m.Listeners[2379] = host.Listener{Address: "127.0.0.1:2379", PID: 2, Program: "b"}
			m.Listeners[2380] = host.Listener{Address: "127.0.0.1:2380", PID: 3, Program: "c"}
			m.Listeners[2381] = host.Listener{Address: "127.0.0.1:2381", PID: 4, Program: "d"}
			m.Listeners[8080] = host.Listener{Address: "127.0.0.1:8080", PID: 5, Program: "e"}
		}, []string{
			"error [Port-6443] port 6443, which kube-apiserver needs, is taken by process 42 (nginx) at 0.0.0.0:6443: end process 42, or choose another port with --apiserver-bind-port",
			"error [Port-10257] port 10257, which kube-controller-manager needs, is taken by a program that cannot be told at 127.0.0.1:10257: find it with ss -ltnp and end it, or choose another port with controllerManager.extraArgs: secure-port",
			"error [Port-10259] port 10259, which kube-scheduler needs, is taken by process 1 (a) at 127.0.0.1:10259: end process 1, or choose another port with scheduler.extraArgs: secure-port",
			"error [Port-2379] port 2379, which etcd needs, is taken by process 2 (b) at 127.0.0.1:2379: end process 2, or choose another port with etcd.local.extraArgs: listen-client-urls",
			"error [Port-2380] port 2380, which etcd needs, is taken by process 3 (c) at 127.0.0.1:2380: end process 3, or choose another port with etcd.local.extraArgs: listen-peer-urls",
			"error [Port-2381] port 2381, which etcd needs, is taken by process 4 (d) at 127.0.0.1:2381: end process 4, or choose another port with etcd.local.extraArgs: listen-metrics-urls",
		}},
		{"ports that our own pods hold: init runs again", func(_ *config.Cluster, m *host.Inspection) {
			m.Listeners[6443] = host.Listener{PID: 42, Program: "kube-apiserver", Ours: true}
		}, nil},
		{"etcd's ports do not matter with an external etcd", func(c *config.Cluster, m *host.Inspection) {
			c.Etcd = config.Etcd{External: &config.ExternalEtcd{}}
			m.Listeners[2379] = host.Listener{PID: 42, Program: "etcd"}
			m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true}
			m.DiskFreeMiB = 1
		}, nil},
		{"foreign files", func(_ *config.Cluster, m *host.Inspection) {
			m.Paths["/etc/kubernetes/manifests/kube-apiserver.yaml"] = host.PathState{Exists: true}
			m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true}
		}, []string{
			"error [FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml] /etc/kubernetes/manifests/kube-apiserver.yaml exists, and slipway did not write it: move it away",
			"error [DirAvailable--var-lib-etcd] /var/lib/etcd is not empty, and slipway did not fill it: move it away, or choose another one with etcd.local.dataDir",
		}},
		{"a file where etcd's directory should be", func(_ *config.Cluster, m *host.Inspection) {
			m.Paths["/var/lib/etcd"] = host.PathState{Exists: true}
		}, []string{"error [DirAvailable--var-lib-etcd] /var/lib/etcd is not empty, and slipway did not fill it: move it away, or choose another one with etcd.local.dataDir"}},
		{"an empty directory for etcd", func(_ *config.Cluster, m *host.Inspection) {
			m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true, Empty: true}
		}, nil},
		{"an init that continues", func(_ *config.Cluster, m *host.Inspection) {
			m.Paths["/etc/kubernetes/manifests/etcd.yaml"] = host.PathState{Exists: true, Ours: true}
			m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true}
		}, nil},
		{"neither containerd nor runc", func(_ *config.Cluster, m *host.Inspection) {
			delete(m.Programs, "containerd")
			delete(m.Programs, "containerd-shim-runc-v2")
			delete(m.Programs, "runc")
		},
			[]string{
				"error [FileExisting-containerd] there is no containerd on PATH: install it, with apt-get install containerd or dnf install containerd, or use a running runtime with --cri-socket",
				"error [FileExisting-containerd-shim-runc-v2] there is no containerd-shim-runc-v2 on PATH: install it, with apt-get install containerd or dnf install containerd, or use a running runtime with --cri-socket",
				"error [FileExisting-runc] there is no runc on PATH: install it, with apt-get install runc or dnf install runc, or use a running runtime with --cri-socket",
			}},
		{"a runtime of the user's that does not answer", func(c *config.Cluster, m *host.Inspection) {
			delete(m.Programs, "containerd")
			c.CRISocket, m.Runtime = "unix:///run/crio.sock", host.RuntimeState{Err: "connection refused"}
		}, []string{"error [CRI] the container runtime at unix:///run/crio.sock does not answer: connection refused: start it, or leave out --cri-socket to use slipway's own containerd"}},
		{"a runtime with another cgroup driver", func(c *config.Cluster, m *host.Inspection) {
			c.CRISocket, m.Runtime = "unix:///s", host.RuntimeState{Name: "containerd", Version: "v2.1.0", CgroupDriver: "cgroupfs"}
		}, []string{"error [ContainerRuntimeVersion] containerd v2.1.0 uses the cgroup driver cgroupfs, the pods would use systemd: add a KubeletConfiguration with cgroupDriver: cgroupfs to the --config file, or configure the runtime"}},
		{"a runtime with the user's cgroup driver", func(c *config.Cluster, m *host.Inspection) {
			c.Kubelet = []byte(`{"cgroupDriver":"cgroupfs"}`)
			c.CRISocket, m.Runtime = "unix:///s", host.RuntimeState{Name: "containerd", Version: "v2.1.0", CgroupDriver: "cgroupfs"}
		}, nil},
		{"a runtime that does not tell", func(c *config.Cluster, m *host.Inspection) {
			c.CRISocket, m.Runtime = "unix:///s", host.RuntimeState{Name: "containerd", Version: "1.6.20"}
		}, []string{"warning [ContainerRuntimeVersion] containerd 1.6.20 does not tell its cgroup driver: make sure that it is systemd, or take a newer runtime"}},
		{"images that nobody has", func(_ *config.Cluster, m *host.Inspection) {
			m.MissingImages, m.RegistryErr = []string{"r/etcd:1", "r/api:1"}, "registry r did not answer within 3s"
		}, []string{"error [ImagePull] missing images: r/etcd:1, r/api:1 (registry r did not answer within 3s): bring them in one of three ways: " +
			"put docker or OCI archives into /var/lib/slipway/images, load them with `slipway images load FILE`, or make the registry reachable (another one: --image-repository)"}},
		{"a kernel without controllers", func(_ *config.Cluster, m *host.Inspection) {
			m.Cgroups = []string{"cpu", "cpuset", "devices", "freezer", "hugetlb", "io"}
		},
			[]string{"error [SystemVerification] the kernel (6.1.0) lacks the cgroup controllers memory, pids: enable them on the kernel's command line, for example with cgroup_enable=memory"}},
		{"swap", func(_ *config.Cluster, m *host.Inspection) { m.Swap = true },
			[]string{"warning [Swap] swap is on: memory limits of pods will not hold: turn it off with swapoff -a, or set memorySwap in the KubeletConfiguration"}},
		{"no forwarding, with pods that have a network", func(c *config.Cluster, _ *host.Inspection) {
			c.PodSubnets = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
		}, []string{"warning [FileContent--proc-sys-net-ipv4-ip_forward] packets between pods are not forwarded: set it with sysctl -w net.ipv4.ip_forward=1"}},
		{"a full disk", func(_ *config.Cluster, m *host.Inspection) { m.DiskFreeMiB = 100 },
			[]string{"warning [DiskSpace] 100 MB are free for /var/lib/etcd, and etcd's database may grow to 2048 MB: make room"}},
		{"a disk that cannot be told", func(_ *config.Cluster, m *host.Inspection) { m.DiskFreeMiB = -1 }, nil},
		{"a name that only DNS may know", func(_ *config.Cluster, m *host.Inspection) { m.HostnameOK = false },
			[]string{`warning [Hostname] the node name "node-1" is not in /etc/hosts: a kubelet would look it up in DNS: add a line "192.0.2.2 node-1"`}},
		{"a proxy in between", func(c *config.Cluster, _ *host.Inspection) {
			c.Facts.ProxyEnv = map[string]string{"HTTPS_PROXY": "http://user:secret@proxy:3128", "no_proxy": "127.0.0.1"}
		}, []string{
			"warning [HTTPProxy] connections to the API server at 192.0.2.2 would go through the proxy http://user:xxxxx@proxy:3128: add 192.0.2.2 to no_proxy",
			"warning [HTTPProxyCIDR] connections to 10.96.0.0/12 would go through the proxy http://user:xxxxx@proxy:3128: add 10.96.0.0/12 to no_proxy",
		}},
		{"a proxy for others", func(c *config.Cluster, _ *host.Inspection) {
			c.Facts.ProxyEnv = map[string]string{"https_proxy": "http://proxy:3128", "no_proxy": "192.0.2.0/24,10.96.0.0/12"}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, m := cluster(), machine()
			tc.change(c, m)
			got := texts(Check(c, m))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}

func texts(problems []Problem) []string {
	var all []string
	for _, p := range problems {
		all = append(all, p.Severity.String()+" "+p.String())
	}
	return all
}

func TestPortsFollowExtraArgs(t *testing.T) {
	c := cluster()
	c.BindPort = 7443
	c.Scheduler.ExtraArgs = []config.Arg{{Name: "secure-port", Value: "1"}, {Name: "secure-port", Value: "20259"}}
	c.ControllerManager.ExtraArgs = []config.Arg{{Name: "secure-port", Value: "0"}}
	c.Etcd.Local.ExtraArgs = []config.Arg{
		{Name: "listen-client-urls", Value: "https://127.0.0.1:22379,https://[fd00::2]:22378"},
		{Name: "listen-metrics-urls", Value: "http://127.0.0.1:22381"},
	}
	want := []uint16{7443, 20259, 22379, 22378, 2380, 22381, 10250, 10248, 10249, 10256}
	if got := Question(c).Ports; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}

func TestQuestionFollowsTheConfiguration(t *testing.T) {
	c := cluster()
	c.CRISocket, c.ImagePullPolicy = "unix:///run/crio.sock", corev1.PullNever
	c.Etcd = config.Etcd{External: &config.ExternalEtcd{}}
	want := host.Query{
		Ports:    []uint16{6443, 10257, 10259, 10250, 10248, 10249, 10256},
		Programs: []string{"losetup", "mount", "cp"},
		Paths:    []string{"/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/manifests/kube-controller-manager.yaml", "/etc/kubernetes/manifests/kube-scheduler.yaml"},
		Sysctls:  []string{"net.ipv4.ip_forward", "net.ipv6.conf.default.forwarding"},
		Units:    []string{"kubelet.service", "firewalld.service"},
		NodeName: "node-1", Socket: "/run/crio.sock", Archives: "/var/lib/slipway/images",
		Images: []string{"r/pause:1", "r/api:1", "r/cm:1", "r/s:1"},
	}
	if diff := cmp.Diff(want, Question(c)); diff != "" {
		t.Errorf("question differs (-want +got):\n%s", diff)
	}
}

// empty is a disk with nothing on it.
func empty(t *testing.T) artifact.Store {
	return artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
}

// inspected is a host that has been looked at.
type inspected struct {
	host.Host
	seen *host.Inspection
	err  error
}

func (i inspected) Inspect(context.Context, host.Query) (*host.Inspection, error) {
	return i.seen, i.err
}

func TestPhaseIgnoresByName(t *testing.T) {
	for _, tc := range []struct {
		ignored  []string
		warnings int
		want     string // names in the error
	}{
		{nil, 1, "NumCPU,Port-6443"},
		{[]string{"numcpu"}, 2, "Port-6443"},
		{[]string{"NumCPU", "PORT-6443"}, 3, ""},
		{[]string{"ALL"}, 3, ""},
	} {
		c, m := cluster(), machine()
		c.IgnorePreflightErrors = tc.ignored
		m.CPUs, m.Swap = 1, true
		m.Listeners[6443] = host.Listener{Address: "0.0.0.0:6443", PID: 42, Program: "nginx"}
		warnings := 0
		err := New().Run(t.Context(), &phases.Env{Config: c, Host: inspected{seen: m}, Files: empty(t), Now: time.Now, Report: func(e phases.Event) {
			if e.Kind == phases.Warning {
				warnings++
			}
		}})
		if warnings != tc.warnings {
			t.Errorf("ignoring %q: %d warnings, want %d", tc.ignored, warnings, tc.warnings)
		}
		if tc.want == "" {
			if err != nil {
				t.Errorf("ignoring %q: %v", tc.ignored, err)
			}
			continue
		}
		var failed *Error
		if !errors.As(err, &failed) || !strings.HasSuffix(err.Error(), "--ignore-preflight-errors="+tc.want) {
			t.Errorf("ignoring %q: %v", tc.ignored, err)
		}
	}
}

func TestPhaseIgnoresMissingRights(t *testing.T) {
	c, m := cluster(), machine()
	m.EUID = 1000
	env := &phases.Env{Config: c, Host: inspected{seen: m}, Files: empty(t), Now: time.Now, Report: func(phases.Event) {}}
	if err := New().Run(t.Context(), env); err == nil || !strings.Contains(err.Error(), "IsPrivilegedUser") {
		t.Errorf("got %v", err)
	}
	c.IgnorePreflightErrors = []string{"IsPrivilegedUser"}
	if err := New().Run(t.Context(), env); err != nil {
		t.Error(err)
	}
}

func TestPhaseOnlyTellsWhereTheMachineIsNotInspected(t *testing.T) {
	var told []string
	err := New().Run(t.Context(), &phases.Env{Config: cluster(), Host: host.NewNarrator(), Report: func(e phases.Event) { told = append(told, e.Text) }})
	if err != nil || !slices.Equal(told, []string{"would check this machine"}) {
		t.Errorf("told %q, %v", told, err)
	}
}

// What slipway made is gone after a reset, its image store too; what others made stays in the way.
func TestForesee(t *testing.T) {
	c, m := cluster(), machine()
	root := t.TempDir()
	m.Listeners[6443] = host.Listener{Address: "[::]:6443", PID: 7, Program: "kube-apiserver", Ours: true}
	m.Paths[c.Paths.Manifests+"/etcd.yaml"] = host.PathState{Exists: true, Ours: true}
	m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true, Ours: true}
	files := artifact.Disk{Root: root}
	if err := Foresee(c, m, files, time.Now()); err != nil {
		t.Errorf("a control plane of slipway's: %v", err)
	}
	m.Paths["/var/lib/etcd"] = host.PathState{Exists: true, Dir: true} // the manifests that would vouch for it go
	m.Listeners[10259] = host.Listener{Address: "[::]:10259", PID: 8, Program: "other"}
	m.MissingImages, m.RegistryErr = []string{"r/etcd:1"}, "registry r does not answer"
	m.HostnameOK = false // a warning
	want := "this machine is not ready:\n" +
		"  [Port-10259] port 10259, which kube-scheduler needs, is taken by process 8 (other) at [::]:10259: end process 8, or choose another port with scheduler.extraArgs: secure-port\n" +
		"  [DirAvailable--var-lib-etcd] /var/lib/etcd is not empty, and slipway did not fill it: move it away, or choose another one with etcd.local.dataDir\n" +
		"  [ImagePull] missing images: r/etcd:1 (registry r does not answer): put docker or OCI archives of them into /var/lib/slipway/images or another --image-archives DIRECTORY, " +
		"or make the registry reachable; slipway's own image store goes with the reset\n" +
		"  to go on regardless: --ignore-preflight-errors=Port-10259,DirAvailable--var-lib-etcd,ImagePull"
	if err := Foresee(c, m, files, time.Now()); err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	c.IgnorePreflightErrors = []string{"all"}
	if err := Foresee(c, m, files, time.Now()); err != nil {
		t.Errorf("with all ignored: %v", err)
	}
}
