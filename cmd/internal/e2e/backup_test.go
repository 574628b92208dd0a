//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

// The addresses of the network namespace in which these tests run their control planes.
const (
	firstAddress  = "10.77.0.1"
	secondAddress = "10.77.0.2"
)

// inNamespace is a network namespace of its own: what is started in it, containerd and so all pods too, stays in it.
type inNamespace struct{ name string }

func newNamespace(t *testing.T) inNamespace {
	t.Helper()
	n := inNamespace{"slipway-e2e-backup"}
	t.Cleanup(func() { run(t, time.Minute, "ip", "netns", "delete", n.name).must(t, "removing the namespace") })
	for _, args := range [][]string{
		{"netns", "add", n.name}, {"-n", n.name, "link", "set", "lo", "up"},
		{"-n", n.name, "link", "add", "inner", "type", "veth", "peer", "name", "outer"},
		{"-n", n.name, "link", "set", "inner", "up"}, {"-n", n.name, "link", "set", "outer", "up"},
		{"-n", n.name, "address", "add", firstAddress + "/24", "dev", "inner"},
		{"-n", n.name, "route", "add", "default", "via", "10.77.0.254", "dev", "inner"},
	} {
		run(t, time.Minute, "ip", args...).must(t, "ip "+strings.Join(args, " "))
	}
	return n
}

func (n inNamespace) ip(t *testing.T, args ...string) {
	t.Helper()
	run(t, time.Minute, "ip", append([]string{"-n", n.name}, args...)...).must(t, "ip "+strings.Join(args, " "))
}

func (n inNamespace) run(t *testing.T, program string, args ...string) result {
	t.Helper()
	return run(t, 4*time.Minute, "nsenter", append([]string{"--net=/run/netns/" + n.name, program}, args...)...)
}

func (n inNamespace) slipway(t *testing.T, args ...string) result {
	t.Helper()
	return n.run(t, slipwayBinary(), args...)
}

func (n inNamespace) kubectl(t *testing.T, args ...string) result {
	t.Helper()
	return n.run(t, program("kubectl"), append([]string{"--kubeconfig", "/etc/kubernetes/super-admin.conf", "--cache-dir", t.TempDir()}, args...)...)
}

// fill makes count ConfigMaps of 1 KiB.
func (n inNamespace) fill(t *testing.T, count int) {
	t.Helper()
	n.kubectl(t, "create", "namespace", "bulk").must(t, "creating the namespace")
	var b strings.Builder
	b.WriteString(`{"apiVersion":"v1","kind":"List","items":[`)
	for i := range count {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one-%05d","namespace":"bulk"},"data":{"number":"%d","filler":%q}}`, i, i, strings.Repeat("x", 1000))
	}
	b.WriteString("]}")
	file := filepath.Join(t.TempDir(), "bulk.json")
	write(t, file, b.String())
	n.kubectl(t, "create", "-f", file).must(t, "creating ConfigMaps")
}

// objects returns every object that nobody changes by itself, as JSON by kind, namespace and name, its uid and
// resourceVersion included.
func (n inNamespace) objects(t *testing.T) map[string]string {
	t.Helper()
	r := n.kubectl(t, "get", "-A", "-o", "json", "--chunk-size=0",
		"configmaps,secrets,serviceaccounts,namespaces,roles,rolebindings,clusterroles,clusterrolebindings").must(t, "reading all objects")
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct{ Namespace, Name string }
		}
	}
	var raw struct{ Items []json.RawMessage }
	for _, into := range []any{&list, &raw} {
		if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
			t.Fatal(err)
		}
	}
	moved := map[string]bool{"kube-system/kubeadm-config": true, "kube-system/kube-proxy": true, "kube-public/cluster-info": true}
	all := map[string]string{}
	for i, o := range list.Items {
		if o.Kind == "ConfigMap" && moved[o.Metadata.Namespace+"/"+o.Metadata.Name] {
			continue // they hold the address
		}
		all[o.Kind+" "+o.Metadata.Namespace+"/"+o.Metadata.Name] = string(raw.Items[i])
	}
	return all
}

// backupCount is how many ConfigMaps the test makes. The figures of docs/performance.md are of 10000.
func backupCount(t *testing.T) int {
	t.Helper()
	text := os.Getenv("BACKUP_CONFIGMAPS")
	if text == "" {
		return 500
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("BACKUP_CONFIGMAPS: %v", err)
	}
	return n
}

