package watched

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put gives a file its content by renaming another one to it, as every careful program does.
func put(t *testing.T, path, content string) {
	t.Helper()
	need(t, os.WriteFile(path+".new", []byte(content), 0o600))
	need(t, os.Rename(path+".new", path))
}

func link(t *testing.T, target, path string) {
	t.Helper()
	need(t, os.Symlink(target, path+".new"))
	need(t, os.Rename(path+".new", path))
}

func fingerprint(t *testing.T, paths ...string) string {
	t.Helper()
	f, err := Fingerprint(paths)
	need(t, err)
	if len(f) != 32 {
		t.Errorf("fingerprint %q", f)
	}
	return f
}

// pki makes a directory with a certificate, a key and a directory of more, and a link into another directory.
func pki(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	need(t, os.Mkdir(filepath.Join(dir, "etcd"), 0o700))
	need(t, os.Mkdir(filepath.Join(dir, "archive"), 0o700))
	for _, name := range []string{"apiserver.crt", "apiserver.key", "etcd/server.crt", "archive/1.crt", "archive/2.crt"} {
		put(t, filepath.Join(dir, name), name)
	}
	link(t, "archive/1.crt", filepath.Join(dir, "front.crt"))
	return dir
}

func TestFingerprint(t *testing.T) {
	for name, tc := range map[string]struct {
		watch  string // below the directory
		change func(t *testing.T, dir string)
		same   bool
	}{
		"nothing happens":        {watch: "", change: func(*testing.T, string) {}, same: true},
		"another content":        {watch: "apiserver.crt", change: func(t *testing.T, d string) { put(t, d+"/apiserver.crt", "other") }},
		"in a watched directory": {watch: "", change: func(t *testing.T, d string) { put(t, d+"/apiserver.crt", "other") }},
		"a neighbour":            {watch: "apiserver.crt", change: func(t *testing.T, d string) { put(t, d+"/apiserver.key", "other") }, same: true},
		"the same content again": {watch: "", change: func(t *testing.T, d string) { put(t, d+"/apiserver.crt", "apiserver.crt") }, same: true},
		"another time": {watch: "", change: func(t *testing.T, d string) {
			need(t, os.Chtimes(d+"/apiserver.crt", time.Unix(1, 0), time.Unix(1, 0)))
		}, same: true},
		"another mode":                     {watch: "", change: func(t *testing.T, d string) { need(t, os.Chmod(d+"/apiserver.crt", 0o644)) }},
		"another mode of the directory":    {watch: "", change: func(t *testing.T, d string) { need(t, os.Chmod(d, 0o711)) }},
		"set-user-id":                      {watch: "", change: func(t *testing.T, d string) { need(t, os.Chmod(d+"/apiserver.crt", os.ModeSetuid|0o600)) }},
		"a file has gone":                  {watch: "apiserver.crt", change: func(t *testing.T, d string) { need(t, os.Remove(d+"/apiserver.crt")) }},
		"a file has gone from a directory": {watch: "", change: func(t *testing.T, d string) { need(t, os.Remove(d+"/apiserver.crt")) }},
		"a directory has gone":             {watch: "etcd", change: func(t *testing.T, d string) { need(t, os.RemoveAll(d+"/etcd")) }},
		"a file is missing and stays so":   {watch: "nothing", change: func(*testing.T, string) {}, same: true},
		"a missing file has come, empty":   {watch: "nothing", change: func(t *testing.T, d string) { put(t, d+"/nothing", "") }},
		"below what is no directory":       {watch: "apiserver.crt/x", change: func(t *testing.T, d string) { need(t, os.Remove(d+"/apiserver.crt")) }, same: true},
		"a new file in a directory":        {watch: "", change: func(t *testing.T, d string) { put(t, d+"/new.crt", "") }},
		"another name in a directory":      {watch: "", change: func(t *testing.T, d string) { need(t, os.Rename(d+"/apiserver.crt", d+"/b.crt")) }},
		"a draft of an editor":             {watch: "", change: func(t *testing.T, d string) { put(t, d+"/.apiserver.crt.swp", "x"); put(t, d+"/apiserver.crt~", "x") }, same: true},
		"a hidden file that is named":      {watch: ".hidden", change: func(t *testing.T, d string) { put(t, d+"/.hidden", "x") }},
		"two levels below":                 {watch: "", change: func(t *testing.T, d string) { put(t, d+"/etcd/server.crt", "other") }, same: true},
		"a directory below":                {watch: "", change: func(t *testing.T, d string) { need(t, os.Mkdir(d+"/more", 0o700)) }},
		"what a link leads to":             {watch: "front.crt", change: func(t *testing.T, d string) { put(t, d+"/archive/1.crt", "other") }},
		"another end of a link":            {watch: "", change: func(t *testing.T, d string) { link(t, "archive/2.crt", d+"/front.crt") }},
		"a link to the same content": {watch: "", change: func(t *testing.T, d string) {
			put(t, d+"/archive/2.crt", "archive/1.crt")
			link(t, "archive/2.crt", d+"/front.crt")
		}, same: true},
		"a link that leads nowhere": {watch: "front.crt", change: func(t *testing.T, d string) { need(t, os.Remove(d+"/archive/1.crt")) }},
		"a directory for a file": {watch: "apiserver.crt", change: func(t *testing.T, d string) {
			need(t, os.Remove(d+"/apiserver.crt"))
			need(t, os.Mkdir(d+"/apiserver.crt", 0o600))
		}},
		"a pipe for a file": {watch: "", change: func(t *testing.T, d string) {
			need(t, os.Remove(d+"/apiserver.crt"))
			need(t, syscall.Mkfifo(d+"/apiserver.crt", 0o600))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := pki(t)
			before := fingerprint(t, filepath.Join(dir, tc.watch))
			tc.change(t, dir)
			if after := fingerprint(t, filepath.Join(dir, tc.watch)); (before == after) != tc.same {
				t.Errorf("%s, then %s", before, after)
			}
		})
	}
}

func TestADirectoryIsNoPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	need(t, os.Mkdir(path, 0o600))
	before := fingerprint(t, path)
	need(t, os.Remove(path))
	need(t, syscall.Mkfifo(path, 0o600))
	if fingerprint(t, path) == before {
		t.Error("a pipe is like an empty directory")
	}
}

// TestSurvey: what a stat shows must differ whenever the content may, and should not when it cannot.
func TestSurvey(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(t *testing.T, dir string)
		same   bool
	}{
		"nothing":       {change: func(*testing.T, string) {}, same: true},
		"a hidden file": {change: func(t *testing.T, d string) { put(t, d+"/.x", "x") }, same: true},
		"there and back": {change: func(t *testing.T, d string) {
			put(t, d+"/x", "x")
			need(t, os.Remove(d+"/x"))
		}, same: true},
		"a file that is replaced": {change: func(t *testing.T, d string) { put(t, d+"/apiserver.crt", "apiserver.crt") }},
		"a file of the same length and time": {change: func(t *testing.T, d string) {
			info, err := os.Stat(d + "/apiserver.crt")
			need(t, err)
			need(t, os.WriteFile(d+"/apiserver.crt", []byte("APISERVER.CRT"), 0o600))
			need(t, os.Chtimes(d+"/apiserver.crt", info.ModTime(), info.ModTime()))
		}},
		"a directory that is replaced": {change: func(t *testing.T, d string) {
			need(t, os.Rename(d+"/etcd", d+"/.etcd"))
			need(t, os.Mkdir(d+"/etcd", 0o700))
		}},
	} {
		dir := pki(t)
		before, err := survey([]string{dir})
		need(t, err)
		tc.change(t, dir)
		after, err := survey([]string{dir})
		need(t, err)
		if slices.Equal(before, after) != tc.same {
			t.Errorf("%s: %+v, then %+v", name, before, after)
		}
	}
}

