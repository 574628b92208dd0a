package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// book is the ledger of a run, under the lock that keeps other runs away.
type book struct {
	*ledger.Ledger
	path   string // as it is on disk
	fresh  bool   // this run began it
	unlock func()
}

// openBook takes the lock and opens the ledger, below root ("" for this machine).
func openBook(root string, p config.Paths) (*book, error) {
	unlock, err := ledger.Lock(root, p.InitLock)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, p.Ledger)
	b := &book{path: path, fresh: !exists(path), unlock: unlock}
	if b.Ledger, err = ledger.Open(root, p.Ledger); err != nil {
		unlock()
		return nil, err
	}
	return b, nil
}

func (b *book) close() {
	b.Close() //nolint:errcheck // every entry is synced already
	b.unlock()
}

// discard removes a ledger that this run began, where nothing that it names was made. An older one stays.
func (b *book) discard() error {
	if !b.fresh {
		return nil
	}
	if err := os.Remove(b.path); err != nil {
		return fmt.Errorf("removing the ledger of a run that did nothing: %w", err)
	}
	return nil // unlock removes the directory, if it made it
}

// openRoot returns the disk below a directory, with a ledger there of what is written.
func openRoot(root string, cluster *config.Cluster) (artifact.Store, func(), error) {
	b, err := openBook(root, cluster.Paths)
	if err != nil {
		return nil, nil, err
	}
	return ledger.Recorded(artifact.Disk{Root: root}, b.Ledger), b.close, nil
}

// openLive takes the lock, opens the ledger, and returns the host and the disk that act on this machine. The caller
// closes the book.
func openLive(std Streams, cluster *config.Cluster) (host.Host, artifact.Store, *book, error) {
	b, err := openBook("", cluster.Paths)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := recordRuntime(b.Ledger, cluster); err != nil {
		b.close()
		return nil, nil, nil, err
	}
	disk := ledger.Recorded(artifact.Disk{}, b.Ledger)
	live := host.NewLive(host.Options{
		Paths: cluster.Paths, Facts: cluster.Facts, Files: disk, Ledger: b.Ledger, Images: imageStore{}, Environ: std.Environ,
		Version: versionOf,
	})
	return live, disk, b, nil
}

// versionOf names the version of a pod that a manifest is, as the supervisor shows it.
func versionOf(data []byte, nodeName string) (string, error) {
	pod, err := manifest.Parse(data, "", nodeName)
	if err != nil {
		return "", err
	}
	return lastgood.Version(pod), nil
}

// recordRuntime notes where the pods will run, and what they and their supervisor leave outside slipway's own
// directories: logs, pod directories and cgroups, in the places where a kubelet has them.
func recordRuntime(book *ledger.Ledger, c *config.Cluster) error {
	p := c.Paths
	runtime := ledger.Entry{Kind: ledger.Runtime, Own: c.CRISocket == "", Socket: socketPath(c)}
	if runtime.Own {
		runtime.Root, runtime.State = p.Containerd, p.ContainerdState
	}
	kubepods := "/kubepods"
	if c.Facts.CgroupDriver == "systemd" {
		kubepods = "/kubepods.slice"
	}
	pods := filepath.Join(p.Kubelet, "pods")
	entries := []ledger.Entry{
		runtime,
		{Kind: ledger.Cgroup, Path: kubepods},
		{Kind: ledger.Mounts, Path: pods},
	}
	if c.Instance == "" {
		entries = append(entries, ledger.Entry{Kind: ledger.File, Path: kubeletLock})
	}
	for _, name := range plane.Components() {
		entries = append(entries,
			ledger.Entry{Kind: ledger.Glob, Path: filepath.Join(p.PodLogs, fmt.Sprintf("kube-system_%s-%s_*", name, c.NodeName))},
			ledger.Entry{Kind: ledger.Glob, Path: filepath.Join(p.ContainerLogs, fmt.Sprintf("%s-%s_kube-system_*", name, c.NodeName))})
	}
	dirs := []string{p.PodLogs, p.ContainerLogs}
	if runtime.Own { // containerd makes these two, whatever its root and state are
		dirs = append(dirs, "/etc/cni/net.d", "/run/containerd/s")
	}
	for _, dir := range dirs {
		if err := book.Dirs(dir); err != nil {
			return err
		}
	}
	for _, tree := range []string{p.Run, p.Logs, p.LastGood, pods} {
		if err := book.Tree(tree); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := book.Record(e); err != nil {
			return err
		}
	}
	return nil
}

func socketPath(c *config.Cluster) string {
	if c.CRISocket != "" {
		return host.SocketPath(c.CRISocket)
	}
	return c.Paths.ContainerdSocket
}

// imageStore serves host.ImageStore from the runtime packages, one connection per call: init makes a handful of them.
type imageStore struct{}

func (imageStore) Version(ctx context.Context, socket string) (name, version string, err error) {
	return containerd.Version(ctx, socket)
}

func (imageStore) CgroupDriver(ctx context.Context, socket string) (string, error) {
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return "", err
	}
	defer client.Close()
	return client.CgroupDriver(ctx)
}

func (imageStore) List(ctx context.Context, socket string) ([]string, error) {
	store, err := containerd.Open(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	images, err := store.List(ctx)
	if err != nil {
		return nil, err
	}
	refs := make([]string, 0, len(images))
	for _, im := range images {
		refs = append(refs, im.Ref)
	}
	return refs, nil
}

func (imageStore) Refs(archive string) ([]string, error) {
	a, err := containerd.Inspect(archive)
	return a.Refs(), err
}

func (imageStore) Load(ctx context.Context, socket, archive string, progress func(done, total int64)) error {
	store, err := containerd.Open(ctx, socket)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = store.Load(ctx, archive, func(done, total int64, _ string) { progress(done, total) })
	return err
}

func (imageStore) Pull(ctx context.Context, socket, ref string, progress func(done, total int64)) error {
	store, err := containerd.Open(ctx, socket)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Pull(ctx, ref, func(done, total int64, _ string) { progress(done, total) })
}

func (imageStore) Pin(ctx context.Context, socket string, refs []string) error {
	store, err := containerd.Open(ctx, socket)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Pin(ctx, refs)
}
