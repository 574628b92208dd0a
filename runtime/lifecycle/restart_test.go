package lifecycle

import (
	"slices"
	"testing"
)

// TestRestarts holds the decision to the kubelet's. Kubernetes v1.36.3 pkg/api/v1/pod/util.go:419,
// pkg/kubelet/kuberuntime/helpers.go:173.
func TestRestarts(t *testing.T) {
	for _, c := range []struct {
		pod    []string
		name   string
		code   int32
		reason string
		want   bool
	}{
		{[]string{"v1", "policy=Always"}, "etcd", 0, "", true},
		{[]string{"v1", "policy=OnFailure"}, "etcd", 0, "", false},
		{[]string{"v1", "policy=OnFailure"}, "etcd", 1, "", true},
		{[]string{"v1", "policy=Never"}, "etcd", 1, "", false},
		// The container's own policy goes before the pod's.
		{[]string{"v1", "policy=Always", "own=etcd:Never"}, "etcd", 1, "", false},
		{[]string{"v1", "policy=Never", "own=etcd:OnFailure"}, "etcd", 1, "", true},
		{[]string{"v1", "policy=Never", "own=etcd:OnFailure"}, "etcd", 0, "", false},
		{[]string{"v1", "policy=Never", "own=etcd:Always"}, "etcd", 0, "", true},
		// Rules go before policies, the first one that names the code before the others.
		{[]string{"v1", "own=etcd:Never", "rule=etcd:In:3,4:Restart"}, "etcd", 4, "", true},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:In:3,4:Restart"}, "etcd", 5, "", false},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:NotIn:3,4:Restart"}, "etcd", 4, "", false},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:NotIn:3,4:Restart"}, "etcd", 0, "", true},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:In:3:RestartAllContainers"}, "etcd", 3, "", true},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:In:3:Later", "rule=etcd:In:3:Restart"}, "etcd", 3, "", false},
		{[]string{"v1", "own=etcd:Always", "rule=etcd:In:3:Later"}, "etcd", 3, "", true},
		{[]string{"v1", "own=etcd:Never", "rule=etcd:Among:3:Restart"}, "etcd", 3, "", false},
		// Without a policy of the container's own they do not count.
		{[]string{"v1", "policy=Never", "rule=etcd:In:3:Restart"}, "etcd", 3, "", false},
		// Init containers run until they end well; a sidecar always runs.
		{[]string{"v1", "init=prepare", "policy=Always"}, "prepare", 0, "", false},
		{[]string{"v1", "init=prepare", "policy=Always"}, "prepare", 0, "OOMKilled", true},
		{[]string{"v1", "init=prepare", "policy=Never"}, "prepare", 1, "", false},
		{[]string{"v1", "init=prepare", "own=prepare:Never", "rule=prepare:In:0:Restart"}, "prepare", 0, "", false},
		{[]string{"v1", "sidecars=log", "policy=Never"}, "log", 0, "", true},
	} {
		p := pod(c.pod...).Pod
		if got := Restarts(p, specOf(p, c.name), &Container{Name: c.name, ExitCode: c.code, Reason: c.reason}); got != c.want {
			t.Errorf("%v: %s with exit code %d %s: restarted %t, want %t", c.pod, c.name, c.code, c.reason, got, c.want)
		}
	}
}

func TestImages(t *testing.T) {
	p := pod("v1", "init=prepare", "containers=a,b", "volume=data:v1:Never", "volume=a:v1:Always").Pod
	if got, want := Images(p), []string{"prepare:v1", "a:v1", "data:v1", "b:v1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	p.Spec.Containers[0].VolumeMounts, p.Spec.Containers[1].VolumeMounts = nil, nil
	if got, want := Images(p), []string{"prepare:v1", "a:v1", "b:v1"}; !slices.Equal(got, want) {
		t.Errorf("mounted nowhere: %v, want %v", got, want)
	}
}

func TestPullPolicy(t *testing.T) {
	for _, c := range []struct{ words, ref, want string }{
		{"pull=Never", "data:v1", "IfNotPresent"},
		{"pull=Never", "etcd:v1", "Never"},
		{"pull=IfNotPresent", "other:v1", "Never"}, // nothing uses it
		{"pull=Never", "always:v1", "Always"},
	} {
		p := pod("v1", c.words, "volume=data:v1:IfNotPresent", "volume=data:v1:Never", "volume=always:v1:Always").Pod
		if got := string(pullPolicy(p, c.ref)); got != c.want {
			t.Errorf("%s: %s is pulled %s, want %s", c.words, c.ref, got, c.want)
		}
	}
}
