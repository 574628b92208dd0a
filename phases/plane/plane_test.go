package plane

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

const apiServer = `apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: kube-apiserver
    image: registry.example:5000/kube-apiserver:v1.36.3
    command: [kube-apiserver, --advertise-address=192.0.2.1, --secure-port=7443]
    args: [--etcd-servers, "https://127.0.0.1:2379,https://192.0.2.9:2379", --etcd-cafile=/ca, --etcd-certfile=/cert, --etcd-keyfile=/key]
`

const etcdMember = `apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.6.8-0
    command: [etcd, --name=edge1, --data-dir=/var/lib/etcd, "--initial-advertise-peer-urls=https://192.0.2.1:2380"]
`

func disk(t *testing.T, files map[string]string) artifact.Disk {
	t.Helper()
	d := artifact.Disk{Root: t.TempDir()}
	for path, data := range files {
		if err := d.Put(artifact.File{Path: path, Data: []byte(data), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestReadTakesWhatTheFlagsSay(t *testing.T) {
	paths := config.NewPaths("")
	p, err := Read(disk(t, map[string]string{
		filepath.Join(paths.Manifests, "kube-apiserver.yaml"): apiServer,
		filepath.Join(Aside(paths), "etcd.yaml"):              etcdMember,
	}), paths)
	if err != nil {
		t.Fatal(err)
	}
	if p.Address != netip.MustParseAddr("192.0.2.1") || p.Port != 7443 || p.Version != "v1.36.3" {
		t.Errorf("%v %d %q", p.Address, p.Port, p.Version)
	}
	want := EtcdAccess{Servers: []string{"https://127.0.0.1:2379", "https://192.0.2.9:2379"}, CA: "/ca", Cert: "/cert", Key: "/key", Prefix: "/registry"}
	if diff := cmp.Diff(want, p.Etcd); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	member := &Member{Name: "edge1", DataDir: "/var/lib/etcd", Image: "registry.k8s.io/etcd:3.6.8-0", PeerURLs: []string{"https://192.0.2.1:2380"}}
	if diff := cmp.Diff(member, p.Member); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"etcd"}, p.Aside); diff != "" {
		t.Errorf("put aside, -want +got:\n%s", diff)
	}
}

func TestReadRefuses(t *testing.T) {
	paths := config.NewPaths("")
	at := filepath.Join(paths.Manifests, "kube-apiserver.yaml")
	member := filepath.Join(paths.Manifests, "etcd.yaml")
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":       {nil, "there is no control plane here"},
		"no container":  {map[string]string{at: "kind: Pod"}, "it has no container"},
		"no YAML":       {map[string]string{at: "{"}, "reading the manifest"},
		"no address":    {map[string]string{at: strings.Replace(apiServer, "192.0.2.1,", "here,", 1)}, "--advertise-address"},
		"no port":       {map[string]string{at: strings.Replace(apiServer, "7443", "x", 1)}, "--secure-port"},
		"member's name": {map[string]string{at: apiServer, member: strings.Replace(etcdMember, "--name=edge1, ", "", 1)}, "--name and --data-dir"},
	} {
		if _, err := Read(disk(t, tc.files), paths); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestTag(t *testing.T) {
	for image, want := range map[string]string{"a/b:v1": "v1", "host:5000/b": "", "b:v1@sha256:00": "v1", "b": ""} {
		if got := Tag(image); got != want {
			t.Errorf("%s: got %q, want %q", image, got, want)
		}
	}
}
