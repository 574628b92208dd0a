package artifact

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Disk is the Store of real files below Root; an empty Root is the host itself. A file is either its old or its new
// self, whenever power goes: Put writes a temporary sibling (TempName), syncs it, renames it over the old file and
// syncs the directory. Put writes nothing where contents and mode are right already.
//
// The mode is exactly File.Mode, whatever the umask; the owner of a file that exists is kept. A symbolic link at the
// final path is written through: the link stays, what it points to is replaced. It must point to something, and not
// out of Root.
type Disk struct {
	Root string

	write func(*os.File, []byte) error // nil: the file's own Write. Tests fill the disk with it
}

// TempName returns the name under which Put prepares the file name, in the same directory. It starts with a dot so
// that readers of a manifest directory pass over it, and it is always the same so that whoever cleans up after a
// crash can tell it from a stranger's file.
func TempName(name string) string { return "." + name + ".slipway-tmp" }

// ReadFile returns the file or directory at path. Symbolic links are followed.
func (d Disk) ReadFile(path string) (File, error) {
	real, err := d.locate(path)
	if err != nil {
		return File{}, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return File{}, fmt.Errorf("reading %q: %w", real, reason(err))
	}
	switch {
	case info.IsDir():
		return File{Path: path, Mode: fs.ModeDir | info.Mode().Perm()}, nil
	case !info.Mode().IsRegular():
		return File{}, fmt.Errorf("reading %q: it is a %s, not a file", real, info.Mode().Type())
	}
	data, err := os.ReadFile(real)
	if err != nil {
		return File{}, fmt.Errorf("reading %q: %w", real, reason(err))
	}
	return File{Path: path, Data: data, Mode: info.Mode().Perm()}, nil
}

// ReadDir returns the sorted names in a directory.
func (d Disk) ReadDir(path string) ([]string, error) {
	real, err := d.locate(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return nil, fmt.Errorf("reading directory %q: %w", real, reason(err))
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Put makes the path what f says. It is durable when Put returns; on an error the old file is intact and no temporary
// file is left.
func (d Disk) Put(f File) error {
	real, err := d.locate(f.Path)
	if err != nil {
		return err
	}
	real, old, err := follow(real)
	if err != nil {
		return err
	}
	switch {
	case old == nil:
	case f.Mode.IsDir() && !old.IsDir():
		return fmt.Errorf("making directory %q: a file is in the way: move it away", real)
	case !f.Mode.IsDir() && !old.Mode().IsRegular():
		return fmt.Errorf("writing %q: a %s is in the way: move it away", real, kindOf(old))
	}
	if f.Mode.IsDir() {
		return putDir(real, f.Mode.Perm(), old)
	}
	return d.putFile(real, f, old)
}

// Remove removes a file, a symbolic link (never what it points to) or an empty directory.
func (d Disk) Remove(path string) error {
	real, err := d.locate(path)
	if err != nil {
		return err
	}
	if err := os.Remove(real); err != nil {
		return fmt.Errorf("removing %q: %w", real, reason(err))
	}
	return syncDir(filepath.Dir(real))
}

// locate returns where path lies on this machine. Below a Root it refuses paths that a symbolic link leads out of it:
// what is rendered into a tree must not change the host.
func (d Disk) locate(path string) (string, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return "", fmt.Errorf("path %q: neither relative nor unclean paths are taken", path)
	}
	if d.Root == "" || d.Root == "/" {
		return path, nil
	}
	real := filepath.Join(d.Root, path)
	root, err := filepath.EvalSymlinks(d.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return real, nil
	}
	if err != nil {
		return "", fmt.Errorf("resolving root %q: %w", d.Root, reason(err))
	}
	for p := real; ; p = filepath.Dir(p) {
		resolved, err := filepath.EvalSymlinks(p)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			continue // ends at the root, which exists
		}
		if err != nil {
			return "", fmt.Errorf("resolving %q: %w", real, reason(err))
		}
		if resolved != root && !strings.HasPrefix(resolved, strings.TrimSuffix(root, "/")+"/") {
			return "", fmt.Errorf("path %q: a symbolic link leads from %q to %q, out of root %q", path, p, resolved, d.Root)
		}
		return real, nil
	}
}