// node begins a control plane in a namespace, with objects to lose, and returns these.
func (n inNamespace) node(t *testing.T, name string, count int) map[string]string {
	t.Helper()
	t.Cleanup(func() { slipway(t, "reset", "--force").must(t, "slipway reset") })
	n.slipway(t, "init", "--image-archives", archives(), "--node-name", name).must(t, "slipway init")
	n.fill(t, count)
	eventually(t, time.Minute, "what the controllers make in a new cluster", n.unsettled(t))
	return n.objects(t)
}

// unsettled says what the controllers have still to make of objects' kinds: the rules of the aggregated roles, and each
// namespace's authority and account.
func (n inNamespace) unsettled(t *testing.T) func() string {
	return func() string {
		r := n.kubectl(t, "get", "clusterroles", "admin", "edit", "view", "-o", `jsonpath={range .items[*]}{.metadata.name} {.rules[0].verbs[0]}{"\n"}{end}`)
		for line := range strings.Lines(r.stdout) {
			if len(strings.Fields(line)) != 2 {
				return "no rules yet: " + line
			}
		}
		namespaces := n.kubectl(t, "get", "namespaces", "-o", "name").stdout
		for _, kind := range []string{"configmap/kube-root-ca.crt", "serviceaccount/default"} {
			if r := n.kubectl(t, "get", "configmaps,serviceaccounts", "-A", "-o", "name"); strings.Count(r.stdout, kind) != strings.Count(namespaces, "\n") {
				return fmt.Sprintf("not yet in every namespace: %s %s", kind, r.stderr)
			}
		}
		return r.stderr
	}
}

// TestSnapshotRestore returns to a snapshot, and offers it and what became of it to another cluster, which must refuse.
func TestSnapshotRestore(t *testing.T) {
	n := newNamespace(t)
	database := filepath.Join(t.TempDir(), "etcd.db")
	before := n.node(t, "first", 100)
	n.slipway(t, "etcd", "snapshot", "save", database).must(t, "slipway etcd snapshot save")
	if info, err := os.Stat(database); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info.Mode(), err)
	}
	n.refuse(t, "the control plane lives", "etcd", "snapshot", "restore", database)
	n.keepsItsDataWhereEtcdRefusesTheSnapshot(t, database, before)
	n.rollsBackToTheSnapshot(t, database, before)
	slipway(t, "reset", "--force").must(t, "slipway reset")
	n.refusesBadInput(t, database)
}

// TestBackupRestoreAndMove saves a cluster, empties the machine, brings the cluster back at another address, and moves it
// from there to its old one, by a readdress that is killed while the control plane stands still and continued. Each time
// the old address is gone, and every object is compared.
func TestBackupRestoreAndMove(t *testing.T) {
	n := newNamespace(t)
	dir := t.TempDir()
	archive, cut := filepath.Join(dir, "backup.tar.gz"), filepath.Join(dir, "cut.tar.gz")
	count := backupCount(t)
	before := n.node(t, "first", count)
	saved := n.slipway(t, "backup", archive).must(t, "slipway backup")
	t.Logf("backup of %d ConfigMaps: %v\n%s", count, saved.took.Round(time.Millisecond), saved.stdout)
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cut, string(data[:len(data)-10]))
	if info, err := os.Stat(archive); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info.Mode(), err)
	}
	n.refuse(t, "a control plane is here already", "restore", archive)
	n.refuse(t, "truncated", "restore", cut, "--force")
	n.refuse(t, "[ImagePull] missing images: ", "restore", archive, "--force")
	n.refuse(t, "nothing was touched", "restore", archive, "--force", "--image-archives", dir)
	slipway(t, "reset", "--force").must(t, "slipway reset")

	n.swapAddress(t, firstAddress, secondAddress)
	restored := n.slipway(t, "restore", archive, "--apiserver-advertise-address", secondAddress, "--node-name", "second", "--image-archives", archives()).must(t, "slipway restore")
	t.Logf("restore of %d ConfigMaps at another address: %v\n%s", count, restored.took.Round(time.Millisecond), restored.stderr)
	equal(t, "after the restore", before, n.objects(t))
	n.serves(t, secondAddress, firstAddress)

	n.swapAddress(t, secondAddress, firstAddress)
	planned := n.slipway(t, "readdress", "--apiserver-advertise-address", firstAddress, "--dry-run").must(t, "slipway readdress --dry-run")
	for _, want := range []string{"would update /etc/kubernetes/manifests/etcd.yaml", "would update /etc/kubernetes/pki/apiserver.crt", "would update /etc/kubernetes/admin.conf"} {
		if !strings.Contains(planned.stdout, want) {
			t.Errorf("the plan lacks %q:\n%s", want, planned.stdout)
		}
	}
	n.refuse(t, "not an address of this machine", "readdress", "--apiserver-advertise-address", "10.77.0.99")
	n.killed(t, "/var/lib/slipway/aside/etcd.yaml", "readdress", "--apiserver-advertise-address", firstAddress)
	for _, command := range []string{"init", "apply", "backup"} {
		r := n.slipway(t, command)
		if words := "a move from " + secondAddress + " to " + firstAddress + " was begun and is not finished"; r.code != 1 || !strings.Contains(r.stderr, words) {
			t.Errorf("slipway %s beside it: exit code %d, %q; want 1 and %q", command, r.code, r.stderr, words)
		}
	}
	moved := n.slipway(t, "readdress", "--apiserver-advertise-address", firstAddress).must(t, "slipway readdress")
	t.Logf("readdress: %v\n%s", moved.took.Round(time.Millisecond), moved.stderr)
	equal(t, "after the move", before, n.objects(t))
	n.serves(t, firstAddress, secondAddress)
	if r := n.slipway(t, "readdress", "--apiserver-advertise-address", firstAddress).must(t, "a second move"); !strings.Contains(r.stdout, "already") {
		t.Errorf("a second move said %q", r.stdout)
	}
}

