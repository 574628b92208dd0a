package ledger

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// Recorded returns store with every effect recorded in l before it happens: what it makes as made by us, what was
// there with its former contents. A directory with File.Tree set that was there and is empty, where the store can tell
// (it has ReadDir), is recorded as Contents.
func Recorded(store artifact.Store, l *Ledger) artifact.Store {
	return recorded{store: store, ledger: l}
}

type recorded struct {
	store  artifact.Store
	ledger *Ledger
}

func (r recorded) ReadFile(path string) (artifact.File, error) { return r.store.ReadFile(path) }

func (r recorded) Put(f artifact.File) error {
	if err := r.makeParents(f.Path); err != nil {
		return err
	}
	old, err := r.store.ReadFile(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = r.record(f.Path, Entry{Kind: kindOf(f), Path: f.Path})
	case err != nil:
		return err
	default:
		err = r.recordChange(&old, f)
	}
	if err != nil {
		return err
	}
	return r.store.Put(f)
}

func (r recorded) Remove(path string) error {
	old, err := r.store.ReadFile(path)
	if err != nil {
		return err
	}
	if err := r.record(path, saved(old)); err != nil {
		return err
	}
	return r.store.Remove(path)
}

func (r recorded) recordChange(old *artifact.File, f artifact.File) error {
	if f.Tree && !r.ledger.Owns(f.Path) && r.empty(f.Path) {
		if err := r.ledger.Record(Entry{Kind: Contents, Path: f.Path}); err != nil {
			return err
		}
	}
	if c, _ := artifact.Compare(old, &f); c.Op == artifact.Unchanged {
		return nil
	}
	return r.record(f.Path, saved(*old))
}

// record writes the entry unless reset would take care of the path already.
func (r recorded) record(path string, e Entry) error {
	if r.ledger.Owns(path) || r.ledger.has(path, Saved) {
		return nil
	}
	return r.ledger.Record(e)
}

func (r recorded) makeParents(path string) error {
	var missing []string
	for dir := filepath.Dir(path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		_, err := r.store.ReadFile(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		if err := r.record(dir, Entry{Kind: Dir, Path: dir}); err != nil {
			return err
		}
		if err := r.store.Put(artifact.File{Path: dir, Mode: fs.ModeDir | 0o755}); err != nil {
			return err
		}
	}
	return nil
}

func (r recorded) empty(path string) bool {
	lister, ok := r.store.(interface {
		ReadDir(string) ([]string, error)
	})
	if !ok {
		return false
	}
	names, err := lister.ReadDir(path)
	return err == nil && len(names) == 0
}

func kindOf(f artifact.File) Kind {
	switch {
	case f.Tree:
		return Tree
	case f.Mode.IsDir():
		return Dir
	}
	return File
}

func saved(f artifact.File) Entry {
	return Entry{Kind: Saved, Path: f.Path, Data: f.Data, Mode: f.Mode}
}
