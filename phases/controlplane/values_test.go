package controlplane

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

func TestEtcdCertDirsAreMountedOnce(t *testing.T) {
	mounted := []string{"/etc/ssl/certs", "/etc/kubernetes/pki", "/usr/share/ca-certificates"}
	for _, tc := range []struct {
		name          string
		ca, cert, key string
		want          []string
	}{
		{"none", "", "", "", nil},
		{"one directory", "/etc/etcd/ca.crt", "/etc/etcd/c.crt", "/etc/etcd/c.key", []string{"/etc/etcd"}},
		{"three, sorted", "/c/ca.crt", "/b/c.crt", "/a/c.key", []string{"/a", "/b", "/c"}},
		{"an inner one is in the outer one's mount", "/etc/etcd/tls/ca.crt", "/etc/etcd/c.crt", "/etc/etcd/tls/keys/c.key", []string{"/etc/etcd"}},
		{"mounted already", "/etc/kubernetes/pki/etcd/ca.crt", "/etc/ssl/certs/c.crt", "/usr/share/ca-certificates/x/c.key", nil},
		{"a longer name is another directory", "/etc/kubernetes/pki-etcd/ca.crt", "/etc/kubernetes/pki-etcd2/c.crt", "/etc/ssl/certs2/c.key",
			[]string{"/etc/kubernetes/pki-etcd", "/etc/kubernetes/pki-etcd2", "/etc/ssl/certs2"}},
		{"everything below the root", "/ca.crt", "/etc/etcd/c.crt", "", []string{"/"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := etcdCertDirs(&config.ExternalEtcd{CAFile: tc.ca, CertFile: tc.cert, KeyFile: tc.key}, mounted)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFindSigningCA(t *testing.T) {
	cfg := &config.Cluster{Paths: config.NewPaths("")}
	local := LocalCA(cfg)
	for _, tc := range []struct {
		name  string
		files []string
		want  SigningCA
	}{
		{"nothing yet: certs will make it", nil, local},
		{"both", []string{"ca.crt", "ca.key"}, local},
		{"a certificate alone is an external CA", []string{"ca.crt"}, SigningCA{}},
		{"a key alone is for certs to judge", []string{"ca.key"}, local},
	} {
		t.Run(tc.name, func(t *testing.T) {
			disk := artifact.Disk{Root: t.TempDir()}
			for _, name := range tc.files {
				if err := disk.Put(artifact.File{Path: cfg.Paths.PKI + "/" + name, Data: []byte("x"), Mode: 0o600}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := FindSigningCA(cfg, disk)
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

func TestErrorsNameTheComponent(t *testing.T) {
	cfg := &config.Cluster{Paths: config.NewPaths(""), AdvertiseAddress: netip.MustParseAddr("192.0.2.10"),
		Etcd:      config.Etcd{Local: &config.LocalEtcd{}},
		Scheduler: config.Component{ExtraArgs: []config.Arg{{Name: "secure-port", Value: "x"}}}}
	if _, err := Manifests(cfg, LocalCA(cfg)); err == nil || !strings.HasPrefix(err.Error(), `planning kube-scheduler: extraArgs "secure-port": "x" is not a port`) {
		t.Errorf("got %v", err)
	}
	cfg.Scheduler = config.Component{}
	cfg.Patches = []config.Patch{{Target: "kube-apiserver", Type: "merge", File: "kube-apiserver+merge.yaml", Data: []byte(`{"spec":{"x":1}}`)}}
	if _, err := Manifests(cfg, LocalCA(cfg)); err == nil || !strings.HasPrefix(err.Error(), `reading kube-apiserver after merge patch "kube-apiserver+merge.yaml": unknown field "spec.x"`) {
		t.Errorf("got %v", err)
	}
}

// What -o yaml prints is what the phase writes.
func TestManifestsAreTheFilesOfTheirPhases(t *testing.T) {
	cfg := &config.Cluster{Paths: config.NewPaths(""), AdvertiseAddress: netip.MustParseAddr("192.0.2.10"), Etcd: config.Etcd{Local: &config.LocalEtcd{}}}
	files, err := Manifests(cfg, LocalCA(cfg))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Mode.String()+" "+f.Path)
		if f.Mode != fs.FileMode(0o600) || f.Secret {
			t.Errorf("%s: mode %v, secret %v", f.Path, f.Mode, f.Secret)
		}
	}
	want := []string{
		"-rw------- /etc/kubernetes/manifests/kube-apiserver.yaml",
		"-rw------- /etc/kubernetes/manifests/kube-controller-manager.yaml",
		"-rw------- /etc/kubernetes/manifests/kube-scheduler.yaml",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
