//go:build bench

package bench

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// recordedPod is the pod whose requests are recorded.
const recordedPod = "recorded"

// recording is what slipway asked for when it ran a pod and then its second version: the floor of what its pods cost,
// whoever makes the calls.
type recording struct {
	sandboxes  []*runtimeapi.PodSandboxConfig // by version, from 1
	containers []*runtimeapi.ContainerConfig
	cgroups    *cgroup.Tree

	mu       sync.Mutex
	prepared map[requestKey]preparedRequests // renaming takes a millisecond or two, which is not the runtime's
}

// requestKey is a version of a pod.
type requestKey struct {
	name    string
	version int
}

type preparedRequests struct {
	sandbox   *runtimeapi.PodSandboxConfig
	container *runtimeapi.ContainerConfig
}

// record lets slipway run a pod through a proxy.
func (p *podBench) record(ctx context.Context) (r *recording, err error) {
	proxied, err := startProxy(ctx, filepath.Join(p.node.Dir, "r.sock"), p.node.Socket)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, proxied.stop()) }()
	p.slipway.args = []string{"--cri-socket", "unix://" + proxied.socket}
	defer func() { p.slipway.args = nil }()
	start := time.Now()
	err = p.with(ctx, p.slipway, func() error {
		_, _, err := p.added(ctx, p.slipway, recordedPod)
		if err := errors.Join(err, pause(ctx)); err != nil {
			return err
		}
		_, _, err = p.changed(ctx, p.slipway, recordedPod)
		return errors.Join(err, pause(ctx))
	})
	if err != nil {
		return nil, err
	}
	r = &recording{prepared: map[requestKey]preparedRequests{}}
	if r.cgroups, err = cgroup.Open("/sys/fs/cgroup"); err != nil {
		return nil, err
	}
	name := p.node.PodName(recordedPod)
	for _, raw := range proxied.requests("RunPodSandbox", start) {
		var request runtimeapi.RunPodSandboxRequest
		if err := proto.Unmarshal(raw, &request); err != nil {
			return nil, err
		}
		if request.GetConfig().GetMetadata().GetName() == name {
			r.sandboxes = append(r.sandboxes, request.GetConfig())
		}
	}
	for _, raw := range proxied.requests("CreateContainer", start) {
		var request runtimeapi.CreateContainerRequest
		if err := proto.Unmarshal(raw, &request); err != nil {
			return nil, err
		}
		if request.GetSandboxConfig().GetMetadata().GetName() == name {
			r.containers = append(r.containers, request.GetConfig())
		}
	}
	if len(r.sandboxes) != 2 || len(r.containers) != 2 {
		return nil, fmt.Errorf("slipway made %d sandboxes and %d containers of two versions", len(r.sandboxes), len(r.containers))
	}
	return r, nil
}

// uid is that of another pod's version, of the same length.
func (r *recording) uid(name string, version int) string {
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %d", name, version)))[:32]
}

// rename makes the request of a pod of another name and uid out of a recorded one.
func (r *recording) rename(recorded, into proto.Message, name string, version int) error {
	text, err := protojson.Marshal(recorded)
	if err != nil {
		return err
	}
	of := r.sandboxes[version-1].GetMetadata()
	renamed := strings.NewReplacer(of.GetName(), name, of.GetUid(), r.uid(name, version)).Replace(string(text))
	return protojson.Unmarshal([]byte(renamed), into)
}

// of are the requests of a version of a pod, which was prepared.
func (r *recording) of(name string, version int) (preparedRequests, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.prepared[requestKey{name, version}]
	if !ok {
		return p, fmt.Errorf("version %d of %s was not prepared", version, name)
	}
	return p, nil
}

func (r *recording) sandbox(name string, version int) (*runtimeapi.PodSandboxConfig, error) {
	p, err := r.of(name, version)
	return p.sandbox, err
}

func (r *recording) container(name string, version int, attempt uint32) (*runtimeapi.ContainerConfig, error) {
	p, err := r.of(name, version)
	if err != nil {
		return nil, err
	}
	p.container.Metadata.Attempt = attempt
	p.container.LogPath = filepath.Join(filepath.Dir(p.container.GetLogPath()), fmt.Sprintf("%d.log", attempt))
	return p.container, nil
}

// prepare makes the requests of both versions of a pod, and the directories, files and cgroups that they name.
func (r *recording) prepare(name string) error {
	for version := 1; version <= len(r.sandboxes); version++ {
		sandbox, container := &runtimeapi.PodSandboxConfig{}, &runtimeapi.ContainerConfig{}
		err := errors.Join(r.rename(r.sandboxes[version-1], sandbox, name, version), r.rename(r.containers[version-1], container, name, version))
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.prepared[requestKey{name, version}] = preparedRequests{sandbox, container}
		r.mu.Unlock()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(sandbox.GetLogDirectory(), container.GetLogPath())), 0o755); err != nil {
			return err
		}
		for _, m := range container.GetMounts() {
			if _, err := os.Stat(m.GetHostPath()); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(m.GetHostPath()), 0o750), os.WriteFile(m.GetHostPath(), nil, 0o666)); err != nil {
				return err
			}
		}
		if err := r.cgroups.Ensure(sandbox.GetLinux().GetCgroupParent(), podspec.CgroupResources{}); err != nil {
			return err
		}
	}
	return nil
}
