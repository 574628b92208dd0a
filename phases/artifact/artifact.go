// Package artifact holds what a run would leave on disk as data.
package artifact

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
)

// File is one file or directory. Data is owned by the File: callers do not change it afterwards.
type File struct {
	Path   string      // absolute, as the host sees it, whatever root the store writes below
	Data   []byte      // nil for a directory
	Mode   fs.FileMode // permission bits, with fs.ModeDir for a directory
	Secret bool        // contents are never printed, only their size and SHA-256
	// Tree says of a directory that whatever appears below it later, by anyone's hand, goes with it: etcd's data
	// directory, for one. The ledger keeps it; on disk it means nothing.
	Tree bool
}

// Op is what a Change does to a path.
type Op int

const (
	Unchanged Op = iota
	Create
	Update // contents differ; the mode may too
	Chmod  // only the mode differs
	Remove
)

// String returns the verb that messages and JSON output use.
func (o Op) String() string {
	switch o {
	case Unchanged:
		return "unchanged"
	case Create:
		return "create"
	case Update:
		return "update"
	case Chmod:
		return "chmod"
	case Remove:
		return "remove"
	}
	return fmt.Sprintf("op %d", int(o))
}

// Change is one difference between what is on disk and what is wanted.
type Change struct {
	Op     Op
	Before *File // nil for Create
	After  *File // nil for Remove
}

// File returns what is there after the change or, for a removal, what was there before it.
func (c Change) File() File {
	if c.After != nil {
		return *c.After
	}
	return *c.Before
}

// String returns one line without contents, such as "update /etc/kubernetes/admin.conf (mode 0644 → 0600)".
func (c Change) String() string {
	f := c.File()
	what := c.Op.String()
	if f.Mode.IsDir() {
		what += " directory"
	}
	switch {
	case c.Op == Create:
		return fmt.Sprintf("%s %s (mode %04o)", what, f.Path, f.Mode.Perm())
	case c.Before != nil && c.After != nil && c.Before.Mode.Perm() != c.After.Mode.Perm():
		return fmt.Sprintf("%s %s (mode %04o → %04o)", what, f.Path, c.Before.Mode.Perm(), c.After.Mode.Perm())
	}
	return what + " " + f.Path
}

// Compare returns the change that leads from before to after, either of which may be nil for "nothing there". The
// second result is false if both are.
func Compare(before, after *File) (Change, bool) {
	c := Change{Before: before, After: after}
	switch {
	case before == nil && after == nil:
		return Change{}, false
	case before == nil:
		c.Op = Create
	case after == nil:
		c.Op = Remove
	case !after.Mode.IsDir() && !bytes.Equal(before.Data, after.Data):
		c.Op = Update
	case before.Mode.Perm() != after.Mode.Perm():
		c.Op = Chmod
	}
	return c, true
}

// Store is a tree of files. ReadFile and Remove return an error that is fs.ErrNotExist where nothing is there.
// ReadFile of a directory returns it without Data. Put makes missing parent directories with mode 0755. Remove takes
// a file or an empty directory.
type Store interface {
	ReadFile(path string) (File, error)
	Put(File) error
	Remove(path string) error
}

// Flush lets go of the writes that a store held back, for real or for show, and returns them. Overlay's Commit and
// Preview are the two values of it.
type Flush func(ctx context.Context) ([]Change, error)
