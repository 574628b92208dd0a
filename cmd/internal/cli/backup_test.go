package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// TestSweep: what a killed backup has left goes, and nothing else.
func TestSweep(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	left := fmt.Sprintf("%s%d-123", workPrefix, ended.Process.Pid)
	kept := []string{fmt.Sprintf("%s%d-123", workPrefix, os.Getpid()), workPrefix + "mine", "edge1"}
	for _, name := range append([]string{left}, kept...) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "snapshot.db"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(kept)
	if !slices.Equal(names, kept) {
		t.Errorf("there are %q, want %q", names, kept)
	}
	if err := sweep(filepath.Join(dir, "missing")); err == nil {
		t.Error("a directory that is missing was swept")
	}
}
