package lastgood

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const etcdName = "kube-system/etcd-node"

func openStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "last-good"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s *Store, name string) Record {
	t.Helper()
	record, err := s.Load(name)
	need(t, err)
	return record
}

// describe is what the tests compare of a record.
func describe(r Record) string {
	rejected := ""
	if r.Rejected != nil {
		rejected = r.Rejected.Version
	}
	return fmt.Sprintf("good %q rejected %q", Version(r.Good), rejected)
}

func expect(t *testing.T, s *Store, want string) {
	t.Helper()
	if got := describe(load(t, s, etcdName)); got != want {
		t.Errorf("stored: %s, want %s", got, want)
	}
}

func rejection(name string) Rejection {
	return Rejection{Pod: etcdName, Version: name + "/" + name, UID: name, Source: "/etc/kubernetes/manifests/etcd.yaml",
		At: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC), Reason: "container etcd ended 3 times", Log: []string{"no such option"}}
}

func TestARecordThroughItsLife(t *testing.T) {
	s := openStore(t)
	expect(t, s, `good "" rejected ""`)
	need(t, s.Keep(version("v1", "true")))
	expect(t, s, `good "v1/v1" rejected ""`)
	need(t, s.Reject(rejection("v2")))
	expect(t, s, `good "v1/v1" rejected "v2/v2"`)
	need(t, s.Keep(version("v1", "true"))) // the one that was returned to
	expect(t, s, `good "v1/v1" rejected "v2/v2"`)
	need(t, s.Forgive(etcdName))
	expect(t, s, `good "v1/v1" rejected ""`)
	need(t, s.Forgive(etcdName))
	need(t, s.Reject(rejection("v3")))
	need(t, s.Keep(version("v4", "true")))
	expect(t, s, `good "v4/v4" rejected ""`)
	need(t, s.Forget(etcdName))
	expect(t, s, `good "" rejected ""`)
	need(t, s.Forget(etcdName))
	need(t, s.Forgive(etcdName))
	if err := s.Reject(rejection("v5")); err == nil {
		t.Error("a version was rejected for nothing")
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAPodComesBackAsItWent(t *testing.T) {
	parsed, err := manifest.Parse([]byte(`
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system, annotations: {slipway.dev/rollback: "true"}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 7
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.6.8-0
    command: [etcd, --name=<&>]
    env: [{name: PASSWORD, value: geheim}]
    resources: {requests: {cpu: 1000m, memory: 0.5Gi}}
    livenessProbe: {httpGet: {port: 2381, path: /livez}}
    volumeMounts: [{name: data, mountPath: /var/lib/etcd}]
  volumes: [{name: data, hostPath: {path: /var/lib/etcd, type: DirectoryOrCreate}}]
`), "/etc/kubernetes/manifests/etcd.yaml", "node")
	need(t, err)
	s := openStore(t)
	need(t, s.Keep(parsed))
	got := load(t, s, parsed.FullName()).Good
	if diff := cmp.Diff(parsed, got, cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 }), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-kept +loaded):\n%s", diff)
	}
	before, err := json.Marshal(parsed.Pod)
	need(t, err)
	after, err := json.Marshal(got.Pod)
	need(t, err)
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("as JSON (-kept +loaded):\n%s", diff)
	}
	need(t, s.Reject(Rejection{Pod: parsed.FullName(), Version: "x", At: time.Unix(1, 0).UTC(), Reason: "why", Log: []string{"a", "b"}}))
	want := &Rejection{Pod: parsed.FullName(), Version: "x", At: time.Unix(1, 0).UTC(), Reason: "why", Log: []string{"a", "b"}, Good: Version(parsed)}
	if diff := cmp.Diff(want, load(t, s, parsed.FullName()).Rejected); diff != "" {
		t.Errorf("rejection (-want +got):\n%s", diff)
	}
}

func TestOnlyTheOwnerReadsTheStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "last-good")
	need(t, os.MkdirAll(dir, 0o755))
	s, err := OpenStore(dir)
	need(t, err)
	need(t, s.Keep(version("v1", "true")))
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, filepath.Join(dir, "kube-system_etcd-node.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info, err, want)
		}
	}
}

