//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
)

// engine is a containerd of the benchmark's own, the same one for both sides, with the control plane's images in its
// store. Everything of it is below one directory.
type engine struct {
	socket, root, state string
	version             string
	process             *process
}

// startEngine starts containerd below dir and imports every archive.
func startEngine(ctx context.Context, dir, archives string) (*engine, error) {
	facts, err := containerd.Detect(dir)
	if err != nil {
		return nil, err
	}
	e := &engine{socket: filepath.Join(dir, "c.sock"), root: filepath.Join(dir, "root"), state: filepath.Join(dir, "state")}
	config := containerd.Config(containerd.ConfigOptions{
		Root: e.root, State: e.state, Socket: e.socket, SandboxImage: registry + pauseImage,
		Facts: facts, CNIConfDir: filepath.Join(dir, "cni"),
	})
	path := filepath.Join(dir, "containerd.toml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return nil, fmt.Errorf("configuring containerd: %w", err)
	}
	if e.process, err = startProcess(filepath.Join(dir, "containerd.log"), containerd.Command(path)...); err != nil {
		return nil, err
	}
	if err := e.fill(ctx, archives); err != nil {
		err = fmt.Errorf("%w\n%s", err, e.process.complaint())
		return nil, errors.Join(err, e.close(ctx))
	}
	return e, nil
}

func (e *engine) fill(ctx context.Context, archives string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := containerd.WaitReady(ctx, e.socket); err != nil {
		return err
	}
	var err error
	if _, e.version, err = containerd.Version(ctx, e.socket); err != nil {
		return err
	}
	store, err := containerd.Open(ctx, e.socket)
	if err != nil {
		return err
	}
	defer store.Close()
	paths, err := filepath.Glob(filepath.Join(archives, "*.tar"))
	if err != nil {
		return fmt.Errorf("finding image archives: %w", err)
	}
	for _, path := range paths {
		if _, err := store.Load(ctx, path, func(int64, int64, string) {}); err != nil {
			return err
		}
	}
	// kubeadm looks for the add-ons' images before it does anything, and what their pods do afterwards is not measured:
	// a stand-in by their name is enough, and leaves this machine's packet filter alone.
	for _, ref := range []string{"kube-proxy:" + kubernetesVersion, "coredns/coredns:" + corednsVersion} {
		argv := []string{"ctr", "--address", e.socket, "--namespace", "k8s.io", "images", "tag", registry + pauseImage, registry + ref}
		if printed, _, err := command(ctx, nil, argv...); err != nil {
			return fmt.Errorf("naming a stand-in for %s: %w: %v", ref, err, printed)
		}
	}
	return nil
}

const (
	registry          = "registry.k8s.io/"
	pauseImage        = "pause:3.10.2"
	kubernetesVersion = "v1.36.3"
	corednsVersion    = "v1.14.2"
)

// clear kills and removes every pod. Graceful ends would only cost time: an API server without its etcd takes a minute.
func (e *engine) clear(ctx context.Context) error {
	client, err := cri.Dial(ctx, e.socket)
	if err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	defer client.Close()
	containers, err := client.ListContainers(ctx, nil)
	if err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	var group errgroup.Group
	for _, c := range containers {
		group.Go(func() error { return client.StopContainer(ctx, c.Id, 0) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	sandboxes, err := client.ListPodSandbox(ctx, nil)
	if err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	for _, s := range sandboxes {
		if err := errors.Join(client.StopPodSandbox(ctx, s.Id), client.RemovePodSandbox(ctx, s.Id)); err != nil {
			return fmt.Errorf("removing the pods: %w", err)
		}
	}
	return nil
}

// close ends containerd, its shims and their pods, and unmounts what they mounted.
func (e *engine) close(ctx context.Context) error {
	var failed error
	if err := e.clear(ctx); err != nil && !strings.Contains(err.Error(), "no such file") {
		failed = err
	}
	e.process.stop(10 * time.Second)
	killShims(e.socket)
	return errors.Join(failed, unmountBelow(filepath.Dir(e.socket)))
}
