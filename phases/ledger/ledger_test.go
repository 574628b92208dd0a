package ledger

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/host"
)

const path = "/var/lib/slipway/ledger.jsonl"

func TestRecordIsOnDiskBeforeItReturns(t *testing.T) {
	root := t.TempDir()
	l := open(t, root)
	record(t, l, Entry{Kind: Dir, Path: "/etc/kubernetes"})
	if got := load(t, root); !strings.HasSuffix(got, "dir /etc/kubernetes\n") {
		t.Errorf("on disk:\n%s", got)
	}
	info, err := os.Stat(filepath.Join(root, path))
	if err != nil || info.Mode().Perm() != 0o600 { // it holds the former contents of secrets
		t.Errorf("ledger: %v, %v, want mode 0600", info.Mode(), err)
	}
}

func TestALedgerBeginsWithTheDirectoriesMadeForIt(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare []string // directories end in a slash
		want    string
	}{
		"nothing there":            {want: "dir /var\ndir /var/lib\ndir /var/lib/slipway\n"},
		"its directory is missing": {prepare: []string{"var/lib/"}, want: "dir /var/lib/slipway\n"},
		"killed after mkdir":       {prepare: []string{"var/lib/slipway/"}, want: "dir /var/lib/slipway\n"},
		"killed with its lock":     {prepare: []string{"var/lib/slipway/init.lock"}, want: "dir /var/lib/slipway\n"},
		"killed before a line":     {prepare: []string{"var/lib/slipway/ledger.jsonl"}, want: "dir /var/lib/slipway\n"},
		"the user's own":           {prepare: []string{"var/lib/slipway/images/"}, want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, p := range tc.prepare {
				populate(t, root, p)
			}
			open(t, root)
			if diff := cmp.Diff(tc.want, load(t, root)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEntryIsKeptOnce(t *testing.T) {
	root := t.TempDir()
	populate(t, root, "var/lib/slipway/images/")
	l := open(t, root)
	for range 2 {
		record(t, l, Entry{Kind: Saved, Path: "/etc/hosts", Data: []byte("first"), Mode: 0o644})
		record(t, l, Entry{Kind: Saved, Path: "/etc/hosts", Data: []byte("second"), Mode: 0o600})
		record(t, l, Entry{Kind: Process, Name: "containerd", Role: PodRuntime, Argv: []string{"containerd"}})
		record(t, l, Entry{Kind: Process, Name: "containerd", Role: PodRuntime, Argv: []string{"containerd"}, PID: 7, Start: 9})
	}
	want := []Entry{
		{Kind: Saved, Path: "/etc/hosts", Data: []byte("first"), Mode: 0o644},
		{Kind: Process, Name: "containerd", Role: PodRuntime, Argv: []string{"containerd"}},
		{Kind: Process, Name: "containerd", Role: PodRuntime, Argv: []string{"containerd"}, PID: 7, Start: 9},
	}
	for name, got := range map[string][]Entry{"open": l.Entries(), "opened again": open(t, root).Entries()} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A power cut can leave any part of the last line. Its effect did not happen, so it does not count, and what is
// recorded next must not be glued to it.
func TestATornLastLineDoesNotCount(t *testing.T) {
	root := t.TempDir()
	l := open(t, root)
	before := load(t, root)
	whole := contents(t, root)
	record(t, l, Entry{Kind: File, Path: "/etc/kubernetes/admin.conf"})
	line := contents(t, root)[len(whole):]
	tails := []string{strings.Repeat("\x00", 40), "{\"kind\":\"file\"\x00\x00\n"}
	for i := range line {
		tails = append(tails, line[:i])
	}
	for _, tail := range tails {
		if err := os.WriteFile(filepath.Join(root, path), []byte(whole+tail), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(t, root); got != before {
			t.Fatalf("with %q at the end:\n%s", tail, got)
		}
		l := open(t, root)
		record(t, l, Entry{Kind: File, Path: "/next"})
		if got := load(t, root); got != before+"file /next\n" {
			t.Fatalf("recorded after %q:\n%s", tail, got)
		}
	}
}

func TestADamagedLineInTheMiddleIsAnError(t *testing.T) {
	root := t.TempDir()
	open(t, root)
	data := contents(t, root)
	if err := os.WriteFile(filepath.Join(root, path), []byte(strings.Replace(data, "{", "x", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, loadErr := Load(root, path)
	_, openErr := Open(root, path)
	for _, err := range []error{loadErr, openErr} {
		if err == nil || !strings.Contains(err.Error(), "line 1 is damaged") {
			t.Errorf("error %v, want one that names line 1", err)
		}
	}
}

func TestRecordRefusesWhatResetCouldNotActOn(t *testing.T) {
	l := open(t, t.TempDir())
	for _, e := range []Entry{
		{Kind: Dir, Path: "relative"}, {Kind: Tree, Path: "/"}, {Kind: Tree, Path: "/var/../etc"}, {Kind: "other", Path: "/a"},
		{Kind: Unit, Name: "slipway.service"}, {Kind: Process, Role: Supervisor}, {Kind: Runtime, Own: true, Socket: "/s"},
	} {
		if err := l.Record(e); err == nil {
			t.Errorf("recorded %+v", e)
		}
	}
}

func TestRecorded(t *testing.T) {
	file := func(path, data string, mode fs.FileMode) artifact.File {
		return artifact.File{Path: path, Data: []byte(data), Mode: mode}
	}
	for name, tc := range map[string]struct {
		prepare []string
		act     func(t *testing.T, s artifact.Store)
		want    string
	}{
		"a new file and its directories": {
			act:  func(t *testing.T, s artifact.Store) { put(t, s, file("/etc/k/admin.conf", "x", 0o600)) },
			want: "dir /etc\ndir /etc/k\nfile /etc/k/admin.conf\n",
		},
		"what is ours already": {
			act: func(t *testing.T, s artifact.Store) {
				put(t, s, file("/a", "x", 0o600))
				put(t, s, file("/a", "y", 0o640))
				if err := s.Remove("/a"); err != nil {
					t.Error(err)
				}
				put(t, s, file("/a", "z", 0o640))
			},
			want: "file /a\n",
		},
		"a stranger's file that is changed": {
			prepare: []string{"a"},
			act: func(t *testing.T, s artifact.Store) {
				put(t, s, file("/a", "new", 0o600))
				put(t, s, file("/a", "newer", 0o600))
			},
			want: "saved /a\n",
		},
		"a stranger's file that is right": {
			prepare: []string{"a"},
			act:     func(t *testing.T, s artifact.Store) { put(t, s, file("/a", "old", 0o644)) },
		},
		"a stranger's file that is removed": {
			prepare: []string{"a"},
			act: func(t *testing.T, s artifact.Store) {
				if err := s.Remove("/a"); err != nil {
					t.Error(err)
				}
			},
			want: "saved /a\n",
		},
		"a stranger's file that is removed and made again": {
			prepare: []string{"a"},
			act: func(t *testing.T, s artifact.Store) {
				if err := s.Remove("/a"); err != nil {
					t.Error(err)
				}
				put(t, s, file("/a", "new", 0o600))
			},
			want: "saved /a\n",
		},
		"a tree that is made": {
			act: func(t *testing.T, s artifact.Store) {
				put(t, s, artifact.File{Path: "/etcd", Mode: fs.ModeDir | 0o700, Tree: true})
				put(t, s, file("/etcd/member/a", "x", 0o600))
			},
			want: "tree /etcd\n",
		},
		"a tree over an empty directory": {
			prepare: []string{"etcd/"},
			act: func(t *testing.T, s artifact.Store) {
				put(t, s, artifact.File{Path: "/etcd", Mode: fs.ModeDir | 0o755, Tree: true})
			},
			want: "contents /etcd\n",
		},
		"a tree over what a stranger filled": {
			prepare: []string{"etcd/data"},
			act: func(t *testing.T, s artifact.Store) {
				put(t, s, artifact.File{Path: "/etcd", Mode: fs.ModeDir | 0o755, Tree: true})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, p := range append(tc.prepare, "var/lib/slipway/images/") {
				populate(t, root, p)
			}
			l := open(t, root)
			tc.act(t, Recorded(artifact.Disk{Root: root}, l))
			if diff := cmp.Diff(tc.want, load(t, root)); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTreesOfPrograms(t *testing.T) {
	root := t.TempDir()
	for _, p := range []string{"var/lib/slipway/images/", "run/empty/", "run/full/file"} {
		populate(t, root, p)
	}
	l := open(t, root)
	for range 2 { // init again adds nothing
		for _, dir := range []string{"/run/slipway", "/run/slipway/containerd", "/run/empty", "/run/full", "/new/deep"} {
			if err := l.Tree(dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(l.Dirs("/run/containerd/s"), l.Unit("slipway-containerd.service"), l.Unit("slipway-b.service"),
			l.Process(host.Process{Name: "slipway supervise", Argv: []string{"slipway"}})); err != nil {
			t.Fatal(err)
		}
	}
	const want = `tree /run/slipway
contents /run/empty
dir /new
tree /new/deep
dir /run/containerd
dir /run/containerd/s
unit slipway-containerd.service
unit slipway-b.service
process slipway supervise
`
	if diff := cmp.Diff(want, load(t, root)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	for _, e := range l.Entries() {
		if want := (e.Name == "slipway-containerd.service"); (e.Role == PodRuntime) != want {
			t.Errorf("%s has role %q", e, e.Role)
		}
	}
	for path, want := range map[string]bool{"/run/slipway/x": true, "/run/empty/x": true, "/run/empty": false, "/run/full/file": false, "/run/slipwayz": false} {
		if l.Owns(path) != want {
			t.Errorf("Owns(%q) is %v", path, !want)
		}
	}
}

func TestRecordOnAFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	var l *Ledger
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), syscall.Unmount(root, 0)); err != nil {
			t.Error(err)
		}
	})
	l, err := Open(root, path)
	if err != nil {
		t.Fatal(err)
	}
	before := load(t, root)
	err = l.Record(Entry{Kind: Saved, Path: "/big", Data: make([]byte, 1<<17), Mode: 0o600})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free at least") {
		t.Fatalf("error %v, want one that says what to free", err)
	}
	record(t, l, Entry{Kind: File, Path: "/small"})
	if diff := cmp.Diff(before+"file /small\n", load(t, root)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func open(t *testing.T, root string) *Ledger {
	t.Helper()
	l, err := Open(root, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func record(t *testing.T, l *Ledger, e Entry) {
	t.Helper()
	if err := l.Record(e); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s artifact.Store, f artifact.File) {
	t.Helper()
	if err := s.Put(f); err != nil {
		t.Fatal(err)
	}
}

// load returns the ledger as on disk, one entry per line.
func load(t *testing.T, root string) string {
	t.Helper()
	entries, err := Load(root, path)
	if err != nil {
		t.Fatal(err)
	}
	var out string
	for _, e := range entries {
		out += e.String() + "\n"
	}
	return out
}

func contents(t *testing.T, root string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// populate makes a directory, if p ends in a slash, or an old file. The ledger itself it makes empty.
func populate(t *testing.T, root, p string) {
	t.Helper()
	dir, name := filepath.Split(filepath.Join(root, p))
	if strings.HasSuffix(p, "/") {
		dir, name = filepath.Join(root, p), ""
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if name == "" {
		return
	}
	data := []byte("old")
	if name == filepath.Base(path) {
		data = nil
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}
