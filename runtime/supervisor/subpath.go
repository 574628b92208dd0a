package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// bindSubPath binds a part of a volume to its place in the pod's directory. Whoever writes to the volume may change it
// meanwhile: the path is resolved once, must end inside the volume, and is then opened name by name without following
// any link. Kubernetes v1.36.3 pkg/volume/util/subpath/subpath_linux.go.
func bindSubPath(h podspec.HostPath) error {
	fail := func(err error) error {
		return fmt.Errorf("binding %s of the volume %s: %w", h.SubPath, h.Volume, err)
	}
	volume, err := filepath.EvalSymlinks(h.Volume)
	if err != nil {
		return fail(err)
	}
	names, err := resolveBelow(volume, h.SubPath)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeBelow(volume, h.SubPath); err == nil {
			names, err = resolveBelow(volume, h.SubPath)
		}
	}
	if err != nil {
		return fail(err)
	}
	fd, err := openBelow(volume, names)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if err := bindTo(fd, h.Path, h.Mode); err != nil {
		return fail(err)
	}
	return nil
}

// resolveBelow follows the links of a path below dir, and returns the names that lead to its end from dir. It is an
// error for it to end elsewhere.
func resolveBelow(dir, path string) ([]string, error) {
	end, err := filepath.EvalSymlinks(filepath.Join(dir, path))
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(dir, end)
	if err != nil {
		return nil, err
	}
	if !filepath.IsLocal(rel) {
		return nil, errors.New("it leads out of the volume")
	}
	if rel == "." {
		return nil, nil
	}
	return strings.Split(rel, "/"), nil
}

// openBelow opens the directory dir, then one name after the other, following no link. The descriptor stands for
// whatever is there, also a socket or a device, and cannot be read.
func openBelow(dir string, names []string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", dir, err)
	}
	for _, name := range names {
		next, err := openNext(fd, name)
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("opening %s: %w", name, err)
		}
		fd = next
	}
	return fd, nil
}

func openNext(dir int, name string) (int, error) {
	var stat unix.Stat_t
	_ = unix.Fstatat(dir, name+"/", &stat, unix.AT_SYMLINK_NOFOLLOW) // has the kernel mount what it mounts on demand
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Fstat(fd, &stat); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = unix.ELOOP // it was none when the path was resolved
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// makeBelow makes what is missing of a path below dir as directories with the mode of dir: who may write to the volume
// may write there.
func makeBelow(dir, path string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	var missing []string
	names, err := resolveBelow(dir, path)
	for ; errors.Is(err, fs.ErrNotExist) && path != "."; names, err = resolveBelow(dir, path) {
		missing = append(missing, filepath.Base(path))
		path = filepath.Dir(path)
	}
	if err != nil {
		return err
	}
	fd, err := openBelow(dir, names)
	if err != nil {
		return err
	}
	defer func() { unix.Close(fd) }()
	for _, name := range slices.Backward(missing) {
		next, err := makeNext(fd, name, info.Mode())
		if err != nil {
			return fmt.Errorf("making %s: %w", name, err)
		}
		unix.Close(fd)
		fd = next
	}
	return nil
}

// makeNext makes and opens a directory. One that somebody else made meanwhile is as good, a link is not.
func makeNext(dir int, name string, mode fs.FileMode) (int, error) {
	made := unix.Mkdirat(dir, name, 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return -1, made
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if made != nil {
		return fd, nil
	}
	bits := uint32(mode.Perm())
	for flag, bit := range map[fs.FileMode]uint32{fs.ModeSetgid: unix.S_ISGID, fs.ModeSetuid: unix.S_ISUID, fs.ModeSticky: unix.S_ISVTX} {
		if mode&flag != 0 {
			bits |= bit
		}
	}
	if err := unix.Fchmod(fd, bits); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// bindTo mounts what fd stands for on target, which becomes a directory or file as needed. What is mounted there
// already stays if it is the same; the container of an earlier attempt had it.
func bindTo(fd int, target string, mode fs.FileMode) error {
	var source, there unix.Stat_t
	if err := unix.Fstat(fd, &source); err != nil {
		return err
	}
	switch mounted, err := mountinfo.Mounted(target); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("looking for a mount on %s: %w", target, err)
	case mounted:
		if err := unix.Lstat(target, &there); err == nil && there.Dev == source.Dev && there.Ino == source.Ino {
			return nil
		}
		if err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %s: %w", target, err)
		}
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) { // an empty directory or file of ours
		return fmt.Errorf("removing %s: %w", target, err)
	}
	if source.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := makeDir(podspec.HostPath{Path: target, Mode: mode}); err != nil {
			return err
		}
	} else {
		if err := makeDir(podspec.HostPath{Path: filepath.Dir(target), Mode: mode}); err != nil {
			return err
		}
		if err := makeFile(podspec.HostPath{Path: target, Mode: mode &^ 0o111}); err != nil {
			return err
		}
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting on %s: %w", target, err)
	}
	return nil
}

// volumeImages are the images that the pod's volumes are of, as far as this worker knows them, by reference.
func (w *worker) volumeImages(pod *corev1.Pod) map[string]string {
	var out map[string]string
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range pod.Spec.Volumes {
		if v.Image == nil {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[v.Image.Reference] = w.images[v.Image.Reference].spec.ID
	}
	return out
}

// maxEnvFile bounds a file of variables: a container writes it.
const maxEnvFile = 1 << 20

// readVolumeFiles reads files of volumes. One that does not exist is left out. A link never leads out of its volume.
func readVolumeFiles(files []podspec.VolumeFile) (map[podspec.VolumeFile][]byte, error) {
	var out map[podspec.VolumeFile][]byte
	for _, f := range files {
		data, err := readVolumeFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s of the volume %s: %w", f.Path, f.Volume, err)
		}
		if out == nil {
			out = map[podspec.VolumeFile][]byte{}
		}
		out[f] = data
	}
	return out, nil
}

func readVolumeFile(f podspec.VolumeFile) ([]byte, error) {
	root, err := os.OpenRoot(f.Volume)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(f.Path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold the supervisor up
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("it is a %s", kindOf(info.Mode()))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxEnvFile+1))
	if err == nil && len(data) > maxEnvFile {
		err = fmt.Errorf("it has more than %d bytes", maxEnvFile)
	}
	return data, err
}
