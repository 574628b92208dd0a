package garbage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/runtime/garbage/marker"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// Remover removes what a pod has left on this node.
type Remover struct {
	Node podspec.Node
	// Cgroups removes the cgroups of pods. cgroup.Tree implements it.
	Cgroups interface{ Remove(path string) error }
}

// Remove removes the pod's cgroups, logs, links to them and directory, in this order, and stops at the first failure:
// what processes are left in is in use, and as long as the directory with its marker is there, the rest is found again.
func (r Remover) Remove(ctx context.Context, pod marker.Pod) error {
	for _, path := range podspec.CgroupParents(pod.UID, r.Node) {
		if err := r.Cgroups.Remove(path); err != nil {
			return err
		}
	}
	logs := logDir(pod, r.Node)
	if err := removeLinks(r.Node.ContainerLogsDir, logs); err != nil {
		return err
	}
	if err := os.RemoveAll(logs); err != nil {
		return fmt.Errorf("removing the logs: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return RemovePodDir(podspec.PodDir(pod.UID, r.Node))
}

// removeLinks removes the links whose log is a file below logs.
func removeLinks(dir, logs string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for links to logs: %w", err)
	}
	for _, e := range entries {
		link := filepath.Join(dir, e.Name())
		if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, logs+"/") {
			continue
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing a link to a log: %w", err)
		}
	}
	return nil
}

// RemovePodDir removes a pod's directory, its marker last. Everything mounted below it is unmounted before, the
// innermost first; as long as something is mounted there nothing is removed. A directory that is gone is no error.
func RemovePodDir(dir string) error {
	real, err := filepath.EvalSymlinks(dir) // mounts are listed by their real paths
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for %s: %w", dir, err)
	}
	if err := unmountBelow(real); err != nil {
		return err
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return fmt.Errorf("reading %s: %w", dir, err)
	}
	for _, e := range entries {
		if e.Name() == marker.Name {
			continue
		}
		if err := os.RemoveAll(filepath.Join(real, e.Name())); err != nil {
			return fmt.Errorf("removing a pod's directory: %w", err)
		}
	}
	if err := os.RemoveAll(real); err != nil {
		return fmt.Errorf("removing a pod's directory: %w", err)
	}
	return nil
}

// unmountBelow unmounts what is mounted on dir and below it.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) { // the list is in the order of mounting
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %s: %w", m.Mountpoint, err)
		}
	}
	if mounts, err = mountsBelow(dir); err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("unmounting %s: it was mounted again", mounts[0].Mountpoint)
	}
	return nil
}

func mountsBelow(dir string) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for mounts below %s: %w", dir, err)
	}
	return mounts, nil
}
