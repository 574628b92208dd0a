package cri

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageStatus returns the image that ref names (a tag, a digest or an id), nil without an error when it is not there.
func (c *Client) ImageStatus(ctx context.Context, ref string) (*runtimeapi.Image, error) {
	resp, err := call(ctx, callTimeout, fmt.Sprintf("looking for image %q", ref), func(ctx context.Context) (*runtimeapi.ImageStatusResponse, error) {
		return c.image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	})
	return resp.GetImage(), err
}

// PullImage gets the image from its registry and returns its id. It has no deadline but ctx's: a large image over a
// slow line takes what it takes. The sandbox config may be nil.
func (c *Client) PullImage(ctx context.Context, ref string, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	resp, err := call(ctx, 0, fmt.Sprintf("pulling image %q", ref), func(ctx context.Context) (*runtimeapi.PullImageResponse, error) {
		return c.image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}, SandboxConfig: sandbox})
	})
	return resp.GetImageRef(), err
}

// ListImages returns every image in the runtime's store, in no order.
func (c *Client) ListImages(ctx context.Context) ([]*runtimeapi.Image, error) {
	resp, err := call(ctx, listTimeout, "listing images", func(ctx context.Context) (*runtimeapi.ListImagesResponse, error) {
		return c.image.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	})
	return resp.GetImages(), err
}

// RemoveImage removes the image with all of its names. One that is gone is no error. Nothing keeps a runtime from
// removing an image that is in use: its containers run on, and cannot be made again.
func (c *Client) RemoveImage(ctx context.Context, ref string) error {
	_, err := call(ctx, callTimeout, fmt.Sprintf("removing image %q", ref), func(ctx context.Context) (*runtimeapi.RemoveImageResponse, error) {
		return c.image.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	})
	return absentIsDone(err)
}

// ImageFsInfo returns the file systems that images are unpacked on. The mount point of one is a directory on it, not
// where it is mounted.
func (c *Client) ImageFsInfo(ctx context.Context) ([]*runtimeapi.FilesystemUsage, error) {
	resp, err := call(ctx, listTimeout, "asking for the image file system", func(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
		return c.image.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	})
	return resp.GetImageFilesystems(), err
}
