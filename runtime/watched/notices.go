package watched

import (
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// notices are the kernel's news of directories. The zero value has none: then the periodic check finds what changes.
type notices struct {
	w    *fsnotify.Watcher
	dirs map[string]os.FileInfo // what is watched, as it was when the watch was set
}

func newNotices() (notices, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return notices{}, err
	}
	return notices{w: w, dirs: map[string]os.FileInfo{}}, nil
}

func (n *notices) close() {
	if n.w != nil {
		n.w.Close()
	}
}

func (n *notices) events() <-chan fsnotify.Event {
	if n.w == nil {
		return nil
	}
	return n.w.Events
}

func (n *notices) errors() <-chan error {
	if n.w == nil {
		return nil
	}
	return n.w.Errors
}

// follow makes the watched directories those of want. One that was replaced is watched anew.
func (n *notices) follow(want map[string]bool) {
	if n.w == nil {
		return
	}
	for dir, was := range n.dirs {
		now, err := os.Stat(dir)
		if !want[dir] || err != nil || !os.SameFile(now, was) {
			_ = n.w.Remove(dir) // already gone with its inode, or no longer wanted
			delete(n.dirs, dir)
		}
	}
	for dir := range want {
		if _, watched := n.dirs[dir]; watched {
			continue
		}
		info, err := os.Stat(dir)
		if err != nil || n.w.Add(dir) != nil {
			continue // left to the periodic check
		}
		n.dirs[dir] = info
	}
}

// directories returns those in which a change of the paths shows: their parents (or, while they are missing, the nearest
// directory that is there), the directories among them, and where symbolic links lead.
func directories(paths []string) map[string]bool {
	dirs := map[string]bool{}
	for _, p := range paths {
		dirs[nearest(filepath.Dir(p))] = true
		follow(p, dirs)
		info, err := os.Stat(p)
		if err != nil || !info.IsDir() {
			continue
		}
		dirs[p] = true
		names, err := namesIn(p)
		if err != nil {
			continue
		}
		for _, name := range names {
			follow(filepath.Join(p, name), dirs)
		}
	}
	return dirs
}

// follow adds the directory of what a symbolic link leads to.
func follow(path string, dirs map[string]bool) {
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSymlink == 0 {
		return
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		dirs[filepath.Dir(target)] = true
	}
}

func nearest(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
