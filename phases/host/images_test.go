package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// store is a container runtime's image store.
type store struct {
	mu     sync.Mutex
	refs   []string
	loads  []string // names of archives, in order
	remote []string // what the registry has
	driver string
	pinned []string
}

func (s *store) Pin(_ context.Context, _ string, refs []string) error {
	s.pinned = refs
	return nil
}

func (s *store) Version(context.Context, string) (string, string, error) {
	return "containerd", "v2.1.0", nil
}
func (s *store) CgroupDriver(context.Context, string) (string, error) { return s.driver, nil }

func (s *store) List(context.Context, string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refs), nil
}

// archived is an archive of this store: only its own package knows what real ones look like.
type archived struct {
	Refs []string
	Salt string
}

func (s *store) Refs(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var a archived
	if err := json.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("reading image archive %q: %w", path, err)
	}
	return a.Refs, nil
}

func (s *store) Load(_ context.Context, _, path string, progress func(done, total int64)) error {
	refs, err := s.Refs(path)
	if err != nil {
		return err
	}
	progress(1, 2)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refs = append(s.refs, refs...)
	s.loads = append(s.loads, filepath.Base(path))
	return nil
}

func (s *store) Pull(_ context.Context, _, ref string, _ func(done, total int64)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.remote, ref) {
		return errors.New("lookup registry.k8s.io: no such host")
	}
	s.refs = append(s.refs, ref)
	return nil
}

// writeArchive writes an archive that holds refs, and whose digest depends on salt.
func writeArchive(t *testing.T, path, salt string, refs ...string) {
	t.Helper()
	data, err := json.Marshal(archived{refs, salt})
	must(t, err)
	must(t, os.WriteFile(path, data, 0o644))
}

func imageHost(t *testing.T, s *store) (*Live, Images) {
	t.Helper()
	dir := t.TempDir()
	paths := config.Paths{State: filepath.Join(dir, "state"), ImageArchives: filepath.Join(dir, "archives")}
	must(t, os.MkdirAll(paths.ImageArchives, 0o755))
	l := NewLive(Options{Paths: paths, Files: artifact.Disk{}, Ledger: &book{}, Images: s})
	return l, Images{Refs: []string{"r/etcd:1", "r/pause:1"}, Archives: paths.ImageArchives, Pull: true, Socket: "/run/s.sock"}
}

func ensureImages(t *testing.T, l *Live, im Images) []string {
	t.Helper()
	var mu sync.Mutex
	var reports []string
	must(t, l.EnsureImages(t.Context(), im, func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		reports = append(reports, p.Text)
	}))
	return reports
}

