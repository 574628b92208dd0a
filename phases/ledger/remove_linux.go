package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// RemoveTree removes path, a directory or anything else, with all that is below it. It works on directory descriptors,
// so no symbolic link that someone puts there meanwhile leads it elsewhere. Mount points (those named in mounts, and
// any change of device) are neither entered nor removed; it returns them, and leaves the directories above them. What
// is not there is removed already.
func RemoveTree(path string, mounts []string) (kept []string, err error) {
	return remove(path, mounts, true)
}

// RemoveContents is RemoveTree for all that is in the directory path, which itself stays, mounted upon or not.
func RemoveContents(path string, mounts []string) (kept []string, err error) {
	return remove(path, mounts, false)
}

func remove(path string, mounts []string, itself bool) ([]string, error) {
	parent, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("removing %q: opening its directory: %w", path, err)
	}
	defer unix.Close(parent)
	r := remover{mounts: mounts}
	if itself {
		var above unix.Stat_t
		if err := unix.Fstat(parent, &above); err != nil {
			return nil, fmt.Errorf("removing %q: %w", path, err)
		}
		err = r.entry(parent, above.Dev, filepath.Base(path), path)
	} else {
		err = r.contents(parent, filepath.Base(path), path)
	}
	return r.kept, err
}

type remover struct {
	mounts []string
	kept   []string
}

// entry removes the name in the directory parent, which lies on device dev.
func (r *remover) entry(parent int, dev uint64, name, path string) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %q: %w", path, err)
	}
	if st.Dev != dev || slices.Contains(r.mounts, path) {
		r.kept = append(r.kept, path)
		return nil
	}
	flags := 0
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
		before := len(r.kept)
		if err := r.contents(parent, name, path); err != nil || len(r.kept) > before {
			return err
		}
	}
	if err := unix.Unlinkat(parent, name, flags); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing %q: %w", path, err)
	}
	return nil
}

// contents removes what is in the directory. One failure does not keep the rest.
func (r *remover) contents(parent int, name, path string) error {
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing what is in %q: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("removing what is in %q: %w", path, err)
	}
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("listing %q: %w", path, reason(err))
	}
	slices.Sort(names)
	var errs []error
	for _, n := range names {
		errs = append(errs, r.entry(fd, st.Dev, n, filepath.Join(path, n)))
	}
	return errors.Join(errs...)
}

// RemoveEmpty removes the directory path and the directories below it, deepest first, where no directory is in them
// and the kernel lets them go: a cgroup's files do not count, its processes do. It returns what had to stay.
func RemoveEmpty(path string) (stayed []string, err error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", path, reason(err))
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		below, err := RemoveEmpty(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, err
		}
		stayed = append(stayed, below...)
	}
	switch err := unix.Rmdir(path); {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil, nil
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ENOTEMPTY):
		return append(stayed, path), nil
	default:
		return nil, fmt.Errorf("removing %q: %w", path, err)
	}
}

// Discard removes the ledger and then the lock at these paths below root, wherever they are still there.
func Discard(root, path, lock string) error {
	for _, p := range []string{path, lock} {
		if p == "" {
			continue
		}
		real := filepath.Join(root, p)
		if err := os.Remove(real); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing %q: %w", real, reason(err))
		}
	}
	return nil
}