func TestOrderAndRepetitionOfPathsDoNotMatter(t *testing.T) {
	dir := pki(t)
	a, b := filepath.Join(dir, "apiserver.crt"), filepath.Join(dir, "apiserver.key")
	if fingerprint(t, a, b) != fingerprint(t, b, a, b) {
		t.Error("another order is another fingerprint")
	}
	if fingerprint(t, a, b) == fingerprint(t, a) {
		t.Error("a second file makes no difference")
	}
	if f, err := Fingerprint(nil); f != "" || err != nil {
		t.Errorf("no paths: %q, %v", f, err)
	}
	// Two names that run into each other are not one.
	if fingerprint(t, dir+"/x", dir+"/y") == fingerprint(t, dir+"/x-"+dir+"/y") {
		t.Error("two missing files are like one")
	}
	if fingerprint(t, "/nothing/a", "/nothing/b") == fingerprint(t, "/nothing/a-/nothing/b") {
		t.Error("two missing files are like one")
	}
}

// TestKubeletDirectories follows what a kubelet does to the directory of a ConfigMap or Secret.
func TestKubeletDirectories(t *testing.T) {
	dir := t.TempDir()
	project := func(stamp, content string) string {
		need(t, os.Mkdir(filepath.Join(dir, "..2026_"+stamp), 0o755))
		put(t, filepath.Join(dir, "..2026_"+stamp, "tls.crt"), content)
		link(t, "..2026_"+stamp, filepath.Join(dir, "..data"))
		return fingerprint(t, dir)
	}
	put(t, filepath.Join(dir, "x"), "")
	need(t, os.Remove(filepath.Join(dir, "x")))
	need(t, os.Symlink("..data/tls.crt", filepath.Join(dir, "tls.crt")))
	first, again, other := project("1", "one"), project("2", "one"), project("3", "two")
	if first != again {
		t.Error("the same content in a new directory is another one")
	}
	if again == other {
		t.Error("another content is the same")
	}
}

func TestWhatIsTooMuch(t *testing.T) {
	size := func(t *testing.T, path string, mib int64) {
		put(t, path, "")
		need(t, os.Truncate(path, mib<<20))
	}
	for name, tc := range map[string]struct {
		make func(t *testing.T, dir string)
		err  string
	}{
		"the largest file": {make: func(t *testing.T, d string) { size(t, d+"/a", 10) }},
		"a larger file":    {make: func(t *testing.T, d string) { size(t, d+"/a", 11) }, err: "more than 10 MiB"},
		"too much in all": {make: func(t *testing.T, d string) {
			for i := range 7 {
				size(t, fmt.Sprintf("%s/%d", d, i), 10)
			}
		}, err: "more than 64 MiB in all"},
		"the most files": {make: func(t *testing.T, d string) {
			for i := range 999 {
				put(t, fmt.Sprintf("%s/%d", d, i), "")
			}
		}},
		"too many files": {make: func(t *testing.T, d string) {
			for i := range 1000 {
				put(t, fmt.Sprintf("%s/%d", d, i), "")
			}
		}, err: "more than 1000 files"},
		"too many hidden files": {make: func(t *testing.T, d string) {
			for i := range 1001 {
				put(t, fmt.Sprintf("%s/.%d", d, i), "")
			}
		}, err: "more than 1000 files"},
		"links in a circle": {make: func(t *testing.T, d string) { link(t, "a", d+"/a") }, err: "too many levels"},
	} {
		dir := t.TempDir()
		tc.make(t, dir)
		f, err := Fingerprint([]string{dir})
		if (tc.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.err) || (f == "") != (err != nil) {
			t.Errorf("%s: %q, %v; want %q", name, f, err, tc.err)
		}
	}
}

// TestAPipeDoesNotBlock opens what was a file when it was seen.
func TestAPipeDoesNotBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	need(t, syscall.Mkfifo(path, 0o600))
	sum, n, err := contentOf(path)
	if sum != nil || n != 0 || err != nil {
		t.Errorf("%x, %d bytes, %v", sum, n, err)
	}
	if sum, n, err := contentOf(path + "x"); sum != nil || n != 0 || err != nil {
		t.Errorf("what has gone: %x, %d bytes, %v", sum, n, err)
	}
}
