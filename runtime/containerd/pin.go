package containerd

import (
	"context"
	"fmt"
	"slices"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

const (
	// pinLabel with the value pinValue makes an image one that no garbage collection takes: the kubelet's neither. CRI
	// tells of it since containerd 1.7. containerd v2.4.2 internal/cri/labels/labels.go:25.
	pinLabel, pinValue = "io.cri-containerd.pinned", "pinned"
	// ownerLabel is beside it where slipway has set it, so that it can be taken back.
	ownerLabel, ownerValue = "slipway.dev/pinned", "true"
)

// Pin pins the images of these names, and takes back the pins that it gave to others: after an upgrade the old images
// may go. What others have pinned stays pinned. A name that is not in the store is an error, after the others are done.
func (s *Store) Pin(ctx context.Context, refs []string) error {
	want := map[string]bool{}
	for _, ref := range refs {
		name, err := Normalize(ref)
		if err != nil {
			return err
		}
		want[name] = true
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	service := imagesapi.NewImagesClient(s.conn)
	listed, err := service.List(ctx, &imagesapi.ListImagesRequest{})
	if err != nil {
		return fmt.Errorf("pinning images: %w", err)
	}
	for _, image := range listed.GetImages() {
		ours, name := image.GetLabels()[ownerLabel] != "", image.GetName()
		switch {
		case want[name] && image.GetLabels()[pinLabel] != pinValue:
			err = setPin(ctx, service, image, pinValue, ownerValue)
		case !want[name] && ours:
			err = setPin(ctx, service, image, "", "") // an empty value removes a label
		}
		if err != nil {
			return fmt.Errorf("pinning image %q: %w", name, err)
		}
		delete(want, name)
	}
	for _, ref := range refs {
		if name, _ := Normalize(ref); want[name] {
			return fmt.Errorf("pinning image %q: it is not in the store", ref)
		}
	}
	return nil
}

// setPin changes the two labels of an image and nothing else of it. The target must be there all the same: containerd
// 2.4 crashes without.
func setPin(ctx context.Context, service imagesapi.ImagesClient, image *imagesapi.Image, pin, owner string) error {
	_, err := service.Update(ctx, &imagesapi.UpdateImageRequest{
		Image: &imagesapi.Image{
			Name: image.GetName(), Target: image.GetTarget(), Labels: map[string]string{pinLabel: pin, ownerLabel: owner},
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels." + pinLabel, "labels." + ownerLabel}},
	})
	if status.Code(err) == codes.NotFound {
		return nil // removed meanwhile
	}
	return err
}

// Images returns what cri.Client.Images does, with the pins that containerd before 1.7 keeps and does not tell CRI of.
// The client is one that was dialled.
func Images(ctx context.Context, c *cri.Client) ([]cri.Image, error) {
	images, err := c.Images(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace), usedTimeout)
	defer cancel()
	listed, err := imagesapi.NewImagesClient(c.Conn()).List(ctx, &imagesapi.ListImagesRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return images, nil // not containerd
	case err != nil:
		return nil, fmt.Errorf("listing containerd's images: %w", err)
	}
	for _, record := range listed.GetImages() {
		if record.GetLabels()[pinLabel] != pinValue {
			continue
		}
		for i := range images {
			if images[i].ID == record.GetName() || slices.Contains(images[i].Refs, record.GetName()) {
				images[i].Pinned = true
			}
		}
	}
	return images, nil
}
