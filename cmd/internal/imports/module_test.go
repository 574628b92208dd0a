package imports

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/slipway-k8s/slipway"

// pkg is what `go list` says about a package.
type pkg struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
	Deps       []string // all that it imports, directly and not
}

// short is the package's path within the module, "." for its root: "phases/config".
func (p pkg) short() string {
	if p.ImportPath == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

func (p pkg) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// tree is the module as `go list` and the parser see it.
type tree struct {
	ours  []pkg
	known map[string]bool        // import paths of all packages, others' too
	files map[string][]*ast.File // by pkg.ImportPath; without tests
	set   *token.FileSet
}

// load lists the packages of the module, as built for Linux, and parses their files. Reading the files here also tells
// `go test` what a cached result depends on.
func load(t *testing.T) tree {
	t.Helper()
	root := filepath.Join("..", "..", "..")
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,Doc,GoFiles,Imports,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		t.Fatalf("%s: %v\n%s", cmd, err, failed.Stderr)
	}
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	m := tree{known: map[string]bool{}, files: map[string][]*ast.File{}, set: token.NewFileSet()}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("reading the output of go list: %v", err)
		}
		m.known[p.ImportPath] = true
		if p.ours() {
			m.ours = append(m.ours, p)
			m.parse(t, p)
		}
	}
	if len(m.ours) == 0 {
		t.Fatal("go list names no package of the module")
	}
	return m
}

func (m tree) parse(t *testing.T, p pkg) {
	t.Helper()
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(m.set, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		m.files[p.ImportPath] = append(m.files[p.ImportPath], f)
	}
}

// match says whether an import path is meant by a pattern as in rule.
func match(pattern, path string) bool {
	prefix, below := strings.CutSuffix(pattern, "/...")
	if ours, ok := strings.CutPrefix(prefix, "."); ok {
		prefix = module + ours
	}
	return path == prefix || below && strings.HasPrefix(path, prefix+"/")
}

func matchAny(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}

// requireNames fails for every pattern that names no package: a rule about nothing keeps nothing.
func (m tree) requireNames(t *testing.T, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(m.known)), func(path string) bool { return match(pattern, path) }) {
			t.Errorf("the rule names %q, and there is no such package any more: name what took its place", pattern)
		}
	}
}

// uses returns where a file names one of the functions of a package, "os.Remove" by "phases/x/y.go:12".
func (m tree) uses(f *ast.File, root string, functions map[string][]string) map[string][]string {
	local := map[string]string{} // name in this file → import path
	for _, spec := range f.Imports {
		path := strings.Trim(spec.Path.Value, `"`)
		name := path[strings.LastIndexByte(path, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		local[name] = path
	}
	found := map[string][]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && slices.Contains(functions[local[x.Name]], sel.Sel.Name) {
			name := x.Name + "." + sel.Sel.Name
			found[name] = append(found[name], m.place(n, root))
		}
		return true
	})
	return found
}

// place is a node's file within a directory, and its line.
func (m tree) place(n ast.Node, root string) string {
	at := m.set.Position(n.Pos())
	name, err := filepath.Rel(root, at.Filename)
	if err != nil {
		name = at.Filename
	}
	return fmt.Sprintf("%s:%d", filepath.ToSlash(name), at.Line)
}
