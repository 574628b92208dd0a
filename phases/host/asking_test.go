package host

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-k8s/slipway/phases/config"
)

func TestRoutes(t *testing.T) {
	i := inspector{root: fakeRoot(t, map[string]string{
		"/proc/net/route": "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
			"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" + // default
			"eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n" +
			"tun0\t0000640A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
			"lo\t0000A8C0\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0\n" + // unreachable
			"eth1\t0001A8C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", // down
		"/proc/net/ipv6_route": "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n" +
			"fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0\n" +
			"fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000001 00000000 80200001 eth0\n",
	})}
	want := []Route{
		{netip.MustParsePrefix("192.0.2.0/24"), "eth0"}, {netip.MustParsePrefix("10.100.0.0/16"), "tun0"}, {netip.MustParsePrefix("fd00::/64"), "eth0"},
	}
	if diff := cmp.Diff(want, i.routes(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("routes differ (-want +got):\n%s", diff)
	}
}

func TestLeftoversNameEachOnceAndNotOurs(t *testing.T) {
	i := inspector{paths: config.NewPaths(""), ledger: &book{owned: []string{"/etc/cni/net.d/ours.conf"}}, root: fakeRoot(t, map[string]string{
		"/etc/cni/net.d/ours.conf":                "{}",
		"/etc/cni/net.d/10-flannel.conflist":      "{}",
		"/var/lib/cni/networks/cbr0/":             "",
		"/etc/rancher/k3s/k3s.yaml":               "",
		"/etc/kubernetes/bootstrap-kubelet.conf":  "",
		"/usr/local/bin/k3s-uninstall.sh":         "",
		"/etc/kubernetes/manifests/whatever.yaml": "",
	})}
	want := []Owner{
		{"a CNI plugin", "/etc/cni/net.d/10-flannel.conflist"}, {"k3s", "/etc/rancher/k3s"},
		{"kubeadm", "/etc/kubernetes/bootstrap-kubelet.conf"}, {"Calico", "network interface cali123"},
	}
	if diff := cmp.Diff(want, i.leftovers([]string{"lo", "eth0", "cni0", "cali123", "cali456"})); diff != "" {
		t.Errorf("leftovers differ (-want +got):\n%s", diff)
	}
}

func TestUnitState(t *testing.T) {
	i := inspector{root: fakeRoot(t, map[string]string{
		"/usr/lib/systemd/system/kubelet.service":                       "[Unit]\n",
		"/etc/systemd/system/multi-user.target.wants/kubelet.service":   "[Unit]\n",
		"/sys/fs/cgroup/system.slice/firewalld.service/cgroup.procs":    "1\n",
		"/etc/systemd/system/multi-user.target.wants/something.service": "",
	})}
	for name, want := range map[string]UnitState{
		"kubelet.service": {Installed: true, Enabled: true}, "firewalld.service": {Active: true}, "none.service": {},
	} {
		if got := i.unitState(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestKernelLacks(t *testing.T) {
	whole := "# Linux\n"
	for _, o := range kernelOptions {
		whole += "CONFIG_" + o + "=y\n"
	}
	if got := kernelLacks(whole); got != nil {
		t.Errorf("a whole kernel lacks %v", got)
	}
	without := strings.NewReplacer("CONFIG_NET_NS=y", "# CONFIG_NET_NS is not set", "CONFIG_OVERLAY_FS=y", "CONFIG_OVERLAY_FS=m").Replace(whole)
	if diff := cmp.Diff([]string{"NET_NS"}, kernelLacks(without)); diff != "" {
		t.Errorf("lacks (-want +got):\n%s", diff)
	}
	if got := kernelLacks(""); got != nil {
		t.Errorf("a kernel that does not tell lacks %v", got)
	}
}

func TestEtcdVersions(t *testing.T) {
	etcd := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			fmt.Fprint(w, `{"etcdserver":"3.6.8","etcdcluster":"3.6.0"}`)
		}
	}))
	defer etcd.Close()
	dumb := httptest.NewTLSServer(http.NotFoundHandler())
	defer dumb.Close()
	var ca strings.Builder
	for _, s := range []*httptest.Server{etcd, dumb} {
		if err := pem.Encode(&ca, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}); err != nil {
			t.Fatal(err)
		}
	}
	i := inspector{root: fakeRoot(t, map[string]string{"/ca.crt": ca.String()})}
	got := i.etcdVersions(t.Context(), ExternalEtcd{Endpoints: []string{etcd.URL, dumb.URL}, CAFile: "/ca.crt"})
	want := []EtcdVersion{{Endpoint: etcd.URL, Version: "3.6.8"}, {Endpoint: dumb.URL, Err: "its answer to /version (404 Not Found) names none"}}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("versions differ (-want +got):\n%s", diff)
	}
	if got := i.etcdVersions(t.Context(), ExternalEtcd{Endpoints: []string{etcd.URL}, CAFile: "/none"}); got != nil {
		t.Errorf("without its files: %v", got)
	}
	// Nor could the API server use them.
	i = inspector{root: fakeRoot(t, map[string]string{"/ca.crt": ca.String(), "/empty": "", "/key": "no key"})}
	for want, etcd := range map[string]ExternalEtcd{
		"its authority /empty holds no certificate":             {Endpoints: []string{etcd.URL}, CAFile: "/empty"},
		"its client certificate /ca.crt with the key /key: tls": {Endpoints: []string{etcd.URL}, CAFile: "/ca.crt", CertFile: "/ca.crt", KeyFile: "/key"},
	} {
		if got := i.etcdVersions(t.Context(), etcd); len(got) != 1 || !strings.HasPrefix(got[0].Err, want) {
			t.Errorf("got %+v, want %q", got, want)
		}
	}
}

// TestKubeletVersionEnds: what a wrapper script started keeps its output open, longer than the script lives.
func TestKubeletVersionEnds(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubelet"), []byte("#!/bin/sh\nsleep 6\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	began := time.Now()
	if got := kubeletVersion(t.Context()); got != "" || time.Since(began) > 2*kubeletTimeout {
		t.Errorf("%q after %v", got, time.Since(began))
	}
}

func TestLookUpKnowsTheHostsFile(t *testing.T) {
	if got := lookUp(t.Context(), "localhost"); len(got.Addresses) == 0 || !got.Addresses[0].IsLoopback() {
		t.Errorf("got %+v", got)
	}
}
