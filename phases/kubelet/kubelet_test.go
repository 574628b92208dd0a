package kubelet

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/phases/config"
)

func cluster() *config.Cluster {
	return &config.Cluster{
		Paths:          config.NewPaths(""),
		DNSDomain:      "cluster.local",
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
	}
}

func TestDNSIsTheTenthServiceAddress(t *testing.T) {
	for _, tc := range []struct{ subnet, want string }{
		{"10.96.0.0/12", "10.96.0.10"},
		{"10.96.0.250/12", "10.96.0.10"}, // host bits do not count
		{"10.0.0.0/28", "10.0.0.10"},
		{"fd00:10:96::/112", "fd00:10:96::a"},
		{"10.0.0.0/29", "service subnet 10.0.0.0/29 has no address number 10 for the DNS service: use a larger one"},
	} {
		addr, err := nthAddress(netip.MustParsePrefix(tc.subnet), dnsIndex)
		got := addr.String()
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.subnet, got, tc.want)
		}
	}
}

func TestDocumentsThatSendTheSupervisorElsewhereAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster)
		want   string
	}{
		{"another manifest directory", func(c *config.Cluster) { c.Kubelet = []byte(`{"staticPodPath":"/srv/pods"}`) },
			`KubeletConfiguration staticPodPath is "/srv/pods", but the manifests are written to "/etc/kubernetes/manifests": remove the field`},
		{"another runtime", func(c *config.Cluster) {
			c.Kubelet = []byte(`{"containerRuntimeEndpoint":"unix:///run/crio/crio.sock"}`)
		}, `KubeletConfiguration containerRuntimeEndpoint is "unix:///run/crio/crio.sock", but the pods run in "unix:///run/slipway/containerd.sock": remove the field, or set nodeRegistration.criSocket (--cri-socket) to the same`},
		{"the same by a patch", func(c *config.Cluster) {
			c.Patches = []config.Patch{{Target: "kubeletconfiguration", Type: "merge", File: "p", Data: []byte(`{"staticPodPath":null}`)}}
		}, `KubeletConfiguration staticPodPath is ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := cluster()
			tc.change(cfg)
			if _, err := File(cfg); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTheSameRuntimeMayBeNamedTwice(t *testing.T) {
	cfg := cluster()
	cfg.CRISocket = "unix:///run/containerd/containerd.sock"
	cfg.Kubelet = []byte(`{"containerRuntimeEndpoint":"unix:///run/containerd/containerd.sock"}`)
	file, err := File(cfg)
	if err != nil || !strings.Contains(string(file.Data), "containerRuntimeEndpoint: unix:///run/containerd/containerd.sock\n") {
		t.Errorf("%v\n%s", err, file.Data)
	}
}