func TestADamagedFileIsNoneAndIsSetAside(t *testing.T) {
	whole := func(s *Store) []byte {
		p := version("v1", "true")
		p.Pod.Spec.Containers = []corev1.Container{{Name: "etcd", Env: []corev1.EnvVar{{Name: "PASSWORD", Value: "geheim"}}}}
		need(t, s.Keep(p))
		data, err := os.ReadFile(s.path(etcdName))
		need(t, err)
		return data
	}
	other := func(c content) []byte {
		inner, err := json.Marshal(c)
		need(t, err)
		data, err := json.Marshal(file{SHA256: sum(inner), Record: inner})
		need(t, err)
		return data
	}
	for name, damage := range map[string]func(data []byte) []byte{
		"empty":         func([]byte) []byte { return nil },
		"cut":           func(data []byte) []byte { return data[:len(data)/2] },
		"one bit":       func(data []byte) []byte { return []byte(strings.Replace(string(data), "geheim", "gehein", 1)) },
		"another pod's": func([]byte) []byte { return other(content{Pod: "kube-system/other"}) },
		"no pod in it":  func([]byte) []byte { return other(content{Pod: etcdName, Good: &good{UID: "x", SpecHash: "y"}}) },
		"no uid": func([]byte) []byte {
			return other(content{Pod: etcdName, Good: &good{Pod: version("v", "").Pod, SpecHash: "y"}})
		},
		"another pod's version": func([]byte) []byte {
			return other(content{Pod: etcdName, Good: &good{Pod: &corev1.Pod{}, UID: "x", SpecHash: "y"}})
		},
		"too long":            func([]byte) []byte { return []byte(strings.Repeat(" ", maxFile+1)) },
		"whole, and too long": func(data []byte) []byte { return append(data, strings.Repeat(" ", maxFile)...) },
		"not an object":       func([]byte) []byte { return []byte(`["geheim"]`) },
		"a list for a record": func([]byte) []byte {
			inner := []byte(`["geheim"]`)
			data, err := json.Marshal(file{SHA256: sum(inner), Record: inner})
			need(t, err)
			return data
		},
	} {
		s := openStore(t)
		data := damage(whole(s))
		need(t, os.WriteFile(s.path(etcdName), data, 0o600))
		record, err := s.Load(etcdName)
		if err == nil || strings.Contains(err.Error(), "gehei") || !strings.Contains(err.Error(), etcdName) {
			t.Errorf("%s: error %v", name, err)
		}
		if record != (Record{}) {
			t.Errorf("%s: still %s", name, describe(record))
		}
		if aside, err := os.ReadFile(s.path(etcdName) + broken); err != nil || string(aside) != string(data) {
			t.Errorf("%s: not set aside: %v", name, err)
		}
		expect(t, s, `good "" rejected ""`)
		if pods, err := s.List(); err != nil || len(pods) > 0 {
			t.Errorf("%s: listed %q, %v", name, pods, err)
		}
	}
}

func TestADamagedFileIsReplacedByTheNextGoodVersion(t *testing.T) {
	s := openStore(t)
	need(t, os.WriteFile(s.path(etcdName), []byte("x"), 0o600))
	if err := s.Keep(version("v1", "true")); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("nothing is said of the damage: %v", err)
	}
	expect(t, s, `good "v1/v1" rejected ""`)
	need(t, os.WriteFile(s.path(etcdName), []byte("x"), 0o600))
	if err := s.Reject(rejection("v2")); err == nil {
		t.Error("a version was rejected for a damaged one")
	}
}

func TestWritesThatWereInterrupted(t *testing.T) {
	s := openStore(t)
	need(t, s.Keep(version("v1", "true")))
	half := filepath.Join(s.dir, newFile+"123")
	need(t, os.WriteFile(half, []byte("{"), 0o600))
	if pods, err := s.List(); err != nil || len(pods) != 1 {
		t.Errorf("listed %q, %v", pods, err)
	}
	s, err := OpenStore(s.dir)
	need(t, err)
	if _, err := os.Stat(half); err == nil {
		t.Error("the half-written file is still there")
	}
	expect(t, s, `good "v1/v1" rejected ""`)
}

