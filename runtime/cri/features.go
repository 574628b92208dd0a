package cri

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CgroupDriver returns "systemd" or "cgroupfs", whichever the runtime puts containers under, "" when it does not tell.
// A pod whose cgroup parent is spelt for the other driver does not start.
func (c *Client) CgroupDriver(ctx context.Context) (string, error) {
	config, err := c.RuntimeConfig(ctx)
	if err == nil && config.GetLinux() != nil {
		return driverName(config.GetLinux().GetCgroupDriver()), nil
	}
	if err != nil && !errors.Is(err, ErrUnimplemented) {
		return "", err
	}
	info, err := c.containerdConfig(ctx)
	return info.cgroupDriver(), err
}

// Snapshotter returns the name of the snapshotter that containerd keeps unpacked images in, "" when the runtime does
// not tell. containerd names it in the path of its image file system, in every version.
func (c *Client) Snapshotter(ctx context.Context) (string, error) {
	resp, err := call(ctx, listTimeout, "asking for the image file system", func(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
		return c.image.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	})
	for _, fs := range resp.GetImageFilesystems() {
		if name, ok := strings.CutPrefix(filepath.Base(fs.GetFsId().GetMountpoint()), "io.containerd.snapshotter.v1."); ok {
			return name, nil
		}
	}
	if errors.Is(err, ErrUnimplemented) {
		return "", nil
	}
	return "", err
}

// containerdConfig is the part of containerd's verbose status that is of use here. 1.6 names the default runtime by
// another key than 1.7 and later.
type containerdConfig struct {
	Containerd struct {
		DefaultRuntimeName string                       `json:"defaultRuntimeName"`
		DefaultRuntime16   string                       `json:"default_runtime_name"`
		Runtimes           map[string]containerdRuntime `json:"runtimes"`
	} `json:"containerd"`
}

type containerdRuntime struct {
	Options map[string]any `json:"options"`
}

// containerdConfig is the zero value for a runtime that is not containerd.
func (c *Client) containerdConfig(ctx context.Context) (containerdConfig, error) {
	resp, err := c.Status(ctx, true)
	if err != nil {
		return containerdConfig{}, err
	}
	return parseContainerdConfig(resp.GetInfo()["config"]), nil
}

// parseContainerdConfig never fails: the format is containerd's own affair, and what it does not tell stays empty.
func parseContainerdConfig(data string) containerdConfig {
	var config containerdConfig
	if json.Unmarshal([]byte(data), &config) != nil {
		return containerdConfig{}
	}
	return config
}

func (c containerdConfig) cgroupDriver() string {
	name := c.Containerd.DefaultRuntimeName
	if name == "" {
		name = c.Containerd.DefaultRuntime16
	}
	if name == "" {
		name = "runc"
	}
	runtime, ok := c.Containerd.Runtimes[name]
	if !ok {
		return ""
	}
	// An option that is not set is containerd's default, which is cgroupfs before 2.0.
	systemd, _ := runtime.Options["SystemdCgroup"].(bool)
	if systemd {
		return driverName(runtimeapi.CgroupDriver_SYSTEMD)
	}
	return driverName(runtimeapi.CgroupDriver_CGROUPFS)
}

func driverName(d runtimeapi.CgroupDriver) string {
	if d == runtimeapi.CgroupDriver_CGROUPFS {
		return "cgroupfs"
	}
	return "systemd"
}