func (n inNamespace) swapAddress(t *testing.T, old, next string) {
	t.Helper()
	n.ip(t, "address", "add", next+"/24", "dev", "inner")
	n.ip(t, "address", "delete", old+"/24", "dev", "inner")
	n.ip(t, "address", "replace", next+"/24", "dev", "inner") // a secondary address goes with the primary one
	n.ip(t, "route", "replace", "default", "via", "10.77.0.254", "dev", "inner")
}

func equal(t *testing.T, when string, want, got map[string]string) {
	t.Helper()
	for name := range got {
		if _, ok := want[name]; !ok && !strings.HasPrefix(name, "Secret kube-system/bootstrap-token-") {
			t.Errorf("%s there is %s, which was not there before", when, name)
		}
	}
	for name, object := range want {
		if got[name] != object {
			t.Errorf("%s %s differs, -want +got:\n%s", when, name, cmp.Diff(object, got[name]))
		}
	}
}

// refuse runs a command that must fail with the words, and change no container.
func (n inNamespace) refuse(t *testing.T, words string, args ...string) {
	t.Helper()
	before := ps(t)
	r := n.slipway(t, args...)
	if r.code != 1 || !strings.Contains(r.stderr, words) {
		t.Errorf("slipway %q: exit code %d, %q; want 1 and %q", args, r.code, r.stderr, words)
	}
	unchanged(t, before, controlPlane...)
}

