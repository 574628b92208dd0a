//go:build e2e

package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/anypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/garbage"
)

// TestImageGarbage fills the file system of a containerd and has it collected.
func TestImageGarbage(t *testing.T) {
	removeSharedDirs(t)
	app := buildProgram(t, "./testdata/app")
	for _, path := range searchPaths() {
		d := startDaemon(t, path, onTmpfs)
		_, version, err := Version(t.Context(), d.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) { testImageGarbage(t, d, app) })
		d.stop(t)
	}
}

func testImageGarbage(t *testing.T, d *daemon, app []byte) {
	store, err := Open(t.Context(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	load := func(ref string) {
		t.Helper()
		ballast := make([]byte, 10<<20)
		_, _ = rand.Read(ballast) // never fails
		image := testImage{refs: []string{ref}, files: map[string][]byte{"app": app, "ballast": ballast}, entrypoint: []string{"/app", "run"}}
		if _, err := store.Load(t.Context(), writeTar(t, filepath.Join(t.TempDir(), "image.tar"), image.docker(t)), nil); err != nil {
			t.Fatal(err)
		}
	}
	const spareA, spareB = "slipway.test/spare:a", "slipway.test/spare:b"
	const nerdctl, pinned, protected, wanted = "slipway.test/nerdctl:1", "slipway.test/pinned:1", "slipway.test/protected:1", "slipway.test/wanted:1"
	kept := []string{appRef, nerdctl, pauseRef, pinned, protected, wanted}
	for _, ref := range append(slices.Clone(kept), spareA, spareB) {
		load(ref)
	}
	client, err := cri.Dial(t.Context(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "garbage", Namespace: "test", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroupParent(t), SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
	sandbox, err := client.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.RemovePodSandbox(context.WithoutCancel(t.Context()), sandbox); err != nil {
			t.Error(err)
		}
	}()
	create := func(attempt uint32) error {
		_, err := client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "app", Attempt: attempt}, Image: &runtimeapi.ImageSpec{Image: appRef},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
			}},
		}, pod)
		return err
	}
	if err := create(0); err != nil { // never started: in use all the same
		t.Fatal(err)
	}
	if err := store.Pin(t.Context(), []string{pinned}); err != nil {
		t.Fatal(err)
	}
	removeBeside := createBeside(t, client, nerdctl)
	defer removeBeside()
	collect := func() event.Event { return collectOnce(t, client, []string{wanted}, []string{protected}) }
	names := func() (refs []string) {
		t.Helper()
		images, err := store.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range images {
			refs = append(refs, i.Ref)
		}
		return refs
	}

	fill(t, d, 90)
	first := collect()
	if left := names(); first.Reason != event.FreedDiskSpace || len(left) != len(kept)+1 {
		t.Errorf("at 90 %%: %s: %s, left %q; want one spare image to be removed: it is enough", first.Reason, first.Message, left)
	}
	fill(t, d, 90)
	second := collect()
	if diff := cmp.Diff(kept, names()); second.Reason != event.FreedDiskSpace || diff != "" {
		t.Errorf("at 90 %% again: %s: %s (-want +got):\n%s", second.Reason, second.Message, diff)
	}
	fill(t, d, 90)
	third := collect()
	if diff := cmp.Diff(kept, names()); third.Reason != event.FailedToFreeSpace || diff != "" {
		t.Errorf("without a spare image: %s: %s (-want +got):\n%s", third.Reason, third.Message, diff)
	}
	if err := store.Pin(t.Context(), []string{wanted}); err != nil { // and no more the other one
		t.Fatal(err)
	}
	awaitUnpinned(t, client, pinned)
	fill(t, d, 90)
	fourth := collect()
	if left := names(); fourth.Reason != event.FreedDiskSpace || slices.Contains(left, pinned) || len(left) != len(kept)-1 {
		t.Errorf("after its pin was taken back: %s: %s, left %q", fourth.Reason, fourth.Message, left)
	}
	if err := store.Pin(t.Context(), []string{pinned}); err == nil {
		t.Error("an image that is not there was pinned")
	}
	for _, e := range []event.Event{first, second, third, fourth} {
		t.Logf("%s: %s", e.Reason, e.Message)
	}
	if err := create(1); err != nil {
		t.Errorf("a container of a kept image: %v", err)
	}
}

// collectOnce runs a collector, wired as supervise does, until it tells of something.
func collectOnce(t *testing.T, client *cri.Client, wanted, protected []string) event.Event {
	t.Helper()
	events := event.NewLog(time.Now)
	c := garbage.Collector{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now, Images: &garbage.Images{
		Policy: garbage.Policy{High: 85, Low: 80}, // no minimum age
		List: func(ctx context.Context) ([]garbage.Image, error) {
			images, err := Images(ctx, client)
			var out []garbage.Image
			for _, i := range images {
				out = append(out, garbage.Image(i))
			}
			return out, err
		},
		Used:   func(ctx context.Context) ([]string, error) { return UsedImages(ctx, client) },
		Wanted: func(context.Context) ([]string, error) { return wanted, nil }, Protected: protected,
		Remove: client.RemoveImage, Usage: garbage.FileSystem, Events: events,
		Dir: func(ctx context.Context) (string, error) {
			systems, err := client.ImageFsInfo(ctx)
			if err == nil && len(systems) == 0 {
				err = errors.New("the runtime names no image file system")
			}
			if err != nil {
				return "", err
			}
			return systems[0].GetFsId().GetMountpoint(), nil
		},
	}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, changed := events.Since(0)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case <-changed:
	case <-time.After(20 * time.Second):
		t.Fatal("the collector told of nothing")
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	all, _ := events.Since(0)
	return all[len(all)-1]
}

// createBeside makes a container of an image through containerd's own API, as nerdctl does.
func createBeside(t *testing.T, client *cri.Client, ref string) (remove func()) {
	t.Helper()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", namespace)
	containers := containersapi.NewContainersClient(client.Conn())
	if _, err := containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: "beside", Image: ref, Runtime: &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}, Spec: &anypb.Any{TypeUrl: "test"},
	}}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "beside"}); err != nil {
			t.Error(err)
		}
	}
}

// awaitUnpinned waits until CRI has heard of it: it follows containerd's own events.
func awaitUnpinned(t *testing.T, client *cri.Client, ref string) {
	t.Helper()
	tick := time.NewTicker(visiblePoll)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < visibleTimeout; <-tick.C {
		images, err := Images(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(images, func(i cri.Image) bool { return i.Pinned && slices.Contains(i.Refs, ref) }) {
			return
		}
	}
	t.Fatalf("%s is pinned still", ref)
}

// fill makes the tmpfs of a daemon so small that it is full to a share in percent.
func fill(t *testing.T, d *daemon, percent uint64) {
	t.Helper()
	dir := filepath.Join(d.dir, "root")
	usage, err := garbage.FileSystem(dir)
	if err != nil {
		t.Fatal(err)
	}
	size := (usage.Capacity - usage.Available) * 100 / percent
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
}

// onTmpfs gives a daemon a file system of its own to keep images on.
func onTmpfs(t *testing.T, dir string) {
	t.Helper()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
}
