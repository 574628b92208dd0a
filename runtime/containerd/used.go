package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// usedTimeout bounds a listing that containerd answers from its own database.
const usedTimeout = 10 * time.Second

// UsedImages returns the names and ids of all images in use: those that CRI tells of (see cri.Client.UsedImages), and
// those of containers that somebody made beside it, with `nerdctl -n k8s.io` or `ctr`, of which CRI knows nothing. A
// runtime that is not containerd has only the former. The client is one that was dialled.
func UsedImages(ctx context.Context, c *cri.Client) ([]string, error) {
	used, err := c.UsedImages(ctx)
	if err != nil {
		return nil, err
	}
	if c.Conn() == nil {
		return nil, errors.New("listing containerd's containers: the client has no connection of its own")
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace), usedTimeout)
	defer cancel()
	resp, err := containersapi.NewContainersClient(c.Conn()).List(ctx, &containersapi.ListContainersRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return used, nil
	case err != nil:
		return nil, fmt.Errorf("listing containerd's containers: %w", err)
	}
	for _, ctr := range resp.GetContainers() {
		if ctr.GetImage() != "" {
			used = append(used, ctr.GetImage())
		}
	}
	return used, nil
}
