package podspec

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// subPath is the part of a volume that a mount is of; "" is the whole volume. What the environment brings into an
// expression is held to the same rules as a path in the manifest.
func subPath(m corev1.VolumeMount, e env) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		var missing []string
		if sub, missing = e.expandStrict(m.SubPathExpr); len(missing) > 0 {
			return "", fmt.Errorf("subPathExpr %q: there is no variable %s", m.SubPathExpr, strings.Join(missing, ", "))
		}
	}
	switch {
	case path.IsAbs(sub):
		return "", fmt.Errorf("subPath %q is not relative", sub)
	case slices.Contains(strings.Split(sub, "/"), ".."):
		return "", fmt.Errorf("subPath %q contains '..'", sub)
	case strings.ContainsRune(sub, 0):
		return "", fmt.Errorf("subPath %q holds a zero byte", sub)
	}
	return sub, nil
}

// subPathTarget is where a part of a volume is bound on the host, for a kubelet to find it: named by the mount's place
// in the container's list.
func subPathTarget(p *manifest.StaticPod, c *corev1.Container, index int, volume string, n Node) string {
	return filepath.Join(PodDir(p.UID, n), "volume-subpaths", volume, c.Name, strconv.Itoa(index))
}

// subPathEntries are the parts of volumes that a container mounts.
func subPathEntries(p *manifest.StaticPod, c *corev1.Container, e env, n Node) ([]HostPath, error) {
	var out []HostPath
	for i, m := range c.VolumeMounts {
		sub, err := subPath(m, e)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.MountPath, err)
		}
		from, err := volumeSource(p, m.Name, n)
		if err != nil {
			return nil, err
		}
		if sub == "" || from.image != "" { // the runtime finds its way in an image itself
			continue
		}
		out = append(out, HostPath{
			Path: subPathTarget(p, c, i, m.Name, n), Kind: BindSubPath, Mode: 0o750, Volume: from.path, SubPath: path.Clean(sub),
			Field: fmt.Sprintf("container %s, mount %s", c.Name, m.MountPath),
		})
	}
	return out, nil
}