func TestFailedWritesLeaveWhatWas(t *testing.T) {
	s := openStore(t)
	need(t, s.Keep(version("v1", "true")))
	big := version("v2", "true")
	big.Pod.Spec.Containers = []corev1.Container{{Name: "etcd", Args: []string{strings.Repeat("x", maxFile)}}}
	if err := s.Keep(big); err == nil {
		t.Error("a version of 32 MiB was stored")
	}
	expect(t, s, `good "v1/v1" rejected ""`)
	path := s.path("kube-system/blocked-node")
	need(t, os.MkdirAll(filepath.Join(path, "in-the-way"), 0o700)) // no file can be renamed to it
	blocked := version("v1", "true")
	blocked.Pod.Name = "blocked-node"
	if err := replace(path, []byte("x")); err == nil {
		t.Error("a file has replaced a directory")
	}
	if names, err := filepath.Glob(filepath.Join(s.dir, newFile+"*")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
}

func TestRejectionsAreBounded(t *testing.T) {
	s := openStore(t)
	need(t, s.Keep(version("v1", "true")))
	r := rejection("v2")
	r.Reason, r.Log = strings.Repeat("so ", 10000), nil
	for i := range 1000 {
		r.Log = append(r.Log, fmt.Sprintf("%d %s", i, strings.Repeat("ü", 10000)))
	}
	need(t, s.Reject(r))
	got := load(t, s, etcdName).Rejected
	if len(got.Log) != maxLogLines || !strings.HasPrefix(got.Log[maxLogLines-1], "999 ") || len(got.Log[0]) > maxLogLine+3 || len(got.Reason) > maxReason+3 {
		t.Errorf("%d lines, the first of %d bytes, a reason of %d", len(got.Log), len(got.Log[0]), len(got.Reason))
	}
	if len(r.Log[999]) < 10000 {
		t.Error("the caller's log was changed")
	}
}

func TestFileNames(t *testing.T) {
	long := "kube-system/" + strings.Repeat("x", 253)
	seen := map[string]string{}
	for name, want := range map[string]string{
		etcdName:                  "kube-system_etcd-node.json",
		"a/b.c":                   "a_b.c.json",
		"a_b/c":                   "", // no name of Kubernetes, and must not meet the next
		"a/b_c":                   "",
		"../../etc/passwd":        "",
		"../x":                    "",
		"/x":                      "",
		"A/b":                     "",
		long:                      "",
		long + "y":                "",
		"kube-system":             "",
		".new-/x":                 "",
		"kube-system/etcd-node/x": "",
		"a/\x00":                  "",
		"":                        "",
	} {
		got := fileName(name)
		if want != "" && got != want || want == "" && (len(got) != 70 || got[0] != '_') {
			t.Errorf("%q is stored as %s, want %s", name, got, want)
		}
		if seen[got] != "" || strings.ContainsAny(got, "/\x00") {
			t.Errorf("%q and %q are both stored as %s", name, seen[got], got)
		}
		seen[got] = name + " "
	}
}

func TestList(t *testing.T) {
	s := openStore(t)
	for _, name := range []string{"b-node", "a-node", strings.Repeat("x", 253)} {
		p := version("v1", "true")
		p.Pod.Name = name
		need(t, s.Keep(p))
	}
	need(t, os.WriteFile(filepath.Join(s.dir, "README"), []byte("x"), 0o600))
	data, err := os.ReadFile(s.path("kube-system/a-node"))
	need(t, err)
	need(t, os.WriteFile(filepath.Join(s.dir, "kube-system_copy.json"), data, 0o600)) // not under its name
	pods, err := s.List()
	need(t, err)
	if diff := cmp.Diff([]string{"kube-system/a-node", "kube-system/b-node", "kube-system/" + strings.Repeat("x", 253)}, pods); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAStoreThatCannotBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	need(t, os.WriteFile(path, nil, 0o600))
	if _, err := OpenStore(filepath.Join(path, "below")); err == nil {
		t.Error("a store below a file")
	}
	s := openStore(t)
	need(t, os.RemoveAll(s.dir))
	if err := s.Keep(version("v1", "true")); err == nil {
		t.Error("kept nowhere")
	}
	if _, err := s.List(); err == nil {
		t.Error("listed nothing")
	}
}
