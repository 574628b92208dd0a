package ledger

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRemoveTree(t *testing.T) {
	for name, tc := range map[string]struct {
		act        func(root string) ([]string, error)
		want, kept []string
	}{
		"takes all of it, and follows no link": {
			act:  func(root string) ([]string, error) { return RemoveTree(root+"/tree", nil) },
			want: []string{"outside", "outside/file"},
		},
		"takes a link itself": {
			act:  func(root string) ([]string, error) { return RemoveTree(root+"/tree/link", nil) },
			want: []string{"outside", "outside/file", "tree", "tree/a", "tree/a/b", "tree/a/b/file", "tree/c"},
		},
		"leaves mount points and what is above them": {
			act:  func(root string) ([]string, error) { return RemoveTree(root+"/tree", []string{root + "/tree/a/b"}) },
			want: []string{"outside", "outside/file", "tree", "tree/a", "tree/a/b", "tree/a/b/file"}, kept: []string{"/tree/a/b"},
		},
		"leaves a tree that is mounted upon": {
			act:  func(root string) ([]string, error) { return RemoveTree(root+"/tree", []string{root + "/tree"}) },
			want: []string{"outside", "outside/file", "tree", "tree/a", "tree/a/b", "tree/a/b/file", "tree/c", "tree/link"}, kept: []string{"/tree"},
		},
		"takes contents only": {
			act:  func(root string) ([]string, error) { return RemoveContents(root+"/tree", []string{root + "/tree"}) },
			want: []string{"outside", "outside/file", "tree"},
		},
		"does not enter a link for its contents": {
			act: func(root string) ([]string, error) {
				if _, err := RemoveContents(root+"/tree/link", nil); err == nil {
					return []string{"no error"}, nil
				}
				return nil, nil
			},
			want: []string{"outside", "outside/file", "tree", "tree/a", "tree/a/b", "tree/a/b/file", "tree/c", "tree/link"},
		},
		"is content with nothing": {
			act:  func(root string) ([]string, error) { return RemoveTree(root+"/none/at/all", nil) },
			want: []string{"outside", "outside/file", "tree", "tree/a", "tree/a/b", "tree/a/b/file", "tree/c", "tree/link"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, p := range []string{"tree/a/b/file", "tree/c", "outside/file"} {
				populate(t, root, p)
			}
			if err := os.Symlink("../outside", root+"/tree/link"); err != nil {
				t.Fatal(err)
			}
			kept, err := tc.act(root)
			if err != nil {
				t.Fatal(err)
			}
			for i := range kept {
				kept[i] = strings.TrimPrefix(kept[i], root)
			}
			if diff := cmp.Diff(tc.kept, kept); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.want, tree(t, root)); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

// A mount that nobody told us about is on another device.
func TestRemoveTreeStopsAtAnotherDevice(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	root := t.TempDir()
	populate(t, root, "tree/disk/")
	disk := root + "/tree/disk"
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	populate(t, root, "tree/disk/precious")
	kept, err := RemoveTree(root+"/tree", nil)
	if err != nil || !slices.Equal(kept, []string{disk}) {
		t.Errorf("kept %v, %v, want %s", kept, err, disk)
	}
	if _, err := os.Stat(disk + "/precious"); err != nil {
		t.Error(err)
	}
}

func TestRemoveEmpty(t *testing.T) {
	root := t.TempDir()
	for _, p := range []string{"cg/a/b/", "cg/c/busy"} {
		populate(t, root, p)
	}
	stayed, err := RemoveEmpty(root + "/cg")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{root + "/cg/c", root + "/cg"}, stayed); diff != "" {
		t.Errorf("stayed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"cg", "cg/c", "cg/c/busy"}, tree(t, root)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func tree(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if path != root {
			names = append(names, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
