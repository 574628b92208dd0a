package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// Record is what an apply has to know to be continued, or taken back, when it is interrupted. It is on disk before the
// first effect, and gone after the last. It holds files as they were, secrets among them: only its owner may read it.
type Record struct {
	Began  time.Time `json:"began"`
	Node   string    `json:"node"`
	Files  []Was     `json:"files"`            // in the order in which they are written
	Ready  []string  `json:"ready"`            // components that were ready before
	Begun  []string  `json:"begun,omitempty"`  // components that were changed or restarted, or are about to be
	Reason string    `json:"reason,omitempty"` // why it is taken back; "" while it goes forward
}

// Was is a file or directory before an apply.
type Was struct {
	Path   string      `json:"path"`
	Absent bool        `json:"absent,omitempty"`
	Data   []byte      `json:"data,omitempty"`
	Mode   fs.FileMode `json:"mode,omitempty"`
	Secret bool        `json:"secret,omitempty"`
}

// before returns the file as it was; nil for none.
func (w Was) before() *artifact.File {
	if w.Absent {
		return nil
	}
	f := artifact.File{Path: w.Path, Data: w.Data, Mode: w.Mode, Secret: w.Secret}
	if f.Data == nil && !f.Mode.IsDir() {
		f.Data = []byte{} // an empty file
	}
	return &f
}

// LoadRecord returns the record of an apply that was interrupted; nil for none.
func LoadRecord(files artifact.Store, path string) (*Record, error) {
	f, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r Record
	if err := json.Unmarshal(f.Data, &r); err != nil {
		return nil, fmt.Errorf("reading the record of an interrupted apply, %q: %w; remove it if you know that no apply is to be taken back", path, err)
	}
	return &r, nil
}

// save makes the record durable.
func (r *Record) save(files artifact.Store, path string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding the record of this apply: %w", err)
	}
	return files.Put(artifact.File{Path: path, Data: append(data, '\n'), Mode: 0o600, Secret: true})
}

// add takes in what is not there yet: of a file that an earlier run has changed, only that run knows how it was.
func (r *Record) add(changes []artifact.Change) {
	for _, c := range changes {
		path := c.File().Path
		if c.Op == artifact.Unchanged || slices.ContainsFunc(r.Files, func(w Was) bool { return w.Path == path }) {
			continue
		}
		w := Was{Path: path, Absent: c.Before == nil, Secret: c.File().Secret}
		if c.Before != nil {
			w.Data, w.Mode = c.Before.Data, c.Before.Mode
		}
		r.Files = append(r.Files, w)
	}
}

// Since returns the changes against what was before the apply of the record, where changes are those against what is on
// disk now: what an earlier run has done already is among them, and what it did and is not wanted any more is not.
// after reads files as they are to be.
func (r *Record) Since(changes []artifact.Change, after func(path string) (artifact.File, error)) ([]artifact.Change, error) {
	if r == nil {
		return changes, nil
	}
	var out []artifact.Change
	for _, w := range r.Files {
		var is *artifact.File
		f, err := after(w.Path)
		switch {
		case err == nil:
			f.Secret = f.Secret || w.Secret
			is = &f
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		c, ok := artifact.Compare(w.before(), is)
		if i := indexOf(changes, w.Path); ok && c.Op == artifact.Unchanged && i >= 0 {
			c = changes[i] // the earlier run has changed it, and it is to be as it was
		}
		if ok {
			out = append(out, c)
		}
	}
	for _, c := range changes {
		if !slices.ContainsFunc(r.Files, func(w Was) bool { return w.Path == c.File().Path }) {
			out = append(out, c)
		}
	}
	return out, nil
}

func indexOf(changes []artifact.Change, path string) int {
	return slices.IndexFunc(changes, func(c artifact.Change) bool { return c.File().Path == path })
}

// back returns the changes that put everything back, in the order in which they are to be made: what was made goes
// first, the innermost before what holds it.
func (r *Record) back(files artifact.Store) ([]artifact.Change, error) {
	var puts, removes []artifact.Change
	for _, w := range r.Files {
		var is *artifact.File
		f, err := files.ReadFile(w.Path)
		switch {
		case err == nil:
			is = &f
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
		c, ok := artifact.Compare(is, w.before())
		switch {
		case !ok || c.Op == artifact.Unchanged:
		case c.Op == artifact.Remove:
			removes = append(removes, c)
		default:
			puts = append(puts, c)
		}
	}
	slices.Reverse(removes)
	return append(puts, removes...), nil
}
