package containerd

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// visiblePoll is how often the CRI plugin is asked whether it has heard of a loaded image: it follows containerd's
	// own events, and is milliseconds behind.
	visiblePoll = 10 * time.Millisecond
	// visibleTimeout is long beyond any machine's load, and ends the wait for a CRI plugin that follows no events.
	visibleTimeout = 30 * time.Second
	// progressStep keeps a callback per read from being most of the work.
	progressStep = 1 << 20
)

// Load imports every named image of the archive at path into the store, unpacks it, and returns the names, which the
// CRI can use by then. The archive is a tar of docker or OCI layout, gzipped or not, or a directory of OCI layout.
// What the store has already is not written again. A load that is cut short leaves no image with parts missing.
func (s *Store) Load(ctx context.Context, path string, progress Progress) ([]string, error) {
	refs, err := s.load(ctx, path, quietly(progress))
	if err != nil {
		return nil, fmt.Errorf("loading image archive %q: %w", path, err)
	}
	return refs, nil
}

// quietly makes a Progress that may be nil callable.
func quietly(p Progress) Progress {
	if p == nil {
		return func(int64, int64, string) {}
	}
	return p
}

func (s *Store) load(ctx context.Context, path string, progress Progress) ([]string, error) {
	ctx = namespaces.WithNamespace(ctx, namespace)
	c, err := s.native()
	if err != nil {
		return nil, err
	}
	if c, err = s.native(client.WithServices(client.WithContentStore(ownIngests{c.ContentStore(), "slipway-" + rand.Text() + "-"}))); err != nil {
		return nil, err
	}
	archive, err := openArchive(path, progress)
	if err != nil {
		return nil, err
	}
	imported, err := c.Import(ctx, archive)
	if err == nil { // the importer stops at the tar's end; what follows is padding and gzip's checksum
		_, err = io.Copy(io.Discard, archive)
	}
	if err := errors.Join(err, archive.Close()); err != nil {
		return nil, err
	}
	if len(imported) == 0 {
		return nil, errors.New("it names no image; a docker archive needs RepoTags, an OCI layout the annotation io.containerd.image.name or a full org.opencontainers.image.ref.name")
	}
	var refs []string
	for _, record := range imported {
		id, err := s.unpack(ctx, c, record, progress)
		if err != nil {
			return nil, err
		}
		if err := s.waitVisible(ctx, record.Name, id); err != nil {
			return nil, err
		}
		refs = append(refs, record.Name)
	}
	return refs, nil
}

// unpack makes the image's snapshots and returns the image's id.
func (s *Store) unpack(ctx context.Context, c *client.Client, record images.Image, progress Progress) (string, error) {
	image := client.NewImage(c, record)
	config, err := image.Config(ctx)
	if err != nil {
		return "", fmt.Errorf("image %q for %s: %w", record.Name, platforms.DefaultString(), err)
	}
	progress(0, 0, "unpacking "+record.Name)
	if err := image.Unpack(ctx, s.snapshotter); err != nil {
		return "", fmt.Errorf("unpacking %q: %w", record.Name, err)
	}
	return config.Digest.String(), nil
}

// waitVisible returns once the CRI has the image under its name.
func (s *Store) waitVisible(ctx context.Context, ref, id string) error {
	ctx, cancel := context.WithTimeout(ctx, visibleTimeout)
	defer cancel()
	tick := time.NewTicker(visiblePoll)
	defer tick.Stop()
	for {
		var image *runtimeapi.Image
		image, err := s.cri.ImageStatus(ctx, ref)
		if err == nil && image.GetId() == id {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("image %q is in containerd's store, and its CRI plugin does not see it: %w", ref, ctx.Err()), err)
		}
	}
}

// ownIngests writes content under names that no other load uses. The importer names an ingest after the archive's
// file, such as tar-layer.tar: another load would wait for it, and after a kill would continue a different file's.
type ownIngests struct {
	content.Store
	prefix string
}

// Writer implements content.Ingester.
func (s ownIngests) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	return s.Store.Writer(ctx, append(opts, content.WithRef(s.prefix+o.Ref))...)
}

// openArchive returns the plain tar stream of the archive at path and reports how much of the file was read.
func openArchive(path string, progress Progress) (io.ReadCloser, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return tarOf(path), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	plain, err := decompress(&meter{r: f, total: info.Size(), what: "loading " + info.Name(), progress: progress})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return readCloser{plain, f.Close}, nil
}

// decompress returns r without its gzip, if it has one.
func decompress(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, errors.New("it is compressed with zstd, which image archives are not read in: unpack it with zstd -d")
	default:
		return b, nil
	}
}

// tarOf streams a directory as a tar.
func tarOf(dir string) io.ReadCloser {
	r, w := io.Pipe()
	go func() { // ends when the whole directory is written, or r is closed
		t := tar.NewWriter(w)
		err := t.AddFS(os.DirFS(dir))
		w.CloseWithError(errors.Join(err, t.Close()))
	}()
	return r
}

type readCloser struct {
	io.Reader
	close func() error
}

func (r readCloser) Close() error { return r.close() }

// meter reports how much was read.
type meter struct {
	r           io.Reader
	done, total int64
	told        int64
	what        string
	progress    Progress
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done += int64(n)
	if m.done-m.told >= progressStep || err == io.EOF && m.told != m.done {
		m.told = m.done
		m.progress(m.done, m.total, m.what)
	}
	return n, err
}
