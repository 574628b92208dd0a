package artifact

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// scenario is two phases' worth of writes over a disk that holds something already.
func scenario(t *testing.T) (Disk, []func(Store)) {
	t.Helper()
	d := Disk{Root: t.TempDir()}
	mustPut(t, d, File{Path: "/etc/same", Data: []byte("same"), Mode: 0o644})
	mustPut(t, d, File{Path: "/etc/edited", Data: []byte("one\ntwo\n"), Mode: 0o644})
	mustPut(t, d, File{Path: "/etc/key", Data: []byte("old key"), Mode: 0o644})
	mustPut(t, d, File{Path: "/etc/mode", Data: []byte("m"), Mode: 0o644})
	mustPut(t, d, File{Path: "/old/file", Data: []byte("old"), Mode: 0o644})
	return d, []func(Store){
		func(s Store) {
			mustPut(t, s, File{Path: "/etc/same", Data: []byte("same"), Mode: 0o644})
			mustPut(t, s, File{Path: "/etc/edited", Data: []byte("one\n"), Mode: 0o644})
			mustPut(t, s, File{Path: "/etc/edited", Data: []byte("one\n2\n"), Mode: 0o644}) // the last one wins
			mustPut(t, s, File{Path: "/etc/key", Data: []byte("new key!"), Mode: 0o600, Secret: true})
			mustPut(t, s, File{Path: "/etc/mode", Data: []byte("m"), Mode: 0o600})
			mustPut(t, s, File{Path: "/new/deep/file", Data: []byte("new\n"), Mode: 0o600})
			mustPut(t, s, File{Path: "/new/brief", Data: []byte("x"), Mode: 0o600})
			remove(t, s, "/new/brief")
			remove(t, s, "/old/file")
			remove(t, s, "/old")
		},
		func(s Store) {
			f, err := s.ReadFile("/new/deep/file") // what an earlier phase wrote
			if err != nil {
				t.Fatal(err)
			}
			mustPut(t, s, File{Path: "/etc/edited", Data: append([]byte("one\n2\n"), f.Data...), Mode: 0o644})
			mustPut(t, s, File{Path: "/var", Mode: fs.ModeDir | 0o711})
			if _, err := s.ReadFile("/old/file"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a removed file reads as %v, want fs.ErrNotExist", err)
			}
		},
	}
}

const wantChanges = `unchanged /etc/same
update /etc/edited
update /etc/key (mode 0644 → 0600)
chmod /etc/mode (mode 0644 → 0600)
create directory /new (mode 0755)
create directory /new/deep (mode 0755)
create /new/deep/file (mode 0600)
remove /old/file
remove directory /old
flush
update /etc/edited
create directory /var (mode 0711)
flush
`

func TestPreviewAndCommitReturnTheSameChanges(t *testing.T) {
	for name, flushOf := range map[string]func(*Overlay) Flush{
		"preview": func(o *Overlay) Flush { return o.Preview },
		"commit":  func(o *Overlay) Flush { return o.Commit },
	} {
		t.Run(name, func(t *testing.T) {
			d, steps := scenario(t)
			o := NewOverlay(d)
			var got string
			for _, step := range steps {
				step(o)
				changes, err := flushOf(o)(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				got += lines(changes) + "flush\n"
			}
			if diff := cmp.Diff(wantChanges, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			_, err := d.ReadFile("/new/deep/file")
			if onDisk := err == nil; onDisk != (name == "commit") {
				t.Errorf("after %s a new file is on disk: %v", name, onDisk)
			}
			if again, err := flushOf(o)(t.Context()); err != nil || len(again) != 0 {
				t.Errorf("a second flush: %v, %v, want nothing", again, err)
			}
		})
	}
}

func TestCommitAfterPreviewWritesAllOfIt(t *testing.T) {
	d, steps := scenario(t)
	o := NewOverlay(d)
	steps[0](o)
	shown, err := o.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done, err := o.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lines(shown), lines(done)); diff != "" {
		t.Errorf("preview and commit differ (-preview +commit):\n%s", diff)
	}
	if f, err := d.ReadFile("/new/deep/file"); err != nil || string(f.Data) != "new\n" {
		t.Errorf("on disk: %q, %v", f.Data, err)
	}
}

func TestCommitThatFailsCanBeContinued(t *testing.T) {
	d := Disk{Root: t.TempDir()}
	o := NewOverlay(d)
	mustPut(t, o, File{Path: "/a", Mode: 0o600})
	mustPut(t, o, File{Path: "/b/c", Mode: 0o600})
	mustPut(t, o, File{Path: "/d", Mode: 0o600})
	mustPut(t, d, File{Path: "/b", Mode: 0o600}) // someone else was faster
	done, err := o.Commit(t.Context())
	wantError(t, err, "not a directory")
	if len(done) != 0 {
		t.Errorf("done before anything could be compared: %v", done)
	}
	if err := d.Remove("/b"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a", "/b/c", "/d"} {
		if _, err := d.ReadFile(path); err != nil {
			t.Error(err)
		}
	}
}

func TestFlushStopsWithItsContext(t *testing.T) {
	d := Disk{Root: t.TempDir()}
	o := NewOverlay(d)
	mustPut(t, o, File{Path: "/a", Mode: 0o600})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, flush := range map[string]Flush{"preview": o.Preview, "commit": o.Commit} {
		if _, err := flush(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", name, err)
		}
	}
	wantNames(t, d.Root)
}

func TestOverlayRefusesAtOnceWhatCommitCouldNotDo(t *testing.T) {
	d := Disk{Root: t.TempDir()}
	mustPut(t, d, File{Path: "/file", Mode: 0o600})
	o := NewOverlay(d)
	wantError(t, o.Put(File{Path: "/file", Mode: fs.ModeDir | 0o700}), "in each other's way")
	mustPut(t, o, File{Path: "/dir", Mode: fs.ModeDir | 0o700})
	wantError(t, o.Put(File{Path: "/dir", Mode: 0o700}), "in each other's way")
	if err := o.Remove("/gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing a missing file: %v, want fs.ErrNotExist", err)
	}
}

func TestDiff(t *testing.T) {
	d, steps := scenario(t)
	o := NewOverlay(d)
	steps[0](o)
	changes, err := o.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const want = `update /etc/edited
--- /etc/edited
+++ /etc/edited
@@ -1,2 +1,2 @@
 one
-two
+2
update /etc/key (mode 0644 → 0600): secret, 7 bytes, sha256 2d9ac2b9b9b4ae9b6e44c6d2e695c47854fe6e5a4d4c55992af43047b692adbc → 8 bytes, sha256 7f0c1b734dd45463d67fe801c8313183516bebc13b6bf9ba7fa3bc16a551c8cc
chmod /etc/mode (mode 0644 → 0600)
create directory /new (mode 0755)
create directory /new/deep (mode 0755)
create /new/deep/file (mode 0600)
--- /dev/null
+++ /new/deep/file
@@ -0,0 +1 @@
+new
remove /old/file
--- /old/file
+++ /dev/null
@@ -1 +0,0 @@
-old
\ No newline at end of file
remove directory /old
`
	if diff := cmp.Diff(want, Diff(changes)); diff != "" {
		t.Errorf("diff (-want +got):\n%s", diff)
	}
}

func lines(changes []Change) string {
	var out string
	for _, c := range changes {
		out += c.String() + "\n"
	}
	return out
}

func remove(t *testing.T, s Store, path string) {
	t.Helper()
	if err := s.Remove(path); err != nil {
		t.Fatal(err)
	}
}