func TestImagesComeFromStoreThenArchivesThenRegistry(t *testing.T) {
	s := &store{refs: []string{"r/etcd:1"}, remote: []string{"r/apiserver:1"}}
	l, im := imageHost(t, s)
	im.Refs = append(im.Refs, "r/apiserver:1")
	writeArchive(t, filepath.Join(im.Archives, "etcd.tar"), "", "r/etcd:1")
	writeArchive(t, filepath.Join(im.Archives, "pause.tar.gz"), "", "r/pause:1")
	must(t, os.WriteFile(filepath.Join(im.Archives, "README"), nil, 0o644))
	ensureImages(t, l, im)
	if diff := cmp.Diff([]string{"pause.tar.gz"}, s.loads); diff != "" {
		t.Errorf("imports differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"r/etcd:1", "r/pause:1", "r/apiserver:1"}, s.refs); diff != "" {
		t.Errorf("store differs (-want +got):\n%s", diff)
	}
}

// TestImagesArePinned: in slipway's own store the control plane's images stay, whoever collects garbage; another runtime's
// images are not marked.
func TestImagesArePinned(t *testing.T) {
	for socket, want := range map[string][]string{"/run/s.sock": {"r/etcd:1"}, "/run/containerd/containerd.sock": nil} {
		s := &store{refs: []string{"r/etcd:1", "r/other:1"}}
		l, im := imageHost(t, s)
		l.paths.ContainerdSocket = "/run/s.sock"
		im.Socket, im.Refs = socket, []string{"r/etcd:1"}
		ensureImages(t, l, im)
		if diff := cmp.Diff(want, s.pinned); diff != "" {
			t.Errorf("pinned at %s (-want +got):\n%s", socket, diff)
		}
	}
}

func TestEachArchiveIsImportedOnceByDigest(t *testing.T) {
	s := &store{}
	l, im := imageHost(t, s)
	im.Refs = []string{"r/etcd:1"}
	etcd := filepath.Join(im.Archives, "etcd.tar")
	extra := filepath.Join(im.Archives, "extra.tar")
	writeArchive(t, etcd, "", "r/etcd:1")
	writeArchive(t, extra, "", "r/extra:1") // not wanted by the control plane, but the user put it there
	imports := func(what string, want ...string) {
		t.Helper()
		s.loads = nil
		ensureImages(t, l, im)
		slices.Sort(s.loads)
		if !slices.Equal(s.loads, want) {
			t.Errorf("%s: imported %q, want %q", what, s.loads, want)
		}
	}
	imports("at first", "etcd.tar", "extra.tar")
	imports("again")
	s.refs = []string{"r/etcd:1"}
	imports("with an image removed that nobody wants")
	must(t, os.Rename(extra, filepath.Join(im.Archives, "renamed.tar")))
	imports("under another name")
	s.refs = nil
	imports("with a wanted image removed", "etcd.tar")
	writeArchive(t, filepath.Join(im.Archives, "renamed.tar"), "rebuilt", "r/extra:1")
	imports("with new contents", "renamed.tar")
}

func TestMissingImagesAreAllNamedWithTheWaysToBringThem(t *testing.T) {
	l, im := imageHost(t, &store{remote: []string{"r/etcd:1"}})
	im.Refs = append(im.Refs, "r/apiserver:1")
	err := l.EnsureImages(t.Context(), im, func(Progress) {})
	want := "missing images: r/pause:1, r/apiserver:1 (lookup registry.k8s.io: no such host); bring them in one of three ways: put docker or OCI archives into " +
		im.Archives + ", load them with `slipway images load FILE`, or make the registry reachable (another one: --image-repository)"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	im.Pull = false
	if err := l.EnsureImages(t.Context(), im, func(Progress) {}); err == nil || !strings.Contains(err.Error(), "the pull policy forbids") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedArchiveIsNamedWithWhatToDo(t *testing.T) {
	l, im := imageHost(t, &store{})
	must(t, os.WriteFile(filepath.Join(im.Archives, "bad.tar"), bytes.Repeat([]byte("x"), 700), 0o644))
	err := l.EnsureImages(t.Context(), im, func(Progress) {})
	if err == nil || !strings.Contains(err.Error(), `bad.tar": invalid character`) || !strings.Contains(err.Error(), "remove it from "+im.Archives) {
		t.Errorf("got %v", err)
	}
}

func TestMissingImagesBeforeAnythingRuns(t *testing.T) {
	l, im := imageHost(t, &store{})
	var asked []string
	var mu sync.Mutex
	l.registry = func(_ context.Context, name string) error {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, name)
		if name == "down.example" {
			return errors.New("registry down.example did not answer within 3s")
		}
		return nil
	}
	writeArchive(t, filepath.Join(im.Archives, "etcd.tar"), "", "r/etcd:1")
	q := Query{Images: []string{"r/etcd:1", "down.example/a:1", "up.example/b:1", "down.example/c:1"}, Archives: im.Archives, Pull: true}

	missing, reason, err := l.missingImages(t.Context(), q)
	must(t, err)
	if want := []string{"down.example/a:1", "down.example/c:1"}; !slices.Equal(missing, want) || reason != "registry down.example did not answer within 3s" {
		t.Errorf("missing %q because %q", missing, reason)
	}
	if slices.Sort(asked); !slices.Equal(asked, []string{"down.example", "up.example"}) {
		t.Errorf("asked %q", asked)
	}

	asked = nil
	q.Images = []string{"r/etcd:1"}
	if missing, _, err := l.missingImages(t.Context(), q); err != nil || missing != nil || asked != nil {
		t.Errorf("with an archive: missing %q, asked %q, %v", missing, asked, err)
	}
	q.Images, q.Pull = []string{"up.example/b:1"}, false
	if missing, reason, _ := l.missingImages(t.Context(), q); len(missing) != 1 || !strings.Contains(reason, "pull policy") {
		t.Errorf("without a registry: missing %q because %q", missing, reason)
	}
}

func TestMissingImagesAsksTheStoreThatRuns(t *testing.T) {
	l, im := imageHost(t, &store{refs: []string{"r/etcd:1"}})
	socket := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	defer listener.Close()
	missing, _, err := l.missingImages(t.Context(), Query{Images: []string{"r/etcd:1"}, Socket: socket, Archives: im.Archives, Emptied: true})
	if err != nil || missing != nil {
		t.Errorf("missing %q, %v", missing, err)
	}
	l.paths.ContainerdSocket = socket
	for emptied, want := range map[bool]int{false: 0, true: 1} { // its own goes with a reset
		if missing, _, err := l.missingImages(t.Context(), Query{Images: []string{"r/etcd:1"}, Archives: im.Archives, Emptied: emptied}); err != nil || len(missing) != want {
			t.Errorf("emptied %v: missing %q, %v", emptied, missing, err)
		}
	}
}

func TestShortNamesAreLongOnes(t *testing.T) {
	refs := []string{"nginx", "nginx:latest", "docker.io/me/tool:1", "localhost/a:1", "r.example:5000/b", "registry.k8s.io/pause:3.10"}
	list := []string{"docker.io/library/nginx:latest", "me/tool:1", "r.example:5000/b:latest", "registry.k8s.io/pause:3.9"}
	if got, want := without(refs, list), []string{"localhost/a:1", "registry.k8s.io/pause:3.10"}; !slices.Equal(got, want) {
		t.Errorf("without: %q, want %q", got, want)
	}
}
