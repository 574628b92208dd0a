//go:build e2e

package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// secondInstance moves every port that two control planes on one host would both want.
const secondInstance = `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {name: second}
localAPIEndpoint: {bindPort: 16443}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
controllerManager: {extraArgs: [{name: secure-port, value: "20257"}]}
scheduler: {extraArgs: [{name: secure-port, value: "20259"}]}
etcd:
  local:
    extraArgs:
    - {name: listen-client-urls, value: "https://127.0.0.1:12379"}
    - {name: advertise-client-urls, value: "https://127.0.0.1:12379"}
    - {name: listen-peer-urls, value: "https://127.0.0.1:12380"}
    - {name: initial-advertise-peer-urls, value: "https://127.0.0.1:12380"}
    - {name: initial-cluster, value: "second=https://127.0.0.1:12380"}
    - {name: listen-metrics-urls, value: "http://127.0.0.1:12381"}
`

// TestTwoInstances runs two control planes beside each other on one host and takes the second away under the first.
func TestTwoInstances(t *testing.T) {
	before := take(t)
	initialised(t)
	config := filepath.Join(t.TempDir(), "second.yaml")
	write(t, config, secondInstance)
	t.Cleanup(func() {
		slipway(t, "reset", "--force", "--instance", "second").must(t, "resetting the second instance")
	})
	slipway(t, "init", "--instance", "second", "--config", config, "--image-archives", archives()).must(t, "slipway init --instance second")
	first := ps(t)
	run(t, time.Minute, program("kubectl"), "--kubeconfig", "/etc/kubernetes-second/super-admin.conf", "--cache-dir", t.TempDir(), "create", "namespace", "only-here").must(t, "using the second API")
	if r := superKubectl(t, "get", "namespace", "only-here"); r.code == 0 {
		t.Errorf("the first API shows what was made in the second: %s", r.stdout)
	}
	if r := slipway(t, "ps", "--instance", "second").must(t, "slipway ps"); strings.Count(r.stdout, "second") != 4 {
		t.Errorf("the second instance's containers:\n%s", r.stdout)
	}
	slipway(t, "reset", "--force", "--instance", "second").must(t, "resetting the second instance")
	unchanged(t, first, controlPlane...)
	superKubectl(t, "get", "--raw", "/readyz").must(t, "the first API after the second's reset")
	slipway(t, "reset", "--force").must(t, "resetting the first instance")
	same(t, before, take(t))
}
