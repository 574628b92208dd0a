package objects_test

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/addon"
	"github.com/slipway-k8s/slipway/phases/bootstraptoken"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/uploadconfig"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata/objects")

// now is when all tests happen.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// load returns the cluster of a configuration on a host of which these facts are known.
func load(t *testing.T, instance, text string) *config.Cluster {
	t.Helper()
	facts := config.HostFacts{Hostname: "cp-1", CgroupDriver: "cgroupfs", ResolvConf: "/run/systemd/resolve/resolv.conf",
		DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
		ProxyEnv:         map[string]string{"https_proxy": "http://192.0.2.99:3128"}}
	if instance == "" {
		facts.ProxyEnv = nil
	}
	c, _, err := config.Load(config.Options{File: "cluster.yaml", Data: []byte(text), Facts: facts, Instance: instance})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestObjects pins every object that init writes, in a plain cluster and in one where much is different. What is
// encrypted or made at random is not in it.
func TestObjects(t *testing.T) {
	for name, c := range map[string]*config.Cluster{
		"defaults": load(t, "", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"),
		"different": load(t, "second", `
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
- {token: aaaaaa.0123456789aaaaaa, description: rack 4, ttl: 2h0m0s}
- {token: bbbbbb.0123456789bbbbbb, usages: [signing], expires: "2026-02-03T00:00:00Z"}
localAPIEndpoint: {advertiseAddress: "2001:db8::10", bindPort: 7443}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: harbour
controlPlaneEndpoint: api.example.com
imageRepository: registry.example.com/k8s
networking: {serviceSubnet: "fd00:1::/112,10.96.0.0/16", podSubnet: "fd00:2::/48,10.244.0.0/16", dnsDomain: harbour.local}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
maxPods: 1000000
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
conntrack: {maxPerCore: 0}
clientConnection: {qps: 50}
`),
	} {
		t.Run(name, func(t *testing.T) {
			tokens := c.BootstrapTokens
			for i := range tokens {
				if tokens[i].ID == "" {
					tokens[i].ID, tokens[i].Secret = "cccccc", "0123456789cccccc"
				}
				tokens[i].Expires = bootstraptoken.Expiration(tokens[i], now)
			}
			var list []*unstructured.Unstructured
			add := func(more []*unstructured.Unstructured, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, more...)
			}
			add(uploadconfig.Kubeadm(c))
			add(uploadconfig.Kubelet(c))
			add(bootstraptoken.Plan(document.Cluster{Server: "https://api.example.com:7443", CertificateAuthorityData: []byte("PEM")}, tokens))
			add(addon.CoreDNS(c))
			add(addon.KubeProxy(c))
			var out bytes.Buffer
			for _, o := range list {
				text, err := yaml.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				out.WriteString("---\n")
				out.Write(text)
			}
			path := filepath.Join("../../testdata/objects", name+".yaml")
			if *update {
				if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), out.String()); diff != "" {
				t.Errorf("%s (rewrite it with -update):\n%s", path, diff)
			}
		})
	}
}

// What is disabled is left out.
func TestDisabledAddons(t *testing.T) {
	c := load(t, "", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ndns: {disabled: true}\nproxy: {disabled: true}\n")
	for name, plan := range map[string]func(*config.Cluster) ([]*unstructured.Unstructured, error){"coredns": addon.CoreDNS, "kube-proxy": addon.KubeProxy} {
		if list, err := plan(c); err != nil || len(list) > 0 {
			t.Errorf("%s: %d objects, %v", name, len(list), err)
		}
	}
	c.DNSDisabled = false
	c.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")}
	if _, err := addon.CoreDNS(c); err == nil {
		t.Error("a subnet without a tenth address has one")
	}
}
