package pki_test

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/pki"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata/pki")

// now is when all tests happen.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var errDiskFull = errors.New("no space left on device")

// memory is a Store that remembers the order of writes and can fail after a number of them.
type memory struct {
	files map[string]artifact.File
	puts  []string
	room  int // writes that still succeed; negative for any number
}

func newMemory() *memory { return &memory{files: map[string]artifact.File{}, room: -1} }

func (m *memory) ReadFile(path string) (artifact.File, error) {
	f, ok := m.files[path]
	if !ok {
		return artifact.File{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return f, nil
}

func (m *memory) Put(f artifact.File) error {
	if m.room == 0 {
		return &fs.PathError{Op: "write", Path: f.Path, Err: errDiskFull}
	}
	m.room--
	m.files[f.Path] = f
	m.puts = append(m.puts, f.Path)
	return nil
}

func (m *memory) Remove(path string) error {
	delete(m.files, path)
	return nil
}

func (m *memory) clone() *memory {
	c := newMemory()
	for path, f := range m.files {
		c.files[path] = f
	}
	return c
}

func (m *memory) bytes(path string) ([]byte, error) {
	f, err := m.ReadFile(path)
	return f.Data, err
}

func (m *memory) set(path string, data []byte) { m.files[path] = artifact.File{Path: path, Data: data} }

// cluster returns kubeadm's defaults with slipway's key algorithm.
func cluster(change ...func(*config.Cluster)) *config.Cluster {
	c := &config.Cluster{
		Paths: config.NewPaths(""), NodeName: "node-a", ClusterName: "kubernetes", KubernetesVersion: "v1.36.3",
		AdvertiseAddress: netip.MustParseAddr("10.0.0.5"), BindPort: 6443,
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, DNSDomain: "cluster.local",
		Etcd: config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}}, KeyAlgorithm: config.ECDSAP256,
		CertificateValidity: 8760 * time.Hour, CAValidity: 87600 * time.Hour,
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// run runs the steps of the groups whose name is in only, or all, and returns the notes.
func run(t *testing.T, c *config.Cluster, files artifact.Store, at time.Time, only ...string) ([]string, error) {
	t.Helper()
	keys := pki.NewKeys(pki.GenerateKey, 0, 1)
	return runWith(t, keys, c, files, at, only...)
}

func runWith(t *testing.T, keys *pki.Keys, c *config.Cluster, files artifact.Store, at time.Time, only ...string) ([]string, error) {
	t.Helper()
	var notes []string
	for _, group := range []phases.Phase{pki.NewWith(keys), kubeconfig.NewWith(keys)} {
		for _, p := range group.Phases {
			name := group.Name + "/" + p.Name
			if len(only) > 0 && !slices.Contains(only, name) && !slices.Contains(only, group.Name) {
				continue
			}
			env := &phases.Env{Config: c, Files: files, Now: func() time.Time { return at }, Report: func(e phases.Event) {
				notes = append(notes, fmt.Sprintf("%s: %s: %s", e.Kind, name, e.Text))
			}}
			if err := p.Run(t.Context(), env); err != nil {
				return notes, err
			}
		}
	}
	return notes, nil
}

func golden(t *testing.T, name string, got string) {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "pki", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if d := diff.Diff(path, want, "got", []byte(got)); len(d) > 0 {
		t.Errorf("%s\nrun `go test ./phases/pki -update` if this is intended", d)
	}
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
