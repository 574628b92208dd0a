package host

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-k8s/slipway/phases/config"
)

// fakeRoot writes files below a directory. A name that ends in "/" is a directory, contents that start with "->" are a
// link's target.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case name[len(name)-1] == '/':
			must(t, os.MkdirAll(path, 0o755))
		case len(content) > 2 && content[:2] == "->":
			must(t, os.Symlink(content[2:], path))
		default:
			must(t, os.WriteFile(path, []byte(content), 0o644))
		}
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addresses(list ...string) []netip.Addr {
	var found []netip.Addr
	for _, a := range list {
		found = append(found, netip.MustParseAddr(a))
	}
	return found
}

const (
	routeHeader = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	routeEth0   = "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
	routeWlan0  = "wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
	routeLocal  = "eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	route6Eth0  = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0\n"
	route6Lo    = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
)

func TestGatherFacts(t *testing.T) {
	interfaces := func() ([]Interface, error) {
		return []Interface{
			{Name: "lo", Up: true, Loopback: true, Addresses: addresses("127.0.0.1", "::1")},
			{Name: "eth0", Up: true, Addresses: addresses("fe80::1", "192.0.2.2", "192.0.2.3", "fd00::2")},
		}, nil
	}
	for _, tc := range []struct {
		name    string
		files   map[string]string
		environ []string
		want    config.HostFacts
	}{
		{
			name: "a container host without an init system, without CAP_SYS_RESOURCE",
			files: map[string]string{
				"/proc/sys/kernel/hostname": "node-1\n",
				"/proc/net/route":           routeHeader + routeEth0 + routeLocal,
				"/proc/net/ipv6_route":      route6Lo + route6Eth0,
				"/proc/self/status":         "Name:\tslipway\nUid:\t0\t0\t0\t0\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n",
				"/proc/1/comm":              "init\n",
				"/etc/ca-certificates/":     "", "/usr/share/ca-certificates/": "",
			},
			environ: []string{"PATH=/bin", "HTTPS_PROXY=http://p:3128", "no_proxy=10.0.0.0/8", "http_proxy="},
			want: config.HostFacts{
				Hostname: "node-1", DefaultAddresses: addresses("192.0.2.2", "fd00::2"),
				CADirs:       []string{"/etc/ca-certificates", "/usr/share/ca-certificates"},
				ProxyEnv:     map[string]string{"HTTPS_PROXY": "http://p:3128", "no_proxy": "10.0.0.0/8"},
				CgroupDriver: "cgroupfs", RestrictOOMScore: true, Executable: "/usr/bin/slipway",
			},
		},
		{
			name: "Debian with systemd and systemd-resolved, seen by an ordinary user",
			files: map[string]string{
				"/proc/sys/kernel/hostname":                                "node-1\n",
				"/proc/net/route":                                          routeHeader + routeEth0,
				"/proc/self/status":                                        "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\n",
				"/proc/1/comm":                                             "systemd\n",
				"/run/systemd/system/":                                     "",
				"/run/systemd/resolve/resolv.conf":                         "nameserver 192.0.2.1\n",
				"/sys/fs/cgroup/cgroup.controllers":                        "cpu memory pids\n",
				"/sys/fs/cgroup/system.slice/systemd-resolved.service/":    "",
				"/usr/local/share/ca-certificates/":                        "",
				"/etc/pki/ca-trust/":                                       "",
				"/sys/fs/cgroup/system.slice/systemd-journald.service/x/y": "",
			},
			want: config.HostFacts{
				Hostname: "node-1", DefaultAddresses: addresses("192.0.2.2", "fd00::2"),
				CADirs:       []string{"/etc/pki/ca-trust", "/usr/local/share/ca-certificates"},
				CgroupDriver: "systemd", Systemd: true, ResolvConf: "/run/systemd/resolve/resolv.conf", Executable: "/usr/bin/slipway",
			},
		},
		{
			name: "systemd on cgroup v1, systemd-resolved stopped",
			files: map[string]string{
				"/proc/sys/kernel/hostname":        "node-1",
				"/proc/1/comm":                     "systemd\n",
				"/run/systemd/system/":             "",
				"/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.1\n",
			},
			want: config.HostFacts{
				Hostname: "node-1", DefaultAddresses: addresses("192.0.2.2", "fd00::2"), CgroupDriver: "cgroupfs", Systemd: true,
				Executable: "/usr/bin/slipway",
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			facts, err := GatherFacts(FactSources{
				Root: fakeRoot(t, tc.files), Environ: tc.environ, Executable: "/usr/bin/slipway", Interfaces: interfaces,
			})
			must(t, err)
			if diff := cmp.Diff(tc.want, facts, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("facts differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDefaultAddresses(t *testing.T) {
	eth0 := Interface{Name: "eth0", Up: true, Addresses: addresses("192.0.2.2", "fd00::2")}
	eth1 := Interface{Name: "eth1", Up: true, Addresses: addresses("198.51.100.1", "fe80::2")}
	wlan0 := Interface{Name: "wlan0", Up: true, Addresses: addresses("203.0.113.1")}
	lo := Interface{Name: "lo", Up: true, Loopback: true, Addresses: addresses("127.0.0.1", "::1")}
	routedLo := Interface{Name: "lo", Up: true, Loopback: true, Addresses: addresses("127.0.0.1", "10.1.1.1")}
	down := Interface{Name: "eth0", Addresses: addresses("192.0.2.2")}
	for _, tc := range []struct {
		name       string
		routes     string
		routes6    string
		interfaces []Interface
		want       []netip.Addr
	}{
		{"the default route's interface, not the first", routeHeader + routeEth0, "", []Interface{lo, eth1, eth0}, addresses("192.0.2.2", "fd00::2")},
		{"the lower metric wins", routeHeader + routeWlan0 + routeEth0, "", []Interface{lo, wlan0, eth0}, addresses("192.0.2.2", "fd00::2")},
		{"no default route: the first global address", routeHeader + routeLocal, route6Lo, []Interface{lo, eth1, eth0}, addresses("198.51.100.1", "fd00::2")},
		{"an interface that is down does not count", routeHeader + routeEth0 + routeWlan0, "", []Interface{lo, down, wlan0}, addresses("203.0.113.1")},
		{"an unnumbered link: the address is on loopback", routeHeader + routeEth0, "", []Interface{routedLo, {Name: "eth0", Up: true}}, addresses("10.1.1.1")},
		{"IPv6 only", "", route6Eth0, []Interface{lo, {Name: "eth0", Up: true, Addresses: addresses("fe80::1", "fd00::2")}}, addresses("fd00::2")},
		{"loopback only", "", route6Lo, []Interface{lo}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := defaultAddresses(defaultInterfaces4([]byte(tc.routes)), defaultInterfaces6([]byte(tc.routes6)), tc.interfaces)
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("addresses differ (-want +got):\n%s", diff)
			}
		})
	}
}
