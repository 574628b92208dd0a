package containerd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/distribution/reference"
	"google.golang.org/grpc"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// namespace is where containerd's CRI plugin keeps what it makes. Images elsewhere are invisible to it.
const namespace = "k8s.io"

// Progress is told how far long work is: done of total bytes, total 0 when it is not known, and what is being done.
// It is called from one goroutine at a time.
type Progress func(done, total int64, what string)

// Store is the image store of a containerd as its CRI plugin sees it. It is safe for concurrent use.
type Store struct {
	cri         *cri.Client
	conn        *grpc.ClientConn
	snapshotter string
}

// Image is one name of an image in the store. An image with two names is there twice.
type Image struct {
	Ref    string // the full name with its tag
	ID     string // digest of the image's config: the same in every store
	Digest string // digest of the manifest or index that the name points to
	Size   int64  // bytes
	Pinned bool   // garbage collection leaves it alone
}

// Open connects to the containerd behind the socket and finds out which snapshotter its images are unpacked into.
func Open(ctx context.Context, socket string) (*Store, error) {
	c, err := cri.Dial(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	snapshotter, err := c.Snapshotter(ctx)
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("opening the image store: %w", err)
	}
	return &Store{cri: c, conn: c.Conn(), snapshotter: orDefault(snapshotter, overlayfs)}, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.cri.Close() }

// native is a client of containerd's own API on the store's connection.
func (s *Store) native(opts ...client.Opt) (*client.Client, error) {
	return client.NewWithConn(s.conn, append(opts, client.WithDefaultNamespace(namespace))...)
}

// List returns every named image, sorted by name.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	listed, err := s.cri.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	c, err := s.native()
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	records, err := c.ImageService().List(namespaces.WithNamespace(ctx, namespace))
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	digests := map[string]string{} // by name
	for _, r := range records {
		digests[r.Name] = r.Target.Digest.String()
	}
	var images []Image
	for _, i := range listed {
		for _, tag := range i.GetRepoTags() {
			images = append(images, Image{Ref: tag, ID: i.GetId(), Digest: digests[tag], Size: int64(i.GetSize()), Pinned: i.GetPinned()})
		}
	}
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Ref, b.Ref) })
	return images, nil
}

// Has returns for each reference whether a container could be made of it now.
func (s *Store) Has(ctx context.Context, refs []string) (map[string]bool, error) {
	has := make(map[string]bool, len(refs))
	for _, ref := range refs {
		image, err := s.cri.ImageStatus(ctx, ref)
		if err != nil {
			return nil, err
		}
		has[ref] = image != nil
	}
	return has, nil
}

// Normalize returns ref in the full form that the store keeps: with its registry, and with the tag latest when it has
// neither tag nor digest.
func Normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image reference %q: %w", ref, err)
	}
	return named.String(), nil
}
