package reset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// errKilled is the panic that stands for SIGKILL.
var errKilled = errors.New("killed")

// power lets a number of effects happen, then ends the run at once.
type power struct{ left int }

func (p *power) spend() {
	if p.left--; p.left < 0 {
		panic(errKilled)
	}
}

// crashing is a Store that dies before, or in the middle of, an effect.
type crashing struct {
	disk  artifact.Disk
	power *power
}

func (c crashing) ReadFile(path string) (artifact.File, error) { return c.disk.ReadFile(path) }
func (c crashing) ReadDir(path string) ([]string, error)       { return c.disk.ReadDir(path) }

func (c crashing) Put(f artifact.File) error {
	c.power.spend()
	if old, err := c.disk.ReadFile(f.Path); err == nil && bytes.Equal(old.Data, f.Data) {
		return c.disk.Put(f)
	}
	if !f.Mode.IsDir() { // the temporary file is half written
		temp := filepath.Join(c.disk.Root, artifactTemp(f.Path))
		if err := os.WriteFile(temp, []byte("ha"), 0o600); err != nil {
			return err
		}
		c.power.spend()
	}
	return c.disk.Put(f)
}

func (c crashing) Remove(path string) error {
	c.power.spend()
	return c.disk.Remove(path)
}

// miniInit makes what an init makes, of every kind that is about files, in the same way. It ends early when power does.
func miniInit(t *testing.T, root string, p *power) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != any(errKilled) {
			panic(r)
		}
	}()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p.spend()
	release, err := ledger.Lock(root, lockPath)
	must(err)
	_ = release // SIGKILL releases nothing but the flock, which dies with the descriptor
	defer unlock(t, root)
	p.spend()
	l, err := ledger.Open(root, ledgerPath)
	must(err)
	defer l.Close()
	store := ledger.Recorded(crashing{artifact.Disk{Root: root}, p}, l)
	put := func(path, data string, mode fs.FileMode) {
		t.Helper()
		must(store.Put(artifact.File{Path: path, Data: []byte(data), Mode: mode}))
	}
	program := func(path, data string) { // writes behind the ledger's back, as etcd and containerd do
		t.Helper()
		p.spend()
		must(os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o700))
		must(os.WriteFile(filepath.Join(root, path), []byte(data), 0o600))
	}

	must(l.Tree("/run/slipway"))
	must(l.Dirs("/var/log/pods"))
	must(l.Record(ledger.Entry{Kind: ledger.Glob, Path: "/var/log/pods/kube-system_etcd-node1_*"}))
	put("/etc/kubernetes/pki/ca.key", "key", 0o600)
	put("/etc/kubernetes/pki/ca.crt", "crt", 0o644) // a file of the user's is changed
	put("/etc/kubernetes/pki/etcd/ca.crt", "crt", 0o644)
	put("/etc/kubernetes/admin.conf", "conf", 0o600)
	put("/etc/kubernetes/admin.conf", "conf 2", 0o600)
	must(store.Put(artifact.File{Path: "/var/lib/kubelet", Mode: fs.ModeDir | 0o700})) // and a mode
	put("/var/lib/kubelet/config.yaml", "kind: KubeletConfiguration", 0o644)
	must(store.Put(artifact.File{Path: "/var/lib/etcd", Mode: fs.ModeDir | 0o700, Tree: true}))
	must(store.Put(artifact.File{Path: "/var/lib/etcd2", Mode: fs.ModeDir | 0o700, Tree: true})) // was there, empty
	put("/etc/kubernetes/manifests/etcd.yaml", "kind: Pod", 0o600)
	if _, err := store.ReadFile("/etc/stale"); err == nil {
		must(store.Remove("/etc/stale"))
	}
	must(l.Tree("/var/lib/slipway/containerd"))
	program("/var/lib/slipway/containerd/meta.db", "db")
	put("/run/slipway/containerd.pid", "1", 0o600)
	program("/run/slipway/containerd/bundle/rootfs/file", "x")
	program("/var/lib/etcd/member/wal", "wal")
	program("/var/lib/etcd2/member/wal", "wal")
	program("/var/log/pods/kube-system_etcd-node1_1/etcd/0.log", "log")
}

