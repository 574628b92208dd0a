package manifest

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watch turns the kernel's notifications into hints that a listing is due. It holds on to a path, not to an inode: a
// directory that is moved away, replaced or made later is found again. The zero value never hints.
type watch struct {
	path  string
	w     *fsnotify.Watcher
	dirs  map[string]os.FileInfo // what is watched, as it was when the watch was set
	hints chan struct{}
	done  chan struct{}

	mu      sync.Mutex
	renamed bool     // the last event was the first half of a rename
	moved   []string // manifests that were renamed into place, whole, since the last listing
	gone    bool     // manifests were removed
	torn    bool     // something else happened that may not be over yet
}

func newWatch(path string) (*watch, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	v := &watch{path: filepath.Clean(path), w: w, dirs: map[string]os.FileInfo{}, hints: make(chan struct{}, 1), done: make(chan struct{})}
	go v.collect()
	return v, nil
}

func (v *watch) close() {
	if v.w == nil {
		return
	}
	v.w.Close()
	<-v.done
}

func (v *watch) events() <-chan struct{} { return v.hints }

// collect ends when close closes the watcher.
func (v *watch) collect() {
	defer close(v.done)
	events, errs := v.w.Events, v.w.Errors
	for events != nil || errs != nil {
		select {
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if !v.take(e) {
				continue
			}
		case _, ok := <-errs: // an overflow: something changed
			if !ok {
				errs = nil
				continue
			}
			v.take(fsnotify.Event{Name: v.path, Op: fsnotify.Write})
		}
		select {
		case v.hints <- struct{}{}:
		default:
		}
	}
}

// take remembers what an event says about the listing to come, and tells whether one is due. The drafts from which
// manifests are renamed into place say nothing: the second half of the rename follows.
func (v *watch) take(e fsnotify.Event) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	whole := v.renamed && e.Op == fsnotify.Create
	v.renamed = e.Op == fsnotify.Rename
	if e.Op == fsnotify.Chmod || !v.concerns(e.Name) {
		return false // a file made readable again is found by the next listing
	}
	dir, base := filepath.Split(e.Name)
	here := filepath.Clean(dir) == v.path
	switch {
	case here && whole && IsManifestName(base):
		v.moved = append(v.moved, e.Name)
	case here && e.Op == fsnotify.Remove && IsManifestName(base):
		v.gone = true
	case here && !IsManifestName(base) && !strings.HasPrefix(base, ".."): // a draft
	default:
		v.torn = true
	}
	return true
}

// whole tells whether all that has happened is that new manifests were renamed into place: there is nothing to wait for.
// A known one may be in the middle of a burst of edits.
func (v *watch) whole(known func(path string) bool) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.moved) > 0 && !v.torn && !v.gone && !slices.ContainsFunc(v.moved, known)
}

// concerns tells news about the path from the noise of a busy parent directory, such as /tmp.
func (v *watch) concerns(name string) bool {
	if below(v.path, name) || below(name, v.path) {
		return true
	}
	return !below(v.path, filepath.Dir(name)) || IsManifestName(filepath.Base(name)) // where symlinks lead
}

// below says that path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// rest is how long what was noted must rest: not at all for new manifests that are whole.
func (v *watch) rest(known func(path string) bool) time.Duration {
	if v.whole(known) {
		return 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone && !v.torn && len(v.moved) == 0 {
		return settleGone
	}
	return settleFor
}

// settle waits until no hint has come for as long as what was noted must rest, at most settleAtMost. known tells whether a
// path was in the last listing.
func (v *watch) settle(ctx context.Context, known func(path string) bool) error {
	quiet, limit := time.NewTimer(v.rest(known)), time.NewTimer(settleAtMost)
	defer quiet.Stop()
	defer limit.Stop()
	defer v.forget()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.hints:
			quiet.Reset(v.rest(known))
		case <-quiet.C:
			return nil
		case <-limit.C:
			return nil
		}
	}
}

// forget begins a new round: a listing follows, which sees all that was noted.
func (v *watch) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moved, v.gone, v.torn = nil, false, false
}

// follow sets the watches anew: the path and its parent (or, while they are missing, the nearest directory that is
// there), and the directories into which symlinks lead. What cannot be watched is left to the periodic listing.
func (v *watch) follow() {
	if v.w == nil {
		return
	}
	want := map[string]bool{}
	for dir := v.path; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			want[dir] = true
			break
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	want[nearest(filepath.Dir(v.path))] = true
	links := []string{v.path}
	if entries, err := os.ReadDir(v.path); err == nil {
		for _, e := range entries {
			if e.Type()&os.ModeSymlink != 0 && IsManifestName(e.Name()) {
				links = append(links, filepath.Join(v.path, e.Name()))
			}
		}
	}
	for _, l := range links {
		if target, err := filepath.EvalSymlinks(l); err == nil && target != l {
			want[filepath.Dir(target)] = true
		}
	}
	for _, dir := range slices.Collect(maps.Keys(v.dirs)) {
		now, err := os.Stat(dir)
		if !want[dir] || err != nil || !os.SameFile(now, v.dirs[dir]) {
			_ = v.w.Remove(dir) // already gone with its inode, or no longer wanted
			delete(v.dirs, dir)
		}
	}
	for dir := range want {
		if _, ok := v.dirs[dir]; ok {
			continue
		}
		info, err := os.Stat(dir)
		if err != nil || v.w.Add(dir) != nil {
			continue
		}
		v.dirs[dir] = info
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
