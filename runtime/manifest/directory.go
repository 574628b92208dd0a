package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Directory is a source of manifests in one directory, or in one file.
type Directory struct {
	Path     string
	NodeName string
	// Every is how often the directory is listed whatever the kernel's notifications say; zero means the kubelet's
	// fileCheckFrequency, 20 s.
	Every time.Duration
}

// settleFor is how long a change must rest before the directory is read: an editor's write is several events within
// a millisecond or two. settleAtMost bounds it while events never stop. A new manifest that is renamed into place is
// read at once. A removed one counts after settleGone: install and git remove a file and make it anew in a tenth of that,
// which must not stop its pod.
const (
	settleFor    = 15 * time.Millisecond
	settleGone   = 3 * time.Millisecond
	settleAtMost = 200 * time.Millisecond
)

// Run lists the directory at once, then after each notification and every d.Every. It calls emit, one call at a time,
// with the first snapshot and with each that differs from the one before. It returns ctx's error when ctx ends.
func (d Directory) Run(ctx context.Context, emit func(Snapshot)) error {
	every := cmp.Or(d.Every, 20*time.Second)
	w, err := newWatch(d.Path)
	if err != nil { // other programs hold all the notifications that the kernel gives: look more often instead
		w, every = &watch{}, min(every, time.Second)
	}
	defer w.close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()

	var st state
	single := false // the path was a file when it was last there
	for first := true; ; first = false {
		w.follow() // before the listing: what changes afterwards is an event
		l := list(d.Path, single)
		if l.err == nil {
			single = l.single
		}
		next := assemble(st, l, d.Path, d.NodeName)
		if first || !next.snap.Equal(st.snap) {
			emit(next.snap)
		}
		st = next
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		case <-w.events():
			known := func(path string) bool { _, listed := st.claims[path]; return listed }
			if err := w.settle(ctx, known); err != nil {
				return err
			}
		}
	}
}

// list reads every manifest of a directory, or the one file that path is. A directory that is missing is more likely
// a mount that failed than an order to stop everything, so it is an error; but a file that was the whole source
// (single) and is gone from its directory is a manifest removed.
func list(path string, single bool) listing {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Dir(path)); single && err == nil {
			return listing{single: true}
		}
		return listing{err: fmt.Errorf("%s does not exist; its pods stay as they are until it is back (to stop a pod, remove its file only)", path)}
	}
	if err != nil {
		return listing{err: fmt.Errorf("looking at %q: %w", path, err)}
	}
	if info.Mode().IsRegular() {
		return listing{items: []item{read(path)}, single: true}
	}
	if !info.IsDir() {
		return listing{err: fmt.Errorf("%s is neither a directory nor a regular file", path)}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return listing{err: fmt.Errorf("listing %q: %w", path, err)}
	}
	var l listing
	for _, e := range entries {
		if !IsManifestName(e.Name()) {
			continue
		}
		if it := read(filepath.Join(path, e.Name())); !errors.Is(it.err, errSkip) {
			l.items = append(l.items, it)
		}
	}
	return l
}

// IsManifestName says whether a file of that name is read: .yaml, .yml and .json, and none of the names that editors
// and package managers give to their drafts and backups.
func IsManifestName(name string) bool {
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasPrefix(name, "~") {
		return false
	}
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

var errSkip = errors.New("not a file, or gone since it was listed")

// read reads one manifest, following symlinks. A symlink that leads nowhere is there, but unreadable.
func read(path string) item {
	it := item{source: path}
	info, err := os.Stat(path)
	if err != nil {
		if _, lerr := os.Lstat(path); errors.Is(lerr, fs.ErrNotExist) {
			err = errSkip
		}
		it.err = err
		return it
	}
	if info.IsDir() {
		it.err = errSkip // as the kubelet, no descent
		return it
	}
	if !info.Mode().IsRegular() {
		it.err = fmt.Errorf("%s is not a regular file", path) // opening a pipe would hang
		return it
	}
	f, err := os.Open(path)
	if err != nil {
		it.err = err
		return it
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		it.err = fmt.Errorf("reading %q: %w", path, err)
		return it
	}
	it.data = data
	return it
}