// unlock stands for the end of the process: the next one may lock the file that is left.
func unlock(t *testing.T, root string) {
	t.Helper()
	name := filepath.Join(root, lockPath)
	data, err := os.ReadFile(name)
	if err != nil {
		return
	}
	if err := errors.Join(os.Remove(name), os.WriteFile(name, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// strangersTree is what is on the machine before.
func strangersTree(t *testing.T, root string) {
	t.Helper()
	for path, mode := range map[string]fs.FileMode{
		"run/": 0o755, "var/lib/kubelet/": 0o755, "var/lib/etcd2/": 0o711, "var/lib/slipway/images/": 0o755,
		"var/log/pods/kube-system_other-node1_1/": 0o755, "etc/kubernetes/pki/ca.crt": 0o640, "etc/stale": 0o600, "etc/hosts": 0o644,
	} {
		full := filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(full), 0o755)
		if strings.HasSuffix(path, "/") {
			err = errors.Join(err, os.MkdirAll(full, 0o755))
		} else {
			err = errors.Join(err, os.WriteFile(full, []byte("the user's "+path), mode))
		}
		if err := errors.Join(err, os.Chmod(full, mode)); err != nil {
			t.Fatal(err)
		}
	}
}

// snapshot returns every path with its mode and a digest of its contents.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %s", info.Mode(), strings.TrimPrefix(path, root))
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %x", sha256.Sum256(data))
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// undo resets as the command does, and dies after some actions if power ends.
func undo(t *testing.T, root string, p *power) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != any(errKilled) {
			panic(r)
		}
	}()
	live := &Live{Root: root, Ledger: ledgerPath, Lock: lockPath}
	entries, err := ledger.Load(root, ledgerPath)
	if err != nil {
		t.Fatal(err)
	}
	seen, err := live.Look(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := Plan(entries, seen)
	if err != nil {
		t.Fatal(err)
	}
	err = Run(t.Context(), plan, live, func(e Progress) {
		if !e.Done {
			p.spend()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

const unlimited = 1 << 30

func TestResetAfterAKillAtAnyPoint(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string){
		"on a used machine": strangersTree,
		"on an empty machine": func(t *testing.T, root string) {
			if err := errors.Join(os.MkdirAll(root+"/var/lib", 0o755), os.MkdirAll(root+"/var/lib/etcd2", 0o711)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for effects := 0; ; effects++ {
				root := t.TempDir()
				prepare(t, root)
				before := snapshot(t, root)
				p := &power{left: effects}
				miniInit(t, root, p)
				undo(t, root, &power{left: unlimited})
				if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
					t.Fatalf("killed after %d effects (-before +after reset):\n%s", effects, diff)
				}
				if p.left >= 0 {
					t.Logf("%d points", effects)
					return
				}
			}
		})
	}
}

func TestInitContinuesAfterAKillAtAnyPoint(t *testing.T) {
	t.Parallel()
	want := ""
	for effects := unlimited; effects != 0; effects-- {
		root := t.TempDir()
		strangersTree(t, root)
		before := snapshot(t, root)
		p := &power{left: effects}
		miniInit(t, root, p)
		miniInit(t, root, &power{left: unlimited})
		// The ledger's own contents are a matter of its history.
		got := withoutLedger(snapshot(t, root))
		if effects == unlimited {
			want, effects = got, unlimited-p.left
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("continued after %d effects (-whole init +continued):\n%s", effects, diff)
		}
		undo(t, root, &power{left: unlimited})
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Fatalf("continued after %d effects (-before +after reset):\n%s", effects, diff)
		}
	}
}

func withoutLedger(snapshot string) string {
	var lines []string
	for line := range strings.Lines(snapshot) {
		if !strings.Contains(line, ledgerPath) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestResetAfterAResetThatWasKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	for actions := 0; ; actions++ {
		root := t.TempDir()
		strangersTree(t, root)
		before := snapshot(t, root)
		miniInit(t, root, &power{left: unlimited})
		p := &power{left: actions}
		undo(t, root, p)
		undo(t, root, &power{left: unlimited})
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Fatalf("killed after %d actions (-before +after second reset):\n%s", actions, diff)
		}
		if p.left >= 0 {
			return
		}
	}
}

// A line that the disk did not take whole was not synced, so its effect did not happen.
func TestResetWithALedgerTornAtAnyByteOfItsLastLine(t *testing.T) {
	t.Parallel()
	for effects := 2; ; effects++ {
		root := t.TempDir()
		strangersTree(t, root)
		before := snapshot(t, root)
		p := &power{left: effects}
		miniInit(t, root, p)
		name := filepath.Join(root, ledgerPath)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		next := `{"kind":"tree","path":"/etc"}` // what was about to be recorded, and must not count
		for torn := range len(next) {
			if torn%7 != 0 && torn != len(next)-1 { // every byte is tested in package ledger
				continue
			}
			if err := os.WriteFile(name, append(whole[:len(whole):len(whole)], next[:torn]...), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := ledger.Load(root, ledgerPath); err != nil {
				t.Fatal(err)
			}
		}
		undo(t, root, &power{left: unlimited})
		if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
			t.Fatalf("after %d effects (-before +after reset):\n%s", effects, diff)
		}
		if p.left >= 0 {
			return
		}
	}
}

// What the user put into our directories meanwhile stays, and so do the directories around it.
func TestResetKeepsWhatCameLater(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/var/lib", 0o755); err != nil {
		t.Fatal(err)
	}
	miniInit(t, root, &power{left: unlimited})
	for _, path := range []string{"/etc/kubernetes/pki/mine.key", "/etc/kubernetes/manifests/mine.yaml"} {
		if err := os.WriteFile(root+path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", root+"/var/lib/etcd/link"); err != nil { // must not be followed
		t.Fatal(err)
	}
	undo(t, root, &power{left: unlimited})
	var left []string
	for line := range strings.Lines(snapshot(t, root)) {
		left = append(left, strings.Fields(line)[1:]...)
	}
	for _, path := range []string{"/etc/kubernetes/pki/mine.key", "/etc/kubernetes/manifests/mine.yaml"} {
		if !strings.Contains(strings.Join(left, " "), path) {
			t.Errorf("%s is gone", path)
		}
	}
	if n := strings.Count(snapshot(t, root), "\n"); n != 9 { // those two, and above them manifests, pki, kubernetes, etc and the root; var and lib
		t.Errorf("left:\n%s", snapshot(t, root))
	}
}
