package pki_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/pki"
)

func TestExpirations(t *testing.T) {
	external := newMemory()
	if _, err := run(t, cluster(func(c *config.Cluster) { c.Etcd = config.Etcd{External: &config.ExternalEtcd{}} }), external, now); err != nil {
		t.Fatal(err)
	}
	damaged := made(t, now)
	reissued(cluster(), now.Add(-366*day))(t, damaged)
	without(caKey, dir+"etcd/peer.crt", "/etc/kubernetes/scheduler.conf")(t, damaged)
	truncated(dir+"front-proxy-client.crt")(t, damaged)
	contents("/etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\n")(t, damaged)

	var b strings.Builder
	for _, tt := range []struct {
		name  string
		files *memory
	}{{"all there", made(t, now)}, {"external etcd", external}, {"damaged", damaged}, {"nothing", newMemory()}} {
		fmt.Fprintf(&b, "# %s\n", tt.name)
		for _, e := range pki.Expirations(tt.files.bytes, config.NewPaths("")) {
			state := e.NotAfter.Format("2006-01-02")
			switch {
			case e.Missing:
				state = "missing"
			case e.Err != nil:
				state = e.Err.Error()
			}
			if e.External {
				state += " (external)"
			}
			fmt.Fprintf(&b, "%-24s by %-15s %s\n", e.Name, e.CA, state)
		}
		fmt.Fprintln(&b)
	}
	golden(t, "expirations.txt", b.String())
}

// The list of kubeconfigs is kept in two packages, of which one imports the other.
func TestExpirationsKnowsEveryKubeconfig(t *testing.T) {
	var want, got []string
	for _, s := range kubeconfig.Table() {
		want = append(want, s.File)
	}
	for _, e := range pki.Expirations(newMemory().bytes, config.NewPaths("")) {
		if strings.HasSuffix(e.Name, ".conf") {
			got = append(got, e.Name)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("lists %v, want %v", got, want)
	}
}
