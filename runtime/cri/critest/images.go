package critest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// AddImage puts an image into the store and returns its id.
func (r *Runtime) AddImage(ref string) string {
	r.mu.Lock()
	defer r.unlock()
	return r.addImage(ref).GetId()
}

// DropImage takes the image away, as a garbage collection would.
func (r *Runtime) DropImage(ref string) {
	r.mu.Lock()
	defer r.unlock()
	if image := r.findImage(ref); image != nil {
		delete(r.images, image.GetId())
		r.emit("/images/delete", ref)
	}
}

// NameImage gives an image that is there another name.
func (r *Runtime) NameImage(ref, another string) {
	r.mu.Lock()
	defer r.unlock()
	image := r.findImage(ref)
	image.RepoTags = append(image.RepoTags, another)
}

// PinImage makes the image one that the runtime wants kept, as it is from the start with Options.SandboxImage. It can
// still be removed.
func (r *Runtime) PinImage(ref string) {
	r.mu.Lock()
	defer r.unlock()
	r.findImage(ref).Pinned = true
}

// OnPull says what pulling ref does: nil or a nil error puts the image into the store. It runs without the runtime's
// lock held and may block. A reference that was not announced is not found in the registry.
func (r *Runtime) OnPull(ref string, pull func() error) {
	if pull == nil {
		pull = func() error { return nil }
	}
	r.mu.Lock()
	defer r.unlock()
	r.pulls[ref] = pull
}

func (r *Runtime) addImage(ref string) *runtimeapi.Image {
	sum := sha256.Sum256([]byte(ref))
	id := "sha256:" + hex.EncodeToString(sum[:])
	if r.images[id] == nil {
		r.images[id] = &runtimeapi.Image{Id: id, RepoTags: []string{ref}, Size: 1 << 20, Spec: &runtimeapi.ImageSpec{}}
		r.emit("/images/create", ref)
	}
	return r.images[id]
}

// findImage takes an id or a tag. References are compared as they are written: slipway writes them in full.
func (r *Runtime) findImage(ref string) *runtimeapi.Image {
	if image := r.images[ref]; image != nil {
		return image
	}
	for _, image := range r.images {
		if slices.Contains(image.GetRepoTags(), ref) {
			return image
		}
	}
	return nil
}

// pull unlocks the state while the registry "answers".
func (r *Runtime) pull(ref string) error {
	fetch := r.pulls[ref]
	if fetch == nil {
		return status.Errorf(codes.NotFound, "failed to pull and unpack image %q: failed to resolve reference %q: %s: not found", ref, ref, ref)
	}
	r.mu.Unlock()
	err := fetch()
	r.mu.Lock()
	if err != nil {
		return status.Errorf(codes.Unknown, "failed to pull and unpack image %q: %v", ref, err)
	}
	r.addImage(ref)
	return nil
}

// ImageStatus implements the CRI: an image that is not there is no error.
func (r *Runtime) ImageStatus(_ context.Context, req *runtimeapi.ImageStatusRequest) (*runtimeapi.ImageStatusResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	image := r.findImage(req.GetImage().GetImage())
	if image == nil {
		return &runtimeapi.ImageStatusResponse{}, nil
	}
	return &runtimeapi.ImageStatusResponse{Image: proto.CloneOf(image)}, nil
}

// PullImage implements the CRI by what the test gave to OnPull.
func (r *Runtime) PullImage(_ context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	ref := req.GetImage().GetImage()
	if err := r.pull(ref); err != nil {
		return nil, err
	}
	return &runtimeapi.PullImageResponse{ImageRef: r.findImage(ref).GetId()}, nil
}

// ListImages implements the CRI.
func (r *Runtime) ListImages(context.Context, *runtimeapi.ListImagesRequest) (*runtimeapi.ListImagesResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	resp := &runtimeapi.ListImagesResponse{}
	for _, image := range r.images {
		resp.Images = append(resp.Images, proto.CloneOf(image))
	}
	slices.SortFunc(resp.Images, func(a, b *runtimeapi.Image) int { return strings.Compare(a.GetId(), b.GetId()) })
	return resp, nil
}

// RemoveImage implements the CRI: an image that is not there is no error.
func (r *Runtime) RemoveImage(_ context.Context, req *runtimeapi.RemoveImageRequest) (*runtimeapi.RemoveImageResponse, error) {
	r.DropImage(req.GetImage().GetImage())
	return &runtimeapi.RemoveImageResponse{}, nil
}

// ImageFsInfo implements the CRI.
func (r *Runtime) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	r.mu.Lock()
	defer r.unlock()
	dir := r.options.ImageDir
	if dir == "" {
		dir = os.TempDir()
	}
	var used uint64
	for _, image := range r.images {
		used += image.GetSize()
	}
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{
		Timestamp: r.now(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: dir}, UsedBytes: &runtimeapi.UInt64Value{Value: used},
		InodesUsed: &runtimeapi.UInt64Value{},
	}}}, nil
}
