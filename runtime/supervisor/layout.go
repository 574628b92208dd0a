package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// makeLayout puts on the host what a pod needs there, in order.
func makeLayout(entries []podspec.HostPath) error {
	for _, h := range entries {
		if err := makePath(h); err != nil {
			if h.Field != "" {
				return fmt.Errorf("%s: %w", h.Field, err)
			}
			return err
		}
	}
	return nil
}

func makePath(h podspec.HostPath) error {
	switch h.Kind {
	case podspec.MakeDir:
		return makeDir(h)
	case podspec.MakeFile:
		return makeFile(h)
	case podspec.WriteFile:
		return writeFile(h)
	case podspec.MountTmpfs:
		options := noSwap
		if h.Size > 0 {
			options = fmt.Sprintf("size=%d,%s", h.Size, noSwap)
		}
		return mountVolume(h, "tmpfs", options)
	case podspec.MountHugePages:
		return mountVolume(h, "hugetlbfs", fmt.Sprintf("pagesize=%d", h.PageSize))
	case podspec.BindSubPath:
		return bindSubPath(h)
	default:
		return needPath(h)
	}
}

// makeDir makes a directory and its missing parents, all with the entry's mode whatever the umask.
func makeDir(h podspec.HostPath) error {
	info, err := os.Stat(h.Path)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("making the directory %s: there is a %s", h.Path, kindOf(info.Mode()))
	case err == nil && !h.Force:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("making the directory %s: %w", h.Path, err)
	case err != nil:
		if parent := filepath.Dir(h.Path); parent != h.Path {
			if err := makeDir(podspec.HostPath{Path: parent, Mode: h.Mode &^ (fs.ModeSetgid | 0o022)}); err != nil {
				return err
			}
		}
		if err := os.Mkdir(h.Path, h.Mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making the directory %s: %w", h.Path, err)
		}
	}
	return setOwner(h)
}

// setOwner gives a path its final mode and group. The group comes first: changing it clears the setgid bit.
func setOwner(h podspec.HostPath) error {
	if h.Group != nil {
		if err := os.Chown(h.Path, -1, int(*h.Group)); err != nil {
			return fmt.Errorf("giving %s to group %d: %w", h.Path, *h.Group, err)
		}
	}
	if err := os.Chmod(h.Path, h.Mode); err != nil {
		return fmt.Errorf("setting the mode of %s: %w", h.Path, err)
	}
	return nil
}

func makeFile(h podspec.HostPath) error {
	f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, h.Mode.Perm())
	if errors.Is(err, fs.ErrExist) {
		h.Kind = podspec.NeedFile
		return needPath(h)
	}
	if err != nil {
		return fmt.Errorf("making the file %s: %w", h.Path, err)
	}
	return errors.Join(setOwner(h), f.Close())
}

// writeFile gives a file exactly its content. A file that is right is left alone; another is overwritten in place,
// because a container may have it mounted and would keep seeing the one that a rename replaces.
func writeFile(h podspec.HostPath) error {
	if data, err := os.ReadFile(h.Path); err == nil && bytes.Equal(data, h.Content) {
		return setOwner(h)
	}
	if err := os.WriteFile(h.Path, h.Content, h.Mode.Perm()); err != nil {
		return fmt.Errorf("writing %s: %w", h.Path, err)
	}
	return setOwner(h)
}

// noSwap keeps what is in memory, such as a secret, from being written to a disk.
const noSwap = "noswap"

// mountVolume mounts a file system of its own on a directory, unless something is mounted there already.
func mountVolume(h podspec.HostPath, kind, options string) error {
	dir := h
	dir.Kind = podspec.MakeDir
	if err := makeDir(dir); err != nil {
		return err
	}
	switch mounted, err := mountinfo.Mounted(h.Path); {
	case err != nil:
		return fmt.Errorf("looking for a %s on %s: %w", kind, h.Path, err)
	case mounted:
		return setOwner(h)
	}
	err := unix.Mount(kind, h.Path, kind, 0, options)
	if rest, ok := strings.CutSuffix(options, noSwap); ok && errors.Is(err, unix.EINVAL) { // before Linux 6.4
		err = unix.Mount(kind, h.Path, kind, 0, strings.TrimSuffix(rest, ","))
	}
	if err != nil {
		return fmt.Errorf("mounting a %s on %s: %w", kind, h.Path, err)
	}
	return setOwner(h)
}

// needPath checks that something of the wanted kind is there.
func needPath(h podspec.HostPath) error {
	info, err := os.Stat(h.Path)
	if err != nil {
		return fmt.Errorf("looking for %s: %w", h.Path, err)
	}
	m := info.Mode()
	ok, want := false, ""
	switch h.Kind {
	case podspec.NeedDir:
		ok, want = m.IsDir(), "directory"
	case podspec.NeedFile:
		ok, want = m.IsRegular(), "file"
	case podspec.NeedSocket:
		ok, want = m&fs.ModeSocket != 0, "socket"
	case podspec.NeedCharDevice:
		ok, want = m&fs.ModeCharDevice != 0, "character device"
	case podspec.NeedBlockDevice:
		ok, want = m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0, "block device"
	}
	if !ok {
		return fmt.Errorf("%s is a %s, the manifest wants a %s", h.Path, kindOf(m), want)
	}
	return nil
}

func kindOf(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "regular file"
	case m&fs.ModeSocket != 0:
		return "socket"
	case m&fs.ModeCharDevice != 0:
		return "character device"
	case m&fs.ModeDevice != 0:
		return "block device"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "symbolic link"
}

// linkLog makes the symlink by which log collectors find a container's log.
func linkLog(p *manifest.StaticPod, container string, attempt uint32, id string, n podspec.Node) error {
	if n.ContainerLogsDir == "" {
		return nil
	}
	if err := makeDir(podspec.HostPath{Path: n.ContainerLogsDir, Mode: 0o755}); err != nil {
		return err
	}
	link := filepath.Join(n.ContainerLogsDir, podspec.LogLink(p, container, id))
	target := filepath.Join(podspec.LogDir(p, n), podspec.LogPath(container, attempt))
	if err := os.Symlink(target, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("linking the log of %s: %w", container, err)
	}
	return nil
}
