package reset

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBundlesAreReadWithoutContainerd(t *testing.T) {
	state := t.TempDir()
	for name, data := range map[string]string{
		"a/config.json": `{"annotations":{"io.kubernetes.cri.sandbox-name":"etcd-node1","io.kubernetes.cri.container-name":"etcd"},
			"linux":{"cgroupsPath":"/kubepods/burstable/pod1/a"}}`,
		"a/address":        "unix:///run/containerd/s/1",
		"b/config.json":    `{"linux":{"cgroupsPath":"kubepods-burstable-pod1.slice:cri-containerd:b"}}`,
		"b/bootstrap.json": `{"version":3,"address":"unix:///run/containerd/s/2","protocol":"ttrpc"}`,
		"c/init.pid":       "1\n", // runs, but in another cgroup
		"c/config.json":    `{"linux":`,
		"d/address":        "tcp://127.0.0.1:1",
	} {
		path := filepath.Join(state, "io.containerd.runtime.v2.task/k8s.io", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []bundle{
		{Container: Container{ID: "a", Pod: "etcd-node1", Name: "etcd"}, cgroup: "/kubepods/burstable/pod1/a", socket: "/run/containerd/s/1"},
		{Container: Container{ID: "b"}, cgroup: "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-b.scope", socket: "/run/containerd/s/2"},
		{Container: Container{ID: "c"}},
		{Container: Container{ID: "d"}},
	}
	if diff := cmp.Diff(want, bundles(state), cmp.AllowUnexported(bundle{})); diff != "" {
		t.Errorf("bundles (-want +got):\n%s", diff)
	}
}

// The cgroup around a container is removed with it only if it is its pod's.
func TestPodCgroups(t *testing.T) {
	for name, want := range map[string]bool{
		"pod1": true, "kubepods-burstable-pod1.slice": true,
		"kubepods": false, "burstable": false, "kubepods.slice": false, "kubepods-besteffort.slice": false, "system.slice": false, "/": false, ".": false,
	} {
		if isPodCgroup(name) != want {
			t.Errorf("%q: %v, want %v", name, !want, want)
		}
	}
}
