package artifacttest

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// recorder is a testing.TB that keeps failures to itself.
type recorder struct {
	testing.TB
	failures strings.Builder
}

func (r *recorder) Helper()                           {}
func (r *recorder) Errorf(format string, args ...any) { r.failures.WriteString(format) }

func TestCompareTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "golden")
	files := []artifact.File{
		{Path: "/etc/kubernetes/manifests/etcd.yaml", Data: []byte("kind: Pod\n"), Mode: 0o600},
		{Path: "/etc/kubernetes/pki/ca.key", Data: []byte("private"), Mode: 0o600, Secret: true},
		{Path: "/etc/kubernetes", Mode: fs.ModeDir | 0o755},
	}
	CompareTree(t, dir, files, true)
	CompareTree(t, dir, files, false)

	got, err := os.ReadFile(filepath.Join(dir, index))
	if err != nil {
		t.Fatal(err)
	}
	const want = "0755 /etc/kubernetes/\n0600 /etc/kubernetes/manifests/etcd.yaml\n0600 /etc/kubernetes/pki/ca.key secret\n"
	if string(got) != want {
		t.Errorf("TREE is\n%s\nwant\n%s", got, want)
	}
	for name, change := range map[string]func([]artifact.File) []artifact.File{
		"other contents": func(f []artifact.File) []artifact.File { f[0].Data = []byte("kind: List\n"); return f },
		"other mode":     func(f []artifact.File) []artifact.File { f[1].Mode = 0o644; return f },
		"one missing":    func(f []artifact.File) []artifact.File { return f[1:] },
	} {
		r := &recorder{TB: t}
		CompareTree(r, dir, change(append([]artifact.File(nil), files...)), false)
		if r.failures.Len() == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
	secret := append([]artifact.File(nil), files...)
	secret[1].Data = []byte("another")
	CompareTree(t, dir, secret, false) // a secret's contents do not count
}
