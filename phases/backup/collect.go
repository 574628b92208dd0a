package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// maxExtra is the size, in bytes, up to which a file that the manifests name is copied: configuration, not data.
const maxExtra = 1 << 20

// Tree is a store that can list directories.
type Tree interface {
	ReadFile(path string) (artifact.File, error)
	ReadDir(path string) ([]string, error)
}

// Collect returns what of the node goes into an archive, sorted by path: the PKI directory, the kubeconfigs, all
// manifests, the KubeletConfiguration, and the files that the components' flags name or that are mounted into them as
// files. left are the host paths of volumes that are none of this: directories, and files above 1 MiB.
func Collect(files Tree, p *plane.Plane) (collected []artifact.File, left []string, err error) {
	c := collector{files: files, found: map[string]artifact.File{}}
	c.tree(p.Paths.PKI)
	c.matching(p.Paths.Kubernetes, ".conf")
	c.matching(p.Paths.Manifests, ".yaml")
	c.file(p.Paths.KubeletConfig)
	for _, name := range plane.Components() {
		if component := p.Components[name]; component != nil {
			c.file(component.File.Path)
			c.volumes(component, p)
		}
	}
	if c.err != nil {
		return nil, nil, c.err
	}
	for _, f := range c.found {
		collected = append(collected, f)
	}
	slices.SortFunc(collected, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(c.left)
	return collected, slices.Compact(c.left), nil
}

type collector struct {
	files Tree
	found map[string]artifact.File
	left  []string
	err   error
}

// file takes a file where there is one.
func (c *collector) file(path string) {
	f, err := c.files.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		c.err = errors.Join(c.err, fmt.Errorf("reading %s: %w", path, err))
	case !f.Mode.IsDir():
		c.found[path] = f
	}
}

func (c *collector) names(dir string) []string {
	names, err := c.files.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.err = errors.Join(c.err, fmt.Errorf("listing %s: %w", dir, err))
	}
	return names
}

// tree takes all that is below dir.
func (c *collector) tree(dir string) {
	for _, name := range c.names(dir) {
		path := filepath.Join(dir, name)
		if f, err := c.files.ReadFile(path); err == nil && f.Mode.IsDir() {
			c.tree(path)
		} else {
			c.file(path)
		}
	}
}

func (c *collector) matching(dir, suffix string) {
	for _, name := range c.names(dir) {
		if strings.HasSuffix(name, suffix) && !strings.HasPrefix(name, ".") {
			c.file(filepath.Join(dir, name))
		}
	}
}

// distribution are directories of every machine's own.
var distribution = []string{"/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/usr"}

// volumes takes the files that a component reads from the host.
func (c *collector) volumes(component *plane.Component, p *plane.Plane) {
	mounts := map[string]string{} // volume → where it is in the container
	for _, m := range component.Pod.Spec.Containers[0].VolumeMounts {
		mounts[m.Name] = m.MountPath
	}
	for _, v := range component.Pod.Spec.Volumes {
		if v.HostPath == nil || c.known(v.HostPath.Path, p) {
			continue
		}
		if c.mounted(v, mounts[v.Name], component.Args) {
			continue
		}
		c.left = append(c.left, v.HostPath.Path)
	}
}

// known tells whether a host path is taken anyway, or is not the node's to carry away.
func (c *collector) known(path string, p *plane.Plane) bool {
	own := append([]string{p.Paths.PKI}, distribution...)
	if p.Member != nil {
		own = append(own, p.Member.DataDir)
	}
	_, taken := c.found[path]
	return taken || slices.ContainsFunc(own, func(dir string) bool { return ledger.Within(path, dir) })
}

// mounted takes a volume that is a file, and of one that is a directory what the flags name. It reports whether that may
// be all of it.
func (c *collector) mounted(v corev1.Volume, mount string, args []string) bool {
	f, err := c.files.ReadFile(v.HostPath.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true
	case err != nil:
		c.err = errors.Join(c.err, fmt.Errorf("reading %s: %w", v.HostPath.Path, err))
		return true
	case !f.Mode.IsDir():
		return c.small(f)
	}
	for _, arg := range args {
		_, value, joined := strings.Cut(arg, "=")
		if !joined {
			value = arg // of a flag that stands before it
		}
		if mount == "" || !ledger.Below(value, mount) {
			continue
		}
		inside, err := filepath.Rel(mount, value)
		if err != nil {
			continue
		}
		if f, err := c.files.ReadFile(filepath.Join(v.HostPath.Path, inside)); err == nil && !f.Mode.IsDir() {
			c.small(f)
		}
	}
	return false
}

func (c *collector) small(f artifact.File) bool {
	if len(f.Data) > maxExtra {
		return false
	}
	c.found[f.Path] = f
	return true
}
