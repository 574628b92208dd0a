package snapshot

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Note is what lies beside a snapshot, in a file of its name and ".json": what its listing shows and what the database
// itself does not tell.
type Note struct {
	Time              time.Time `json:"time"`
	Revision          int64     `json:"revision"`
	Keys              int       `json:"keys"`
	Size              int64     `json:"size"`
	SHA256            string    `json:"sha256"`
	Cluster           string    `json:"cluster,omitempty"`     // UID of the namespace kube-system
	EtcdCluster       string    `json:"etcdCluster,omitempty"` // etcd's own id, hex; a restored cluster gets another one
	EtcdVersion       string    `json:"etcdVersion,omitempty"`
	KubernetesVersion string    `json:"kubernetesVersion,omitempty"`
	Node              string    `json:"node,omitempty"` // on which it was taken
}

// NotePath returns where the note of the snapshot at path lies.
func NotePath(path string) string { return path + ".json" }

// Save has fetch write a snapshot, and puts it at path, mode 0600, once it is complete, verified and on disk: no other
// state of the file is ever at path. It replaces nothing.
func Save(path string, fetch func(io.Writer) error) (Info, error) {
	if _, err := os.Lstat(path); err == nil {
		return Info{}, fmt.Errorf("saving a snapshot: %s is there already; name another file", path)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".tmp-*") // 0600
	if err != nil {
		return Info{}, fmt.Errorf("saving a snapshot in %s: %w", dir, cause(err))
	}
	temporary := f.Name()
	info, err := fill(f, fetch)
	if err == nil {
		err = Place(temporary, path)
	}
	if err != nil {
		return Info{}, errors.Join(fmt.Errorf("saving snapshot %s: %w", path, err), dropped(temporary))
	}
	return info, nil
}

// Place moves a file that is finished to where it is looked for, in the same file system, and makes that durable. What
// has come there in the meantime stays, and is an error.
func Place(temporary, path string) error {
	err := unix.Renameat2(unix.AT_FDCWD, temporary, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system has it
		err = os.Rename(temporary, path)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; name another file", path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func dropped(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func fill(f *os.File, fetch func(io.Writer) error) (Info, error) {
	err := fetch(f)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return Info{}, err
	}
	return Read(f.Name())
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// WriteNote puts the note beside its snapshot, mode 0600.
func WriteNote(path string, n Note) error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the note of snapshot %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".json.tmp-*")
	if err != nil {
		return fmt.Errorf("writing the note of snapshot %s: %w", path, cause(err))
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), NotePath(path))
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the note of snapshot %s: %w", path, err), dropped(f.Name()))
	}
	return nil
}

// Saved is one snapshot of a directory. Problem says why it cannot be restored; "" where it is verified.
type Saved struct {
	Path    string `json:"path"`
	Problem string `json:"problem,omitempty"`
	Note
}

// List returns the snapshots in dir, oldest first, each verified against its own sum and its note. A directory that is
// not there has none.
func List(dir string) ([]Saved, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing snapshots in %s: %w", dir, cause(err))
	}
	saved := []Saved{}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".db") && !strings.HasPrefix(name, ".") {
			saved = append(saved, look(filepath.Join(dir, name)))
		}
	}
	slices.SortFunc(saved, func(a, b Saved) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Path, b.Path)) })
	return saved, nil
}

// look describes the snapshot at path as well as its note and its content allow.
func look(path string) Saved {
	s := Saved{Path: path}
	note, err := ReadNote(path)
	if err != nil {
		s.Problem = err.Error()
	}
	s.Note = note
	stat, err := os.Stat(path)
	if err == nil {
		s.Size = stat.Size()
		if s.Time.IsZero() {
			s.Time = stat.ModTime().UTC().Truncate(time.Second)
		}
	}
	info, err := Read(path)
	switch {
	case err != nil:
		s.Problem = err.Error()
		return s
	case note.SHA256 != "" && note.SHA256 != info.SHA256:
		s.Problem = fmt.Sprintf("snapshot %s is not the one that %s describes: its SHA-256 is %s", path, NotePath(path), info.SHA256)
	}
	s.Revision, s.Keys, s.SHA256, s.Cluster = info.Revision, info.Keys, info.SHA256, info.Cluster
	return s
}

// ReadNote returns the note of the snapshot at path; an empty one where there is none.
func ReadNote(path string) (Note, error) {
	data, err := os.ReadFile(NotePath(path))
	if errors.Is(err, fs.ErrNotExist) {
		return Note{}, nil
	}
	if err != nil {
		return Note{}, fmt.Errorf("reading %s: %w", NotePath(path), cause(err))
	}
	var n Note
	if err := json.Unmarshal(data, &n); err != nil {
		return Note{}, fmt.Errorf("reading %s: %w", NotePath(path), err)
	}
	return n, nil
}
