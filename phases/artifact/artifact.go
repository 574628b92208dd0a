// Package artifact holds what a run would leave on disk as data, and the stores that read and write it.
package artifact

import (
	"context"
	"io/fs"
)

// File is one file or directory. Data is owned by the File: callers do not change it afterwards.
type File struct {
	Path   string      // absolute, as the host sees it, whatever root the store writes below
	Data   []byte      // nil for a directory
	Mode   fs.FileMode // permission bits, with fs.ModeDir for a directory
	Secret bool        // contents are never printed, only their size and SHA-256
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

// Change is one difference between what is on disk and what is wanted.
type Change struct {
	Op     Op
	Before *File // nil for Create
	After  *File // nil for Remove
}

// Store is a tree of files. ReadFile and Remove return an error that is fs.ErrNotExist where nothing is there.
// Put makes missing parent directories with mode 0755.
type Store interface {
	ReadFile(path string) (File, error)
	Put(File) error
	Remove(path string) error
}

// Flusher is a store that holds writes back until it is told to let them go.
type Flusher interface {
	Flush(ctx context.Context) ([]Change, error)
}
