package artifact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"sync"
)

// Overlay is a Store that keeps its writes in memory, above a base that it only reads, until Commit hands them down.
// Reads see its own writes. It is safe for concurrent use.
//
// A run flushes after each phase, either always with Commit or always with Preview; the two return the same changes.
// What Preview has shown stays readable for the phases that follow, and a Commit after it writes it all.
type Overlay struct {
	base Store

	mu        sync.Mutex
	pending   map[string]*File // since the last flush; nil: removed
	previewed map[string]*File // shown by Preview, still not in base; nil: removed
	order     map[string]int   // when a path was first written, counted from 0: a run that is cut short leaves a prefix
}

// NewOverlay returns an empty Overlay above base.
func NewOverlay(base Store) *Overlay {
	return &Overlay{base: base, pending: map[string]*File{}, previewed: map[string]*File{}, order: map[string]int{}}
}

// ReadFile returns the file as it would be after a Commit.
func (o *Overlay) ReadFile(path string) (File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := o.read(path)
	if err != nil {
		return File{}, err
	}
	if f == nil {
		return File{}, fmt.Errorf("reading %q: %w", path, fs.ErrNotExist)
	}
	return *f, nil
}

// Put holds f back until the next flush, with the directories that are missing above it. It fails at once where a
// file and a directory are in each other's way.
func (o *Overlay) Put(f File) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !filepath.IsAbs(f.Path) || filepath.Clean(f.Path) != f.Path {
		return fmt.Errorf("path %q: neither relative nor unclean paths are taken", f.Path)
	}
	old, err := o.read(f.Path)
	if err != nil {
		return err
	}
	if old != nil && old.Mode.IsDir() != f.Mode.IsDir() {
		return fmt.Errorf("writing %q: a directory and a file are in each other's way: move away what is there", f.Path)
	}
	var missing []string
	for dir := filepath.Dir(f.Path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		parent, err := o.read(dir)
		if err != nil {
			return err
		}
		if parent != nil && !parent.Mode.IsDir() {
			return fmt.Errorf("making directory %q for %q: a file is in the way: move it away", dir, f.Path)
		}
		if parent != nil {
			break
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		o.hold(dir, &File{Path: dir, Mode: fs.ModeDir | 0o755})
	}
	o.hold(f.Path, &f)
	return nil
}

func (o *Overlay) hold(path string, f *File) {
	if _, ok := o.order[path]; !ok {
		o.order[path] = len(o.order)
	}
	o.pending[path] = f
}

// Remove holds the removal back until the next flush. That a directory is empty is checked only by Commit.
func (o *Overlay) Remove(path string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	old, err := o.read(path)
	if err != nil {
		return err
	}
	if old == nil {
		return fmt.Errorf("removing %q: %w", path, fs.ErrNotExist)
	}
	o.hold(path, nil)
	return nil
}

// Preview returns what Commit would return now, and keeps it readable. The next Preview returns only what came since.
func (o *Overlay) Preview(ctx context.Context) ([]Change, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	changes, err := o.plan(o.pending, o.readShown)
	if err != nil {
		return nil, err
	}
	maps.Copy(o.previewed, o.pending)
	clear(o.pending)
	return changes, nil
}

// Commit writes what is held back to the base and returns the changes: first what is put, in the order of
// the first Put of each and parents first, then what is removed, children first. A file that was put and is right already is returned
// as Unchanged. On an error, which includes the end of ctx, it returns what was done; the rest is still held back.
func (o *Overlay) Commit(ctx context.Context) ([]Change, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := maps.Clone(o.previewed)
	maps.Copy(all, o.pending)
	changes, err := o.plan(all, o.readBase)
	if err != nil {
		return nil, err
	}
	for i, c := range changes {
		if err := ctx.Err(); err != nil {
			return changes[:i], err
		}
		if err := apply(o.base, c); err != nil {
			return changes[:i], err
		}
		path := c.File().Path
		delete(o.pending, path)
		delete(o.previewed, path)
	}
	clear(o.pending) // what is left was made and removed again in between
	clear(o.previewed)
	return changes, nil
}

func apply(base Store, c Change) error {
	switch c.Op {
	case Unchanged:
		return nil
	case Remove:
		return base.Remove(c.Before.Path)
	}
	return base.Put(*c.After)
}

// plan returns the changes from what before tells to what is wanted, in the order in which they can be made.
func (o *Overlay) plan(wanted map[string]*File, before func(string) (*File, error)) ([]Change, error) {
	var puts, removes []Change
	paths := slices.Collect(maps.Keys(wanted))
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(o.order[a], o.order[b]) })
	for _, path := range paths {
		old, err := before(path)
		if err != nil {
			return nil, err
		}
		after := wanted[path]
		if old != nil && after != nil {
			old.Secret = after.Secret
		}
		if old != nil && after == nil && old.Mode.Perm()&0o077 == 0 {
			old.Secret = true // nobody tells us any more; what only its owner may read is not shown
		}
		c, ok := Compare(old, after)
		switch {
		case !ok:
		case c.Op == Remove:
			removes = append(removes, c)
		default:
			puts = append(puts, c)
		}
	}
	slices.SortFunc(removes, func(a, b Change) int { return cmp.Compare(b.Before.Path, a.Before.Path) })
	return append(puts, removes...), nil
}

func (o *Overlay) read(path string) (*File, error) {
	if f, ok := o.pending[path]; ok {
		return f, nil
	}
	return o.readShown(path)
}

func (o *Overlay) readShown(path string) (*File, error) {
	if f, ok := o.previewed[path]; ok {
		return clone(f), nil
	}
	return o.readBase(path)
}

func (o *Overlay) readBase(path string) (*File, error) {
	f, err := o.base.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &f, nil
}

func clone(f *File) *File {
	if f == nil {
		return nil
	}
	c := *f
	return &c
}
