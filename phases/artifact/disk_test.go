package artifact

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPutWritesExactModeWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	root := t.TempDir()
	d := Disk{Root: root}
	mustPut(t, d, File{Path: "/etc/kubernetes/manifests/etcd.yaml", Data: []byte("a\n"), Mode: 0o644})
	mustPut(t, d, File{Path: "/var/lib/etcd", Mode: fs.ModeDir | 0o700})
	for path, mode := range map[string]fs.FileMode{
		"etc": 0o755, "etc/kubernetes/manifests": 0o755, "etc/kubernetes/manifests/etcd.yaml": 0o644, "var/lib/etcd": 0o700,
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s: mode %04o, want %04o", path, info.Mode().Perm(), mode)
		}
	}
}

func TestPutLeavesAnEqualFileAlone(t *testing.T) {
	root := t.TempDir()
	f := File{Path: "/a", Data: []byte("same"), Mode: 0o600}
	mustPut(t, Disk{Root: root}, f)
	d := Disk{Root: root, write: func(*os.File, []byte) error { t.Error("wrote an equal file"); return nil }}
	mustPut(t, d, f)
	before := inode(t, filepath.Join(root, "a"))
	f.Mode = 0o640
	mustPut(t, d, f) // only the mode: no new file either
	if inode(t, filepath.Join(root, "a")) != before {
		t.Error("a new mode replaced the file")
	}
	if got, _ := d.ReadFile("/a"); got.Mode != 0o640 {
		t.Errorf("mode %04o, want 0640", got.Mode)
	}
}

func TestPutKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	root := t.TempDir()
	name := filepath.Join(root, "a")
	if err := errors.Join(os.WriteFile(name, []byte("old"), 0o600), os.Chown(name, 65534, 65533)); err != nil {
		t.Fatal(err)
	}
	mustPut(t, Disk{Root: root}, File{Path: "/a", Data: []byte("new"), Mode: 0o600})
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 65534 || st.Gid != 65533 {
		t.Errorf("owner is %d:%d, want 65534:65533", st.Uid, st.Gid)
	}
}

func TestPutThatFailsLeavesTheOldFile(t *testing.T) {
	root := t.TempDir()
	mustPut(t, Disk{Root: root}, File{Path: "/etc/admin.conf", Data: []byte("old"), Mode: 0o600})
	full := Disk{Root: root, write: func(w *os.File, data []byte) error {
		_, _ = w.Write(data[:2])
		return &fs.PathError{Op: "write", Path: w.Name(), Err: syscall.ENOSPC}
	}}
	err := full.Put(File{Path: "/etc/admin.conf", Data: []byte("something new"), Mode: 0o600})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want ENOSPC", err)
	}
	want := `writing "` + root + `/etc/admin.conf": no space left on device: free at least 13 bytes there, then run the same command again`
	if err.Error() != want {
		t.Errorf("error\n%s\nwant\n%s", err, want)
	}
	wantNames(t, filepath.Join(root, "etc"), "admin.conf")
	if got, _ := full.ReadFile("/etc/admin.conf"); string(got.Data) != "old" {
		t.Errorf("the old file became %q", got.Data)
	}
}

func TestPutOnAFullDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	d := Disk{Root: root}
	mustPut(t, d, File{Path: "/admin.conf", Data: []byte("old"), Mode: 0o600})
	err := d.Put(File{Path: "/admin.conf", Data: make([]byte, 1<<20), Mode: 0o600})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want ENOSPC", err)
	}
	wantNames(t, root, "admin.conf")
	if got, _ := d.ReadFile("/admin.conf"); string(got.Data) != "old" {
		t.Errorf("the old file became %q", got.Data)
	}
}

func TestPutReplacesTheTemporaryFileOfAKilledRun(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, TempName("a")), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustPut(t, Disk{Root: root}, File{Path: "/a", Data: []byte("whole"), Mode: 0o600})
	wantNames(t, root, "a")
}

func TestSymbolicLinks(t *testing.T) {
	t.Run("are written through", func(t *testing.T) {
		root := t.TempDir()
		mustPut(t, Disk{Root: root}, File{Path: "/vault/ca.crt", Data: []byte("old"), Mode: 0o644})
		mustLink(t, "vault/ca.crt", filepath.Join(root, "ca.crt"))
		mustPut(t, Disk{Root: root}, File{Path: "/ca.crt", Data: []byte("new"), Mode: 0o644})
		if got, _ := (Disk{Root: root}).ReadFile("/vault/ca.crt"); string(got.Data) != "new" {
			t.Errorf("the target holds %q", got.Data)
		}
		if _, err := os.Readlink(filepath.Join(root, "ca.crt")); err != nil {
			t.Errorf("the link is gone: %v", err)
		}
	})
	t.Run("to nowhere are refused", func(t *testing.T) {
		root := t.TempDir()
		mustLink(t, "nowhere", filepath.Join(root, "a"))
		wantError(t, Disk{Root: root}.Put(File{Path: "/a", Mode: 0o600}), "symbolic link to nowhere")
	})
	t.Run("out of the root are refused", func(t *testing.T) {
		root, outside := t.TempDir(), t.TempDir()
		mustLink(t, outside, filepath.Join(root, "etc"))
		d := Disk{Root: root}
		wantError(t, d.Put(File{Path: "/etc/a", Mode: 0o600}), "out of root")
		_, err := d.ReadFile("/etc/a")
		wantError(t, err, "out of root")
		wantNames(t, outside)
	})
	t.Run("are removed themselves", func(t *testing.T) {
		root := t.TempDir()
		mustPut(t, Disk{Root: root}, File{Path: "/target", Data: []byte("x"), Mode: 0o600})
		mustLink(t, "target", filepath.Join(root, "a"))
		if err := (Disk{Root: root}).Remove("/a"); err != nil {
			t.Fatal(err)
		}
		wantNames(t, root, "target")
	})
}

func TestWhatIsInTheWayIsNamed(t *testing.T) {
	d := Disk{Root: t.TempDir()}
	mustPut(t, d, File{Path: "/file", Mode: 0o600})
	mustPut(t, d, File{Path: "/dir", Mode: fs.ModeDir | 0o700})
	wantError(t, d.Put(File{Path: "/dir", Mode: 0o600}), "a directory is in the way")
	wantError(t, d.Put(File{Path: "/file", Mode: fs.ModeDir | 0o700}), "a file is in the way")
	wantError(t, d.Put(File{Path: "/file/below", Mode: 0o600}), "not a directory")
	wantError(t, d.Put(File{Path: "relative", Mode: 0o600}), "relative")
	if _, err := d.ReadFile("/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading a missing file: %v, want fs.ErrNotExist", err)
	}
	if err := d.Remove("/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing a missing file: %v, want fs.ErrNotExist", err)
	}
	mustPut(t, d, File{Path: "/dir/a", Mode: 0o600})
	wantError(t, d.Remove("/dir"), "not empty")
}

func mustPut(t *testing.T, s Store, f File) {
	t.Helper()
	if err := s.Put(f); err != nil {
		t.Fatal(err)
	}
}

func mustLink(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Errorf("error %v, want one with %q", err, part)
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}
