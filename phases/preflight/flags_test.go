package preflight

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/config"
)

func TestCheckFlags(t *testing.T) {
	args := func(names ...string) []config.Arg {
		var all []config.Arg
		for _, n := range names {
			all = append(all, config.Arg{Name: n, Value: "x"})
		}
		return all
	}
	for _, tc := range []struct {
		name   string
		change func(*config.Cluster)
		want   []string
	}{
		{"flags that are known, in both spellings", func(c *config.Cluster) {
			c.APIServer.ExtraArgs = args("v", "audit-log-path", "enable_admission_plugins", "runtime-config")
			c.Etcd.Local.ExtraArgs = args("quota-backend-bytes", "config-file")
		}, nil},
		{"a slip of the keyboard", func(c *config.Cluster) { c.Scheduler.ExtraArgs = args("leader-elct") },
			[]string{`error [Flag-kube-scheduler] scheduler.extraArgs "leader-elct": kube-scheduler of Kubernetes 1.36 has no such flag: did you mean "leader-elect"?`}},
		{"nothing like it", func(c *config.Cluster) { c.ControllerManager.ExtraArgs = args("no-such-flag-anywhere") },
			[]string{`error [Flag-kube-controller-manager] controllerManager.extraArgs "no-such-flag-anywhere": kube-controller-manager of Kubernetes 1.36 has no such flag: remove it`}},
		{"etcd's", func(c *config.Cluster) { c.Etcd.Local.ExtraArgs = args("snapshot-cout") },
			[]string{`error [Flag-etcd] etcd.local.extraArgs "snapshot-cout": etcd 3.6 has no such flag: did you mean "snapshot-count"?`}},
		{"another program's", func(c *config.Cluster) { c.APIServer.ExtraArgs = args("cluster-cidr") },
			[]string{`error [Flag-kube-apiserver] apiServer.extraArgs "cluster-cidr": kube-apiserver of Kubernetes 1.36 has no such flag: remove it`}},
		{"a version of which nothing is known", func(c *config.Cluster) {
			c.KubernetesVersion, c.Scheduler.ExtraArgs = "v1.99.0", args("leader-elct")
		}, []string{"warning [KubernetesVersion] v1.99.0 is newer than v1.36.3, the newest that this slipway was tested with"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cluster()
			tc.change(c)
			if diff := cmp.Diff(tc.want, texts(Check(c, machine()))); diff != "" {
				t.Errorf("problems differ (-want +got):\n%s", diff)
			}
		})
	}
}