// keepsItsDataWhereEtcdRefusesTheSnapshot restores a snapshot that etcdutl takes and etcd does not run on: it says that it
// was written by a version to come.
func (n inNamespace) keepsItsDataWhereEtcdRefusesTheSnapshot(t *testing.T, database string, before map[string]string) {
	t.Helper()
	data, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	later := filepath.Join(t.TempDir(), "later.db")
	write(t, later, string(data[:len(data)-sha256.Size]))
	db, err := bbolt.Open(later, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("storageVersion"), []byte("4.0.0"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(later); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	write(t, later, string(append(data, sum[:]...)))

	r := n.slipway(t, "etcd", "snapshot", "restore", later, "--force")
	t.Logf("etcd snapshot restore of what etcd refuses: %v\n%s", r.took.Round(time.Millisecond), r.stderr)
	if r.code != 3 || !strings.Contains(r.stderr, "the control plane runs on its old data again") {
		t.Errorf("exit code %d, want 3", r.code)
	}
	equal(t, "after the return to the old data", before, n.objects(t))
	left, err := os.ReadDir("/var/lib/etcd")
	if err != nil || len(left) != 1 || left[0].Name() != "member" {
		t.Errorf("left in etcd's directory: %v, %v", left, err)
	}
	n.forgetsWhatWasKept(t)
}

// forgetsWhatWasKept removes the snapshots that restores have taken of the data as it was, of which there must be some.
func (n inNamespace) forgetsWhatWasKept(t *testing.T) {
	t.Helper()
	kept, err := filepath.Glob("/var/backups/slipway/before-restore-*.db*")
	if err != nil || len(kept) < 2 {
		t.Errorf("the data as it was: %q, %v; want a snapshot and its note", kept, err)
	}
	for _, path := range kept {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	os.Remove("/var/backups/slipway") //nolint:errcheck // it stays where it was there before
}

// killed begins a command and kills it as soon as there is a file at path.
func (n inNamespace) killed(t *testing.T, path string, args ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=/run/netns/" + n.name, slipwayBinary()}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() }) // where it is not killed below
	eventually(t, 2*time.Minute, path, func() string {
		if _, err := os.Lstat(path); err != nil {
			return err.Error()
		}
		return ""
	})
	cmd.Process.Kill() //nolint:errcheck // its end tells
	if err := cmd.Wait(); err == nil {
		t.Errorf("slipway %q ended before it was killed:\n%s", args, out.String())
	}
}

// rollsBackToTheSnapshot loses what was made after the snapshot, and nothing else, in a restore that is killed when the
// data is exchanged, and begun anew.
func (n inNamespace) rollsBackToTheSnapshot(t *testing.T, database string, before map[string]string) {
	t.Helper()
	n.kubectl(t, "-n", "bulk", "create", "configmap", "after", "--from-literal=a=b").must(t, "creating a ConfigMap")
	n.killed(t, "/var/lib/etcd/member/slipway-unused", "etcd", "snapshot", "restore", database, "--force")
	r := n.slipway(t, "etcd", "snapshot", "restore", database, "--force").must(t, "slipway etcd snapshot restore")
	t.Logf("etcd snapshot restore: %v\n%s%s", r.took.Round(time.Millisecond), r.stderr, r.stdout)
	equal(t, "after the snapshot's restore", before, n.objects(t))
	if !strings.Contains(r.stderr, "a restore was interrupted here; the data that it took out is kept in /var/lib/etcd/before-restore-") {
		t.Error("it does not say where the data is that the first one took out")
	}
	n.forgetsWhatWasKept(t)
}

// refusesBadInput makes another cluster and offers it what it must not take.
func (n inNamespace) refusesBadInput(t *testing.T, database string) {
	n.slipway(t, "init", "--image-archives", archives(), "--node-name", "other").must(t, "slipway init")
	cut := filepath.Join(t.TempDir(), "cut.db")
	data, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cut, string(data[:len(data)/2]))
	n.refuse(t, "truncated", "etcd", "snapshot", "restore", cut, "--force")
	data[len(data)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged.db")
	write(t, damaged, string(data))
	n.refuse(t, "is damaged", "etcd", "snapshot", "restore", damaged, "--force")
	n.refuse(t, "is of another cluster", "etcd", "snapshot", "restore", database, "--force")
}

// serves checks that the API server is reached at the address with a certificate for it, and that no file that slipway
// wrote names the other one.
func (n inNamespace) serves(t *testing.T, address, other string) {
	t.Helper()
	n.kubectl(t, "--server", "https://"+address+":6443", "get", "--raw", "/readyz").must(t, "the API at "+address)
	pair, err := tls.LoadX509KeyPair("/etc/kubernetes/pki/apiserver.crt", "/etc/kubernetes/pki/apiserver.key")
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname(address); err != nil {
		t.Error(err)
	}
	if pair.Leaf.VerifyHostname(other) == nil {
		t.Errorf("the API server's certificate still names %s", other)
	}
	for _, pattern := range []string{"/etc/kubernetes/*.conf", manifests + "/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) < 4 {
			t.Fatalf("%s: %q, %v", pattern, files, err)
		}
		for _, file := range files {
			if data, err := os.ReadFile(file); err != nil || strings.Contains(string(data), other) {
				t.Errorf("%s names %s (%v)", file, other, err)
			}
		}
	}
	if r := n.kubectl(t, "-n", "kube-public", "get", "configmap", "cluster-info", "-o", "jsonpath={.data.kubeconfig}").must(t, "reading cluster-info"); !strings.Contains(r.stdout, "https://"+address+":6443") {
		t.Errorf("cluster-info says\n%s", r.stdout)
	}
	eventually(t, 30*time.Second, "the Node's address", func() string {
		r := n.kubectl(t, "get", "nodes", "-o", `jsonpath={.items[*].status.addresses[?(@.type=="InternalIP")].address}`)
		if strings.TrimSpace(r.stdout) == address {
			return ""
		}
		return r.stdout + r.stderr
	})
	if r := n.slipway(t, "status").must(t, "slipway status"); r.stdout == "" {
		t.Error("slipway status says nothing")
	}
}
