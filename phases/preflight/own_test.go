package preflight

import (
	"net/netip"
	"os"
	"path/filepath"
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

func prefixes(list ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, p := range list {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

// As TestCheck: one change of a good machine, and all that is said of it.
func TestCheckWhatKubeadmDoesNot(t *testing.T) {
	route := func(to, link string) []host.Route {
		return []host.Route{{Destination: netip.MustParsePrefix(to), Interface: link}}
	}
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster, *host.Inspection)
		want   []string
	}{
		{"a clock that was never set", func(_ *config.Cluster, m *host.Inspection) {
			m.Now = time.Date(1970, 1, 1, 0, 5, 0, 0, time.UTC)
		}, []string{"error [Clock] this machine's clock says 1970-01-01T00:05:00Z, which is before Kubernetes v1.34 was released: set it, for example with date -s or a time service"}},
		{"a clock that nothing keeps right", func(_ *config.Cluster, m *host.Inspection) {
			m.Now, m.Clock = earliest, host.Clock{Known: true}
		}, []string{"warning [ClockSync] the kernel says that nothing keeps this machine's clock synchronized: start a time service, such as systemd-timesyncd or chrony"}},
		{"a clock that is kept right", func(_ *config.Cluster, m *host.Inspection) {
			m.Now, m.Clock = earliest, host.Clock{Known: true, Synchronized: true}
		}, nil},
		{"services where the office network is", func(_ *config.Cluster, m *host.Inspection) { m.Routes = route("10.100.0.0/16", "tun0") },
			[]string{"warning [HostRoutes] the service addresses 10.96.0.0/12 overlap the network 10.100.0.0/16, which this machine reaches through tun0: choose others with --service-cidr"}},
		{"pods around this machine's own address", func(c *config.Cluster, _ *host.Inspection) { c.PodSubnets = prefixes("192.0.0.0/16") },
			[]string{"warning [FileContent--proc-sys-net-ipv4-ip_forward] packets between pods are not forwarded: set it with sysctl -w net.ipv4.ip_forward=1",
				"warning [HostRoutes] the pod addresses 192.0.0.0/16 contain this machine's own address 192.0.2.2: choose others with --pod-network-cidr"}},
		{"networks elsewhere, and that of the pods themselves", func(c *config.Cluster, m *host.Inspection) {
			m.Sysctls["net.ipv4.ip_forward"] = "1"
			c.PodSubnets = prefixes("10.244.0.0/16")
			m.Routes = append(route("10.244.0.0/24", "cni0"), route("192.168.0.0/16", "eth0")...)
		}, nil},
		{"an endpoint that nobody knows", func(c *config.Cluster, m *host.Inspection) {
			c.ControlPlaneEndpoint, m.Lookup = "api.example:6443", host.Lookup{Err: "no such name"}
		}, []string{`warning [ControlPlaneEndpoint] the control plane's endpoint api.example does not resolve: no such name: add it to DNS, or a line "192.0.2.2 api.example" to /etc/hosts`}},
		{"an endpoint that is everyone's own", func(c *config.Cluster, m *host.Inspection) {
			c.ControlPlaneEndpoint, m.Lookup = "api.example", host.Lookup{Addresses: []netip.Addr{netip.MustParseAddr("127.0.1.1")}}
		}, []string{"warning [ControlPlaneEndpoint] the control plane's endpoint api.example is 127.0.1.1, which is another machine on each machine: kubeconfigs and other nodes use it: see that it leads here before they do"}},
		{"an endpoint with an address", func(c *config.Cluster, _ *host.Inspection) { c.ControlPlaneEndpoint = "[fd00::9]:6443" }, nil},
		{"volumes that are not there", func(c *config.Cluster, m *host.Inspection) {
			c.APIServer.ExtraVolumes = []config.HostPathMount{
				{Name: "audit", HostPath: "/etc/audit", PathType: corev1.HostPathFile},
				{Name: "plain", HostPath: "/etc/plain"},
				{Name: "made", HostPath: "/etc/made", PathType: corev1.HostPathDirectoryOrCreate},
			}
			c.Scheduler.ExtraVolumes = []config.HostPathMount{
				{Name: "dir", HostPath: "/etc/file", PathType: corev1.HostPathDirectory},
				{Name: "file", HostPath: "/etc/dir", PathType: corev1.HostPathFile},
				{Name: "good", HostPath: "/etc/dir", PathType: corev1.HostPathDirectory},
				{Name: "link", HostPath: "/etc/link", PathType: corev1.HostPathDirectory},
			}
			m.Paths = map[string]host.PathState{"/etc/file": {Exists: true}, "/etc/dir": {Exists: true, Dir: true}, "/etc/link": {Exists: true, Link: true}}
		}, []string{
			`error [HostPath] apiServer.extraVolumes "audit": /etc/audit does not exist on this machine, and has to be a File: create it, or correct the volume`,
			`warning [HostPath] apiServer.extraVolumes "plain": /etc/plain does not exist on this machine, and the pod would get an empty directory: create it, or give the volume a pathType`,
			`error [HostPath] scheduler.extraVolumes "dir": /etc/file is no directory: correct the volume`,
			`error [HostPath] scheduler.extraVolumes "file": /etc/dir is a directory, not a file: correct the volume`,
		}},
		{"an external etcd that is old, away, or good", func(c *config.Cluster, m *host.Inspection) {
			c.Etcd = config.Etcd{External: &config.ExternalEtcd{CAFile: "/etc/etcd/ca.crt", CertFile: "/etc/etcd/c.crt", KeyFile: "/etc/etcd/c.key"}}
			m.Paths = map[string]host.PathState{"/etc/etcd/ca.crt": {Exists: true}, "/etc/etcd/c.crt": {Exists: true}}
			m.EtcdVersions = []host.EtcdVersion{{Endpoint: "https://a:2379", Version: "3.5.9"}, {Endpoint: "https://b:2379", Err: "no answer within 3.0 s"}, {Endpoint: "https://c:2379", Version: "3.6.8"}}
		}, []string{
			"error [ExternalEtcdClientCertificates] etcd.external.keyFile: /etc/etcd/c.key does not exist: bring it from the etcd cluster",
			"error [ExternalEtcdVersion] etcd at https://a:2379 is 3.5.9, and Kubernetes needs 3.5.24 or newer: upgrade etcd first",
			"error [ExternalEtcdVersion] etcd at https://b:2379 does not tell its version: no answer within 3.0 s: see that it runs and can be reached",
		}},
		{"a kernel that was built without", func(_ *config.Cluster, m *host.Inspection) {
			m.KernelLacks, m.Kernel = []string{"NET_NS", "SECCOMP"}, "4.19.0-1"
		}, []string{
			"error [SystemVerification] the kernel (4.19.0-1) was built without NET_NS, SECCOMP, which containers need: boot a kernel that has them",
			"warning [SystemVerification] the kernel 4.19.0-1 is older than 5.4, the oldest that Kubernetes is tested with: boot a newer kernel",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, m := cluster(), machine()
			tc.change(c, m)
			if diff := cmp.Diff(tc.want, texts(Check(c, m))); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}

// What only a kubelet or kube-proxy needs is a warning, whatever kubeadm makes of it.
func TestCheckWhatOnlyAKubeletNeeds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster, *host.Inspection)
		want   []string
	}{
		{"its ports", func(_ *config.Cluster, m *host.Inspection) {
			m.Listeners[10250] = host.Listener{Address: "[::]:10250", PID: 7, Program: "nginx"}
			m.Listeners[10248] = host.Listener{Address: "127.0.0.1:10248"}
			m.Listeners[10249] = host.Listener{Address: "127.0.0.1:10249", PID: 9, Program: "kube-proxy"}
			m.Listeners[10256] = host.Listener{Address: "[::]:10256", PID: 8, Program: "a"}
		}, []string{
			"[Port-10250] port 10250, which a kubelet would need, is taken by process 7 (nginx) at [::]:10250: move it before this node gets one",
			"[Port-10248] port 10248, which a kubelet would need, is taken by a program that cannot be told at 127.0.0.1:10248: move it before this node gets one",
			"[Port-10256] port 10256, which kube-proxy would need, is taken by process 8 (a) at [::]:10256: move it before this node gets one",
		}},
		{"its programs", func(_ *config.Cluster, m *host.Inspection) { delete(m.Programs, "losetup") },
			[]string{"[FileExisting-losetup] there is no losetup on PATH, which a kubelet needs for volumes: install it before this node gets a kubelet"}},
		{"a newer kubelet", func(_ *config.Cluster, m *host.Inspection) { m.KubeletVersion = "v1.37.0" },
			[]string{"[KubeletVersion] the kubelet on PATH is v1.37.0, newer than the control plane's v1.36.3: install one of v1.36.3"}},
		{"an old kubelet", func(_ *config.Cluster, m *host.Inspection) { m.KubeletVersion = "v1.32.9" },
			[]string{"[KubeletVersion] the kubelet on PATH is v1.32.9, more than three minor versions older than the control plane's v1.36.3: install one of v1.36.3"}},
		{"a kubelet that fits", func(_ *config.Cluster, m *host.Inspection) { m.KubeletVersion = "v1.33.0" }, nil},
		{"cgroups of version 1", func(_ *config.Cluster, m *host.Inspection) { m.CgroupVersion = 1 },
			[]string{"[SystemVerification] this machine has cgroups of version 1, with which a kubelet from v1.35 does not start: boot with systemd.unified_cgroup_hierarchy=1, or set failCgroupV1: false for the kubelet"}},
		{"controllers that are optional", func(_ *config.Cluster, m *host.Inspection) {
			m.Cgroups = []string{"blkio", "cpu", "cpuset", "devices", "freezer", "memory", "pids"}
		}, []string{"[SystemVerification] the kernel (6.1.0) lacks the cgroup controllers hugetlb, which some pods may want"}},
		{"no forwarding of IPv6", func(c *config.Cluster, m *host.Inspection) {
			c.PodSubnets = prefixes("fd01::/64")
			m.Sysctls = map[string]string{"net.ipv6.conf.default.forwarding": "0"}
		}, []string{"[FileContent--proc-sys-net-ipv6-conf-default-forwarding] IPv6 packets between pods are not forwarded: set it with sysctl -w net.ipv6.conf.default.forwarding=1"}},
		{"remains", func(_ *config.Cluster, m *host.Inspection) {
			m.Leftovers = []host.Owner{{Name: "k3s", Evidence: "/etc/rancher/k3s"}, {Name: "Docker", Evidence: "/run/docker.sock"}}
		}, []string{
			"[Leftover] this machine has something of k3s: /etc/rancher/k3s; a kubelet here would use it: remove what is left of k3s, unless it is wanted",
			"[Leftover] Docker runs here too (/run/docker.sock): it sets the firewall's policy for forwarded packets to drop, which pods with a network of their own will notice",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, m := cluster(), machine()
			tc.change(c, m)
			var got []string
			for _, p := range Check(c, m) {
				if p.Severity != Warning || !p.Later {
					t.Errorf("%s %s: want a warning for later", p.Severity, p)
				}
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckUnits(t *testing.T) {
	c, m := cluster(), machine()
	m.Units = map[string]host.UnitState{"kubelet.service": {Installed: true, Enabled: true}, "firewalld.service": {Active: true}}
	want := []string{
		"warning [Service-kubelet] kubelet.service is enabled: at the next boot a kubelet and slipway would both run the pods of /etc/kubernetes/manifests: turn it off with systemctl disable kubelet, until it shall take over",
		"warning [Firewalld] firewalld is active: other nodes reach this one only where it lets them: open ports 6443 and 10250, as with firewall-cmd --add-port=6443/tcp",
	}
	if diff := cmp.Diff(want, texts(Check(c, m))); diff != "" {
		t.Errorf("problems differ (-want +got):\n%s", diff)
	}
}

func TestQuestionAsksForWhatTheConfigurationNames(t *testing.T) {
	c := cluster()
	c.ControlPlaneEndpoint = "api.example:6443"
	c.APIServer.ExtraVolumes = []config.HostPathMount{{Name: "audit", HostPath: "/etc/audit"}}
	c.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://a:2379"}, CAFile: "/ca"}}
	q := Question(c)
	if q.Lookup != "api.example" {
		t.Errorf("looks up %q", q.Lookup)
	}
	if got := strings.Join(q.Paths, " "); !strings.HasSuffix(got, " /etc/audit /ca") {
		t.Errorf("paths %s", got)
	}
	if diff := cmp.Diff(host.ExternalEtcd{Endpoints: []string{"https://a:2379"}, CAFile: "/ca"}, q.Etcd); diff != "" {
		t.Errorf("etcd differs (-want +got):\n%s", diff)
	}
}

// TestPhaseRefusesDamagedFilesBeforeAnythingIsWritten has a certificate and a kubeconfig that nobody can read.
func TestPhaseRefusesDamagedFilesBeforeAnythingIsWritten(t *testing.T) {
	root := t.TempDir()
	for name, data := range map[string]string{"/etc/kubernetes/pki/sa.key": "-----BEGIN PRIVATE KEY-----\n", "/etc/kubernetes/admin.conf": "kind: Pod\n"} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := artifact.NewOverlay(artifact.Disk{Root: root})
	env := &phases.Env{Config: cluster(), Host: inspected{seen: machine()}, Files: files, Now: time.Now, Report: func(phases.Event) {}}
	err := New().Run(t.Context(), env)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"[Certificates] ", "/etc/kubernetes/pki/sa.key", "[Kubeconfigs] ", "/etc/kubernetes/admin.conf", "--ignore-preflight-errors=Certificates,Kubeconfigs"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%s", want, err)
		}
	}
}
