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
	r = &recording{}
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

func (r *recording) sandbox(name string, version int) (*runtimeapi.PodSandboxConfig, error) {
	config := &runtimeapi.PodSandboxConfig{}
	return config, r.rename(r.sandboxes[version-1], config, name, version)
}

func (r *recording) container(name string, version int, attempt uint32) (*runtimeapi.ContainerConfig, error) {
	config := &runtimeapi.ContainerConfig{}
	if err := r.rename(r.containers[version-1], config, name, version); err != nil {
		return nil, err
	}
	config.Metadata.Attempt = attempt
	config.LogPath = filepath.Join(filepath.Dir(config.GetLogPath()), fmt.Sprintf("%d.log", attempt))
	return config, nil
}

// prepare makes the directories, files and cgroups that the requests of both versions of a pod name.
func (r *recording) prepare(name string) error {
	for version := 1; version <= len(r.sandboxes); version++ {
		sandbox, err := r.sandbox(name, version)
		if err != nil {
			return err
		}
		container, err := r.container(name, version, 0)
		if err != nil {
			return err
		}
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
