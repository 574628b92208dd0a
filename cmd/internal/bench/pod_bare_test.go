//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
	"github.com/slipway-k8s/slipway/runtime/cri"
)

// bareWatcher makes the CRI calls that no watcher can do without, and nothing else: no look at the runtime, no
// directories, no cgroups, no hosts file. With a recording its calls ask for the same as slipway's.
type bareWatcher struct {
	node     *podtest.Node
	socket   string // the node's, or a proxy's
	client   *cri.Client
	recorded *recording // nil: they ask for as little as possible

	mu   sync.Mutex
	pods map[string]*barePod
}

type barePod struct {
	sandbox, container string
	config             *runtimeapi.PodSandboxConfig
	version            int
	attempt            uint32
}

func (b *bareWatcher) kind() watcherKind {
	if b.recorded != nil {
		return samePods
	}
	return barePods
}

// prepare makes what the requests name, which is not measured.
func (b *bareWatcher) prepare(pods ...string) error {
	if b.recorded == nil {
		return os.MkdirAll(b.logs(), 0o755)
	}
	for _, pod := range pods {
		if err := b.recorded.prepare(b.node.PodName(pod)); err != nil {
			return err
		}
	}
	return nil
}

func (b *bareWatcher) start(ctx context.Context) (err error) {
	b.pods = map[string]*barePod{}
	b.client, err = cri.Dial(ctx, b.socket)
	return err
}

func (b *bareWatcher) stop() { b.client.Close() }

func (b *bareWatcher) add(ctx context.Context, pods ...string) error {
	var group errgroup.Group
	for _, pod := range pods {
		group.Go(func() error { return b.run(ctx, pod, 1) })
	}
	return group.Wait()
}

// logs is one directory for all: that of a pod is a watcher's to make.
func (b *bareWatcher) logs() string { return filepath.Join(b.node.PodLogs, "bare") }

// bareGrace is that of podManifest.
const bareGrace = 10 * time.Second

func (b *bareWatcher) change(ctx context.Context, pod string) error {
	p := b.pod(pod)
	if err := b.client.StopContainer(ctx, p.container, bareGrace); err != nil {
		return err
	}
	if err := b.client.StopPodSandbox(ctx, p.sandbox); err != nil {
		return err
	}
	return b.run(ctx, pod, 2)
}

func (b *bareWatcher) remove(ctx context.Context, pod string) error {
	p := b.pod(pod)
	if err := b.client.StopContainer(ctx, p.container, bareGrace); err != nil {
		return err
	}
	if err := b.client.StopPodSandbox(ctx, p.sandbox); err != nil {
		return err
	}
	return b.client.RemovePodSandbox(ctx, p.sandbox)
}

func (b *bareWatcher) restart(ctx context.Context, pod string) error {
	p := b.pod(pod)
	p.attempt++
	return b.runContainer(ctx, p)
}

func (b *bareWatcher) pod(name string) *barePod {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pods[name]
}

func (b *bareWatcher) run(ctx context.Context, pod string, version int) (err error) {
	p := &barePod{version: version}
	if p.config, err = b.sandboxConfig(pod, version); err != nil {
		return err
	}
	if p.sandbox, err = b.client.RunPodSandbox(ctx, p.config, ""); err != nil {
		return err
	}
	b.mu.Lock()
	b.pods[pod] = p
	b.mu.Unlock()
	return b.runContainer(ctx, p)
}

func (b *bareWatcher) sandboxConfig(pod string, version int) (*runtimeapi.PodSandboxConfig, error) {
	name := b.node.PodName(pod)
	if b.recorded != nil {
		return b.recorded.sandbox(name, version)
	}
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "default", Uid: fmt.Sprintf("%s-%d", pod, version)},
		LogDirectory: b.logs(),
		Labels:       map[string]string{"io.kubernetes.pod.name": name},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    b.node.Cgroup + "/bare",
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: hostNetwork()},
		},
	}, nil
}

func (b *bareWatcher) containerConfig(p *barePod) (*runtimeapi.ContainerConfig, error) {
	if b.recorded != nil {
		return b.recorded.container(p.config.GetMetadata().GetName(), p.version, p.attempt)
	}
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main", Attempt: p.attempt},
		Image:    &runtimeapi.ImageSpec{Image: podtest.Image},
		Args:     podManifest("", p.version).Pod.Spec.Containers[0].Args,
		LogPath:  fmt.Sprintf("%s_%d.log", p.config.GetMetadata().GetUid(), p.attempt),
		Labels:   map[string]string{"io.kubernetes.pod.name": p.config.GetMetadata().GetName()},
		Linux:    &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: hostNetwork()}},
	}, nil
}

func (b *bareWatcher) runContainer(ctx context.Context, p *barePod) error {
	config, err := b.containerConfig(p)
	if err != nil {
		return err
	}
	if p.container, err = b.client.CreateContainer(ctx, p.sandbox, config, p.config); err != nil {
		return err
	}
	return b.client.StartContainer(ctx, p.container)
}

func hostNetwork() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER}
}
