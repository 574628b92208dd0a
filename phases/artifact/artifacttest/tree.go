// Package artifacttest compares files with golden trees.
package artifacttest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aymanbagabas/go-udiff"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// index is the file in a golden tree that lists every path with its mode, so that modes, directories and secrets are
// reviewed too. It starts in upper case: no artifact lies at the top of the tree under such a name.
const index = "TREE"

// CompareTree fails t unless files are what the golden tree in dir holds: TREE lists all of them with their modes, and
// each that is not secret lies below dir at its own path. Secrets differ from run to run, so of them only the line in
// TREE counts. With update it rewrites dir instead.
func CompareTree(t testing.TB, dir string, files []artifact.File, update bool) {
	t.Helper()
	want := golden(files)
	if update {
		if err := write(dir, want); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := read(dir)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write the golden tree)", err)
	}
	names := map[string]bool{}
	for name := range want {
		names[name] = true
	}
	for name := range got {
		names[name] = true
	}
	var diff strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		diff.WriteString(udiff.Unified("golden/"+name, "got/"+name, got[name], want[name]))
	}
	if diff.Len() > 0 {
		t.Errorf("differs from golden tree %s (run the test with -update to accept):\n%s", dir, diff.String())
	}
}

// golden returns the contents of a golden tree by name relative to it.
func golden(files []artifact.File) map[string]string {
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
	tree := map[string]string{}
	var lines strings.Builder
	for _, f := range sorted {
		line := fmt.Sprintf("%04o %s", f.Mode.Perm(), f.Path)
		switch {
		case f.Mode.IsDir():
			line += "/"
		case f.Secret:
			line += " secret"
		default:
			tree[strings.TrimPrefix(f.Path, "/")] = string(f.Data)
		}
		lines.WriteString(line + "\n")
	}
	tree[index] = lines.String()
	return tree
}

func read(dir string) (map[string]string, error) {
	tree := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		tree[name] = string(data)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading golden tree %q: %w", dir, err)
	}
	return tree, nil
}

// write replaces the golden tree. It removes only a directory that is one: a mistyped path costs nothing.
func write(dir string, tree map[string]string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading golden tree %q: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(dir, index)); len(entries) > 0 && err != nil {
		return fmt.Errorf("updating golden tree %q: it holds files but no %s, so it is none", dir, index)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("updating golden tree %q: %w", dir, err)
	}
	for name, data := range tree {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("updating golden tree %q: %w", dir, err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			return fmt.Errorf("updating golden tree %q: %w", dir, err)
		}
	}
	return nil
}
