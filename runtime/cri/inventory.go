package cri

import (
	"context"
	"maps"
	"slices"
)

// Image is one image of the runtime's store, for those who must not know the CRI's types.
type Image struct {
	ID     string   // what RemoveImage takes
	Refs   []string // all of its names, those with a tag and those with a digest
	Size   int64    // bytes, as the runtime counts them
	Pinned bool     // the runtime wants it kept
}

// Images returns every image in the runtime's store, in no order.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	listed, err := c.ListImages(ctx)
	if err != nil {
		return nil, err
	}
	images := make([]Image, 0, len(listed))
	for _, i := range listed {
		images = append(images, Image{
			ID: i.GetId(), Refs: slices.Concat(i.GetRepoTags(), i.GetRepoDigests()), Size: int64(i.GetSize()), Pinned: i.GetPinned(),
		})
	}
	return images, nil
}

// UsedImages returns the names and ids of every image that some container, running or not and whoever made it, is made
// of or has mounted, and of the image that sandboxes are made of. One image may be there under several names.
func (c *Client) UsedImages(ctx context.Context) ([]string, error) {
	containers, err := c.ListContainers(ctx, nil)
	if err != nil {
		return nil, err
	}
	features, err := c.Features(ctx)
	if err != nil {
		return nil, err
	}
	config, err := c.containerdConfig(ctx)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{config.SandboxImage: true}
	for _, ctr := range containers {
		used[ctr.GetImage().GetImage()], used[ctr.GetImageRef()], used[ctr.GetImageId()] = true, true, true
		if !features.ImageVolumes {
			continue
		}
		st, err := c.ContainerStatus(ctx, ctr.GetId()) // a listing does not tell of mounts
		if IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, m := range st.GetMounts() {
			used[m.GetImage().GetImage()] = true
		}
	}
	delete(used, "")
	return slices.Sorted(maps.Keys(used)), nil
}

// Inventory is what a runtime has, whoever made it and whether it runs or not.
type Inventory struct {
	Pods       []string // uids of the pods of sandboxes and containers
	Containers []string // ids
}

// Inventory lists what the runtime has, sorted.
func (c *Client) Inventory(ctx context.Context) (Inventory, error) {
	// The containers come first: a pod that is made between the two calls then has at least its sandbox listed.
	containers, err := c.ListContainers(ctx, nil)
	if err != nil {
		return Inventory{}, err
	}
	sandboxes, err := c.ListPodSandbox(ctx, nil)
	if err != nil {
		return Inventory{}, err
	}
	uids, ids := map[string]bool{}, map[string]bool{}
	for _, ctr := range containers {
		uids[ctr.GetLabels()[labelPodUID]], ids[ctr.GetId()] = true, true
	}
	for _, sb := range sandboxes {
		uids[sb.GetLabels()[labelPodUID]], uids[sb.GetMetadata().GetUid()] = true, true
	}
	delete(uids, "")
	return Inventory{Pods: slices.Sorted(maps.Keys(uids)), Containers: slices.Sorted(maps.Keys(ids))}, nil
}

// labelPodUID is podspec.LabelPodUID, the label that every client of the CRI writes.
const labelPodUID = "io.kubernetes.pod.uid"
