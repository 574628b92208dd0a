package backup

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

var (
	files = []artifact.File{
		{Path: "/etc/kubernetes/pki/ca.crt", Data: []byte("certificate"), Mode: 0o644},
		{Path: "/etc/kubernetes/pki/ca.key", Data: []byte("key"), Mode: 0o600, Secret: true},
	}
	data  = bytes.Repeat([]byte("etcd "), 1000)
	about = Manifest{Time: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), Node: "edge1", Address: netip.MustParseAddr("192.0.2.1"), Port: 6443, Revision: 7}
)

func archive(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, about, files, bytes.NewReader(data), int64(len(data)), sumOf(data)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReadReturnsWhatWasWritten(t *testing.T) {
	var snapshot bytes.Buffer
	m, got, err := Read(bytes.NewReader(archive(t)), &snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files, got); diff != "" {
		t.Errorf("files, -want +got:\n%s", diff)
	}
	if m.Node != "edge1" || m.Address != about.Address || m.Revision != 7 || len(m.Files) != 2 || !bytes.Equal(snapshot.Bytes(), data) {
		t.Errorf("%+v, a snapshot of %d bytes", m, snapshot.Len())
	}
}

// TestEveryCutIsRefused cuts an archive at each of its bytes.
func TestEveryCutIsRefused(t *testing.T) {
	whole := archive(t)
	for n := range whole {
		if _, _, err := Read(bytes.NewReader(whole[:n]), io.Discard); err == nil {
			t.Fatalf("an archive of %d bytes, cut to %d, was taken", len(whole), n)
		}
	}
	_, _, err := Read(bytes.NewReader(whole[:len(whole)/2]), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("half of it: %v", err)
	}
}

// TestTamperingIsRefusedWithWhatIsWrong changes the unpacked tar file.
func TestTamperingIsRefusedWithWhatIsWrong(t *testing.T) {
	zip, err := gzip.NewReader(bytes.NewReader(archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ old, new, want string }{
		"a file":          {"certificate", "certificatf", "files/etc/kubernetes/pki/ca.crt is damaged"},
		"the snapshot":    {"etcd etcd etcd", "etcd etce etcd", "etcd/snapshot.db is damaged"},
		"the manifest":    {`"node": "edge1"`, `"node": "edge2"`, "MANIFEST.json is damaged"},
		"its format":      {`"format": 1`, `"format": 2`, "format 2, this slipway reads format 1"},
		"a path above":    {`"path": "/etc/kubernetes/pki/ca.crt"`, `"path": "/../../kubernetes/p/ca.crt"`, "not an absolute path"},
		"a path twice":    {`"path": "/etc/kubernetes/pki/ca.crt"`, `"path": "/etc/kubernetes/pki/ca.key"`, "named twice"},
		"another order":   {"files/etc/kubernetes/pki/ca.key", "files/etc/kubernetes/pki/cb.key", ""},
		"the first entry": {"MANIFEST.json", "MANIFEST.jsom", ""},
	} {
		changed := bytes.Replace(plain, []byte(tc.old), []byte(tc.new), 1)
		if bytes.Equal(changed, plain) {
			t.Fatalf("%s: nothing to change", name)
		}
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(changed); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Read(&out, io.Discard); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if _, _, err := Read(strings.NewReader("PK"), io.Discard); err == nil || !strings.Contains(err.Error(), "no archive of slipway's") {
		t.Errorf("something else: %v", err)
	}
}

// An archive is read into memory: one that packs well must not fill it.
func TestFilesAreBoundedInAll(t *testing.T) {
	large := make([]byte, maxFile)
	var many []artifact.File
	for i := range maxFiles/maxFile + 1 {
		many = append(many, artifact.File{Path: fmt.Sprintf("/etc/kubernetes/pki/%d", i), Data: large, Mode: 0o600})
	}
	var out bytes.Buffer
	if err := Write(&out, about, many, bytes.NewReader(data), int64(len(data)), sumOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Read(&out, io.Discard); err == nil || !strings.Contains(err.Error(), "more than 64 MiB in all") {
		t.Errorf("got %v", err)
	}
}

const apiServer = `apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.36.3
    command: [kube-apiserver, --advertise-address=192.0.2.1, --encryption-provider-config=/enc/config.yaml, --audit-policy-file=/policy/audit/policy.yaml, --authorization-config, /policy/authz.yaml]
    volumeMounts:
    - {name: enc, mountPath: /enc/config.yaml}
    - {name: policy, mountPath: /policy}
    - {name: data, mountPath: /data}
    - {name: pki, mountPath: /etc/kubernetes/pki}
    - {name: certs, mountPath: /etc/ssl/certs}
  volumes:
  - {name: enc, hostPath: {path: /srv/enc.yaml}}
  - {name: policy, hostPath: {path: /srv/policy}}
  - {name: data, hostPath: {path: /srv/data}}
  - {name: pki, hostPath: {path: /etc/kubernetes/pki}}
  - {name: certs, hostPath: {path: /etc/ssl/certs}}
`

func TestCollectTakesWhatTheComponentsRead(t *testing.T) {
	disk := artifact.Disk{Root: t.TempDir()}
	for path, data := range map[string]string{
		"/etc/kubernetes/manifests/kube-apiserver.yaml": apiServer,
		"/etc/kubernetes/manifests/mine.yaml":           "kind: Pod\n",
		"/etc/kubernetes/manifests/.hidden.yaml":        "x",
		"/etc/kubernetes/pki/ca.key":                    "key",
		"/etc/kubernetes/pki/etcd/ca.key":               "key",
		"/etc/kubernetes/admin.conf":                    "x",
		"/var/lib/kubelet/config.yaml":                  "x",
		"/srv/enc.yaml":                                 "secret",
		"/srv/policy/audit/policy.yaml":                 "x",
		"/srv/policy/authz.yaml":                        "x",
		"/srv/policy/other.yaml":                        "x",
		"/srv/data/large":                               strings.Repeat("x", 100),
	} {
		if err := disk.Put(artifact.File{Path: path, Data: []byte(data), Mode: 0o600}); err != nil {
			t.Fatal(err)
		}
	}
	p, err := plane.Read(disk, config.NewPaths(""))
	if err != nil {
		t.Fatal(err)
	}
	collected, left, err := Collect(disk, p)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range collected {
		got = append(got, filepath.Clean(f.Path))
	}
	want := []string{"/etc/kubernetes/admin.conf", "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/manifests/mine.yaml",
		"/etc/kubernetes/pki/ca.key", "/etc/kubernetes/pki/etcd/ca.key", "/srv/enc.yaml", "/srv/policy/audit/policy.yaml", "/srv/policy/authz.yaml", "/var/lib/kubelet/config.yaml"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("collected, -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/srv/data", "/srv/policy"}, left); diff != "" {
		t.Errorf("left, -want +got:\n%s", diff)
	}
}