// follow returns what is at real: nil where there is nothing, and the target's path for a symbolic link.
func follow(real string) (string, fs.FileInfo, error) {
	info, err := os.Lstat(real)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		target, linkErr := filepath.EvalSymlinks(real)
		if linkErr != nil {
			return "", nil, fmt.Errorf("writing %q: it is a symbolic link to nowhere: remove it, or make its target: %w", real, reason(linkErr))
		}
		real = target
		info, err = os.Stat(real)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return real, nil, nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("looking at %q: %w", real, reason(err))
	}
	return real, info, nil
}

func putDir(real string, mode fs.FileMode, old fs.FileInfo) error {
	if old != nil {
		if old.Mode().Perm() == mode {
			return nil
		}
		return chmod(real, mode)
	}
	if err := makeParents(real); err != nil {
		return err
	}
	return makeDir(real, mode)
}

func (d Disk) putFile(real string, f File, old fs.FileInfo) error {
	if old != nil {
		data, err := os.ReadFile(real)
		if err != nil {
			return fmt.Errorf("reading %q: %w", real, reason(err))
		}
		if bytes.Equal(data, f.Data) {
			if old.Mode().Perm() == f.Mode.Perm() {
				return nil
			}
			return chmod(real, f.Mode.Perm())
		}
	}
	if err := makeParents(real); err != nil {
		return err
	}
	if err := d.replace(real, f, old); err != nil {
		err = fmt.Errorf("writing %q: %w", real, reason(err))
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: free at least %d bytes there, then run the same command again", err, len(f.Data))
		}
		return err
	}
	return nil
}

func (d Disk) replace(real string, f File, old fs.FileInfo) (err error) {
	temp := filepath.Join(filepath.Dir(real), TempName(filepath.Base(real)))
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return err
	}
	w, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	if err := d.fill(w, f, old); err != nil {
		_ = w.Close()
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp, real); err != nil {
		return err
	}
	return syncDir(filepath.Dir(real))
}

func (d Disk) fill(w *os.File, f File, old fs.FileInfo) error {
	write := d.write
	if write == nil {
		write = func(w *os.File, data []byte) error { _, err := w.Write(data); return err }
	}
	if err := write(w, f.Data); err != nil {
		return err
	}
	if old != nil {
		if st, ok := old.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid()) {
			if err := w.Chown(int(st.Uid), int(st.Gid)); err != nil {
				return fmt.Errorf("keeping owner %d:%d: %w", st.Uid, st.Gid, err)
			}
		}
	}
	if err := w.Chmod(f.Mode.Perm()); err != nil {
		return err
	}
	return w.Sync()
}

func makeParents(real string) error {
	dir := filepath.Dir(real)
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("making directory %q: a file is in the way: move it away", dir)
		}
		return nil
	}
	if dir == filepath.Dir(dir) {
		return nil
	}
	if err := makeParents(dir); err != nil {
		return err
	}
	return makeDir(dir, 0o755)
}

func makeDir(real string, mode fs.FileMode) error {
	if err := os.Mkdir(real, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making directory %q: %w", real, reason(err))
	}
	if err := os.Chmod(real, mode); err != nil {
		return fmt.Errorf("making directory %q: %w", real, reason(err))
	}
	return syncDir(filepath.Dir(real))
}

func chmod(real string, mode fs.FileMode) error {
	if err := os.Chmod(real, mode); err != nil {
		return fmt.Errorf("setting mode %04o of %q: %w", mode, real, reason(err))
	}
	return syncDir(filepath.Dir(real))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing directory %q: %w", dir, reason(err))
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // some file systems cannot sync a directory
		return fmt.Errorf("syncing directory %q: %w", dir, reason(err))
	}
	return nil
}

// reason strips the operation and path that os puts before the cause; our messages have named them.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	var link *os.LinkError
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

func kindOf(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "directory"
	case info.Mode()&fs.ModeSocket != 0:
		return "socket"
	case info.Mode()&fs.ModeNamedPipe != 0:
		return "pipe"
	}
	return "device"
}
