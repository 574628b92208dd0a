package cri

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
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
	systems, err := c.ImageFsInfo(ctx)
	for _, fs := range systems {
		if name, ok := strings.CutPrefix(filepath.Base(fs.GetFsId().GetMountpoint()), "io.containerd.snapshotter.v1."); ok {
			return name, nil
		}
	}
	if errors.Is(err, ErrUnimplemented) {
		return "", nil
	}
	return "", err
}

// Features are what a runtime can do beyond the CRI's first version.
type Features struct {
	// Handlers are the names that a runtime class may refer to, sorted. The default handler's own name is among them.
	Handlers []string
	// RecursiveReadOnly: the default handler can make a mount read-only with all that is mounted below it.
	RecursiveReadOnly bool
	// UserNamespaces: the default handler can run a pod in a user namespace, its volumes with shifted ids.
	UserNamespaces bool
	// ImageVolumes: an image can be mounted as a volume.
	ImageVolumes bool
	// StopSignals: a container ends with the signal that whoever made it named.
	StopSignals bool
	// SupplementalGroupsPolicy: the groups that an image gives its user can be left out.
	SupplementalGroupsPolicy bool
}

const (
	// imageVolumesSince is the first containerd that mounts images; those before it do not know the field of the mount
	// that names one. containerd/containerd pull request 10579.
	imageVolumesSince = "2.1.0"
	// stopSignalsSince is the first containerd that takes ContainerConfig.StopSignal; those before it ignore it without a
	// word.
	stopSignalsSince = "2.4.0"
)

// Features asks the runtime what it can do. containerd before 2.0 does not tell: of it only the handlers are known, from
// its configuration, and it has none of the rest in the form that Kubernetes asks for.
func (c *Client) Features(ctx context.Context) (Features, error) {
	resp, err := c.Status(ctx, true)
	if err != nil {
		return Features{}, err
	}
	about, err := c.Version(ctx)
	if err != nil {
		return Features{}, err
	}
	f := Features{
		ImageVolumes: isContainerd(about, imageVolumesSince), StopSignals: isContainerd(about, stopSignalsSince),
		SupplementalGroupsPolicy: resp.GetFeatures().GetSupplementalGroupsPolicy(),
	}
	for _, h := range resp.GetRuntimeHandlers() {
		if h.GetName() == "" { // the default one
			f.RecursiveReadOnly = h.GetFeatures().GetRecursiveReadOnlyMounts()
			f.UserNamespaces = h.GetFeatures().GetUserNamespaces()
			continue
		}
		f.Handlers = append(f.Handlers, h.GetName())
	}
	if len(resp.GetRuntimeHandlers()) == 0 {
		f.Handlers = slices.Collect(maps.Keys(parseContainerdConfig(resp.GetInfo()["config"]).Containerd.Runtimes))
	}
	slices.Sort(f.Handlers)
	return f, nil
}

// isContainerd tells whether the runtime is containerd of that release or a later one.
func isContainerd(about *runtimeapi.VersionResponse, since string) bool {
	v, err := version.ParseGeneric(about.GetRuntimeVersion()) // takes v2.4.2 and Debian's 1.6.20~ds1 alike
	return err == nil && about.GetRuntimeName() == "containerd" && v.AtLeast(version.MustParseGeneric(since))
}

// containerdConfig is the part of containerd's verbose status that is of use here. 1.6 names the default runtime by
// another key than 1.7 and later.
type containerdConfig struct {
	SandboxImage string `json:"sandboxImage"` // before 2.0, which pins it instead
	Containerd   struct {
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
