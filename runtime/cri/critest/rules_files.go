package critest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

func testLogFile(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "exit", "0")
	s := c.exited(id)
	if want := filepath.Join(c.Dir, c.name, "app.log"); s.GetLogPath() != want {
		t.Errorf("log path %q, want %q", s.GetLogPath(), want)
	}
	if _, err := os.Stat(s.GetLogPath()); err != nil {
		t.Error(err)
	}
}

func testReopenLog(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "run")
	log := c.status(id).GetLogPath()
	before, err := os.Stat(log)
	c.must(err)
	c.must(os.Rename(log, log+".moved"))
	c.must(c.Client.ReopenContainerLog(t.Context(), id))
	after, err := os.Stat(log)
	c.must(err)
	moved, err := os.Stat(log + ".moved")
	c.must(err)
	if os.SameFile(before, after) || !os.SameFile(before, moved) {
		t.Error("after the log was opened anew, the new name must be a new file and the old file must be where it was moved")
	}
	c.must(c.Client.ReopenContainerLog(t.Context(), id)) // without a move
	if again, err := os.Stat(log); err != nil || !os.SameFile(after, again) {
		t.Errorf("opening a log anew that was not moved made another file: %v", err)
	}
}

func testReopenNothing(t *testing.T, c *contract) {
	c.mustBeNotFound(c.Client.ReopenContainerLog(t.Context(), noID), "opening the log of a container that is none")
	id := c.run(c.sandbox(0), "/app", "run")
	log := c.status(id).GetLogPath()
	c.must(c.Client.StopContainer(t.Context(), id, 0))
	c.must(os.Remove(log))
	c.mustFail(c.Client.ReopenContainerLog(t.Context(), id), "opening the log of an exited container")
	if _, err := os.Stat(log); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an exited container has a log again: %v", err)
	}
}

func testImages(t *testing.T, c *contract) {
	absent, err := c.Client.ImageStatus(t.Context(), "registry.invalid/absent:1")
	c.must(err)
	if absent != nil {
		t.Errorf("absent image: %v, want nil", absent)
	}
	image, err := c.Client.ImageStatus(t.Context(), c.Image)
	c.must(err)
	if !strings.HasPrefix(image.GetId(), "sha256:") || !slices.Contains(image.GetRepoTags(), c.Image) {
		t.Errorf("image %v, want an id and the tag %q", image, c.Image)
	}
	byID, err := c.Client.ImageStatus(t.Context(), image.GetId())
	c.must(err)
	if byID.GetId() != image.GetId() {
		t.Errorf("by id: %v", byID)
	}
	list, err := c.Client.ListImages(t.Context())
	c.must(err)
	if !slices.ContainsFunc(list, func(i *runtimeapi.Image) bool { return i.GetId() == image.GetId() }) {
		t.Errorf("the list lacks %q", c.Image)
	}
}

func testRemoveImage(t *testing.T, c *contract) {
	image, err := c.Client.ImageStatus(t.Context(), c.Spare)
	c.must(err)
	if image == nil {
		t.Fatalf("the target's spare image %q is not there", c.Spare)
	}
	for range 2 {
		c.must(c.Client.RemoveImage(t.Context(), image.GetId()))
	}
	for _, ref := range slices.Concat(image.GetRepoTags(), []string{image.GetId()}) {
		if still, err := c.Client.ImageStatus(t.Context(), ref); err != nil || still != nil {
			t.Errorf("after removing %s by its id, %s is %v (%v)", c.Spare, ref, still, err)
		}
	}
	list, err := c.Client.Images(t.Context())
	c.must(err)
	if slices.ContainsFunc(list, func(i cri.Image) bool { return i.ID == image.GetId() }) {
		t.Error("the list has the removed image")
	}
	mine := slices.IndexFunc(list, func(i cri.Image) bool { return slices.Contains(i.Refs, c.Image) })
	if mine < 0 || list[mine].Size <= 0 {
		t.Errorf("the list lacks %q, or its size: %v", c.Image, list)
	}
}

// testUsedImages also holds for the image of a container that has exited.
func testUsedImages(t *testing.T, c *contract) {
	image, err := c.Client.ImageStatus(t.Context(), c.Image)
	c.must(err)
	id := c.run(c.sandbox(0), "/app", "exit", "0")
	c.exited(id)
	used, err := c.Client.UsedImages(t.Context())
	c.must(err)
	if !slices.Contains(used, image.GetId()) {
		t.Errorf("images in use: %q, want %s, which an exited container has", used, image.GetId())
	}
	if c.SandboxImage == "" {
		return
	}
	sandbox, err := c.Client.ImageStatus(t.Context(), c.SandboxImage)
	c.must(err)
	if !sandbox.GetPinned() && !slices.Contains(used, c.SandboxImage) {
		t.Errorf("the sandbox image %s is neither pinned nor among the images in use: %q", c.SandboxImage, used)
	}
}

func testInventory(t *testing.T, c *contract) {
	id, uid := c.sandbox(0), c.sandboxConfig(0).GetMetadata().GetUid()
	container := c.create(id, 0, "/app", "run")
	for _, state := range []string{"ready", "stopped"} {
		has, err := c.Client.Inventory(t.Context())
		c.must(err)
		if !slices.Contains(has.Pods, uid) || !slices.Contains(has.Containers, container) {
			t.Errorf("inventory %q, want the %s sandbox's uid %s and the container %s", has, state, uid, container)
		}
		c.must(c.Client.StopPodSandbox(t.Context(), id))
	}
	c.must(c.Client.RemovePodSandbox(t.Context(), id))
	if has, err := c.Client.Inventory(t.Context()); err != nil || slices.Contains(has.Pods, uid) || slices.Contains(has.Containers, container) {
		t.Errorf("after the removal: %q, %v", has, err)
	}
}

func testImageFileSystem(t *testing.T, c *contract) {
	systems, err := c.Client.ImageFsInfo(t.Context())
	c.must(err)
	if len(systems) == 0 {
		t.Fatal("there is none")
	}
	for _, fs := range systems {
		if info, err := os.Stat(fs.GetFsId().GetMountpoint()); err != nil || !info.IsDir() {
			t.Errorf("%v is no directory: %v", fs, err)
		}
	}
}
