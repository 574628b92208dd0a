package imports

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// writers are the functions that change a disk.
var writers = map[string][]string{
	"os": {"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "Lchown", "Link", "Mkdir", "MkdirAll", "MkdirTemp", "OpenFile",
		"OpenRoot", "Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile"},
	"io/ioutil": {"TempDir", "TempFile", "WriteFile"},
	"syscall":   {"Creat", "Link", "Mkdir", "Mknod", "Rename", "Rmdir", "Symlink", "Truncate", "Unlink"},
	"golang.org/x/sys/unix": {"Creat", "Link", "Linkat", "Mkdir", "Mkdirat", "Mknod", "Mknodat", "Rename", "Renameat", "Renameat2", "Rmdir",
		"Symlink", "Symlinkat", "Truncate", "Unlink", "Unlinkat"},
}

// mayWrite are the files and packages under phases that use writers, each with its reason.
var mayWrite = map[string]string{
	"phases/artifact/disk.go":              "artifact.Disk is the store",
	"phases/ledger/ledger.go":              "the record itself must be on disk before the effect that it records",
	"phases/ledger/lock.go":                "two inits at once are kept apart by a locked file",
	"phases/ledger/remove_linux.go":        "reset undoes the ledger, below the directories that it names and never through a link",
	"phases/reset/system_linux.go":         "a cgroup is a directory of the kernel's: reset removes those that are empty",
	"phases/host/process.go":               "a detached process needs an open log file to be born with",
	"phases/host/fsync.go":                 "how long a disk takes to write can only be measured by writing: a file without a name, which no end can leave behind",
	"phases/artifact/artifacttest/tree.go": "golden trees are rewritten by tests",
}

func TestPhasesWriteThroughTheStore(t *testing.T) {
	m := load(t)
	root := moduleRoot(t)
	used := map[string]bool{}
	for _, p := range m.ours {
		if !match("./phases/...", p.ImportPath) {
			continue
		}
		for _, f := range m.files[p.ImportPath] {
			for name, places := range m.uses(f, root, writers) {
				for _, place := range places {
					file, _, _ := strings.Cut(place, ":")
					used[file] = true
					if mayWrite[file] == "" {
						t.Errorf("%s uses %s. Under phases, files are written by artifact.Disk and the ledger only, or --dry-run, diff and\n"+
							"--root would touch the machine and reset would not know: use env.Files", place, name)
					}
				}
			}
		}
	}
	for file := range mayWrite {
		if !used[file] {
			t.Errorf("%s may write to disk and does not: take it off the list", file)
		}
	}
}

// dryRun is the word that has no place in the code that a preview and a run share.
var dryRun = regexp.MustCompile(`(?i)dry_?run`)

// mayNameDryRun are the files that do: the name of the documents' field is kubeadm's.
var mayNameDryRun = []string{"phases/config/v1beta4.go", "phases/config/v1beta4others.go", "phases/config/v1beta3.go", "phases/config/inert_test.go",
	"phases/apply/fields.go", "phases/apply/fields_test.go"}

func TestNobodyAsksWhetherThisIsAPreview(t *testing.T) {
	root := moduleRoot(t)
	used := map[string]bool{}
	for _, dir := range []string{"phases", "templates", "kubeletconfig"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			for i, line := range strings.Split(string(data), "\n") {
				word := dryRun.FindString(line)
				used[name] = used[name] || word != ""
				if word != "" && !slices.Contains(mayNameDryRun, name) {
					t.Errorf("%s:%d: %q: a phase does the same whether it is a preview or not; if it must know, the seam is in the wrong\n"+
						"place: give Env another Files or Host", name, i+1, word)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range mayNameDryRun {
		if !used[name] {
			t.Errorf("%s may say dryRun and does not: take it off the list", name)
		}
	}
}

func TestPurePackagesHaveNoClockAndNoGoroutines(t *testing.T) {
	m := load(t)
	root := moduleRoot(t)
	pure := []string{"./templates", "./kubeletconfig", "./runtime/lifecycle", "./runtime/podspec",
		"./phases/config", "./phases/staticpod", "./phases/etcd", "./phases/controlplane", "./phases/kubelet"}
	clock := map[string][]string{"time": {"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}}
	m.requireNames(t, pure...)
	for _, p := range m.ours {
		if !matchAny(pure, p.ImportPath) {
			continue
		}
		for _, f := range m.files[p.ImportPath] {
			for name, places := range m.uses(f, root, clock) {
				t.Errorf("%s uses %s: the result must follow from the input alone; take the time as a parameter", places[0], name)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if _, ok := n.(*ast.GoStmt); ok {
					t.Errorf("%s starts a goroutine: the result must follow from the input alone", m.place(n, root))
				}
				return true
			})
		}
	}
}

func TestNothingHappensBeforeMain(t *testing.T) {
	m := load(t)
	root := moduleRoot(t)
	exits := map[string][]string{"os": {"Exit"}, "log": {"Fatal", "Fatalf", "Fatalln"}}
	for _, p := range m.ours {
		for _, f := range m.files[p.ImportPath] {
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: func init runs whether it is wanted or not; construct in main and pass down", m.place(d, root))
				}
			}
			if strings.HasPrefix(p.Doc, "Command ") {
				continue // func main
			}
			for name, places := range m.uses(f, root, exits) {
				t.Errorf("%s uses %s: below main, errors are returned", places[0], name)
			}
		}
	}
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}
