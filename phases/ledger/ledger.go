// Package ledger keeps the durable record of what init makes on a machine, so that reset can undo exactly that.
package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Ledger is an append-only file of Entries, one JSON object per line. Every entry is on disk before its effect
// happens, so after a crash the file names at least what was done. It is safe for concurrent use by one process;
// Lock keeps others out.
type Ledger struct {
	root, path string // as given to Open

	mu      sync.Mutex
	file    *os.File
	size    int64
	entries []Entry
	known   map[string]bool // by Entry.key
}

// Open opens the ledger at path below root ("" for the host), or starts it. A new ledger begins with the directories
// made for it. A state directory that was there already counts as slipway's own if it holds nothing but slipway's lock:
// then it is what a run left that was killed before it could write its first line.
func Open(root, path string) (*Ledger, error) {
	real := filepath.Join(root, path)
	missing, err := missingDirs(root, filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
		return nil, fmt.Errorf("making the directory of ledger %q: %w", real, reason(err))
	}
	if len(missing) == 0 && ownState(real) {
		missing = []string{filepath.Dir(path)}
	}
	data, err := os.ReadFile(real)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading ledger %q: %w", real, reason(err))
	}
	entries, good, err := parse(real, data)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(real, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening ledger %q: %w", real, reason(err))
	}
	l := &Ledger{root: root, path: path, file: file, size: int64(good), known: map[string]bool{}}
	if err := l.start(entries, missing); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return l, nil
}

// start cuts off a torn last line, and writes the first ones of a new ledger.
func (l *Ledger) start(entries []Entry, made []string) error {
	err := errors.Join(l.file.Truncate(l.size), l.file.Chmod(0o600), l.file.Sync(), syncDir(filepath.Dir(l.file.Name())))
	if err != nil {
		return fmt.Errorf("preparing ledger %q: %w", l.file.Name(), err)
	}
	for _, e := range entries {
		l.remember(e)
	}
	for _, dir := range made {
		if err := l.Record(Entry{Kind: Dir, Path: dir}); err != nil {
			return err
		}
	}
	return nil
}

// Load returns the entries of the ledger at path below root, each once, without touching anything. Without a ledger
// there are none.
func Load(root, path string) ([]Entry, error) {
	real := filepath.Join(root, path)
	data, err := os.ReadFile(real)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading ledger %q: %w", real, reason(err))
	}
	entries, _, err := parse(real, data)
	if err != nil {
		return nil, err
	}
	l := Ledger{known: map[string]bool{}}
	for _, e := range entries {
		l.remember(e)
	}
	return l.entries, nil
}

// Record makes e durable; the effect may follow. An entry that is there already is not written again.
func (l *Ledger) Record(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	line, err := e.line()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[e.key()] {
		return nil
	}
	n, err := l.file.Write(line)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		err = fmt.Errorf("recording %s in ledger %q: %w", e, l.file.Name(), reason(err))
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: free at least %d bytes there, then run the same command again", err, len(line))
		}
		if n > 0 {
			err = errors.Join(err, l.file.Truncate(l.size)) // the next line must not begin inside this one
		}
		return err
	}
	l.size += int64(n)
	l.remember(e)
	return nil
}

func (l *Ledger) remember(e Entry) {
	if key := e.key(); !l.known[key] {
		l.known[key] = true
		l.entries = append(l.entries, e)
	}
}

// Entries returns what is recorded, oldest first, each once.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Owns reports whether slipway made what is at path, or made the tree that it lies in.
func (l *Ledger) Owns(path string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Owned(l.entries, path)
}

// Owned is Owns over the entries that Load returned.
func Owned(entries []Entry, path string) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		switch e.Kind {
		case Dir, File:
			return e.Path == path
		case Tree:
			return Within(path, e.Path)
		case Contents:
			return Below(path, e.Path)
		}
		return false
	})
}

// has reports whether there is an entry of one of the kinds for exactly this path.
func (l *Ledger) has(path string, kinds ...Kind) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.entries, func(e Entry) bool { return e.Path == path && slices.Contains(kinds, e.Kind) })
}

// Close releases the file. The ledger stays on disk.
func (l *Ledger) Close() error { return l.file.Close() }

// parse returns the entries, and how many bytes of data they take. A last line that is incomplete or garbled is left
// out: its fsync had not returned, so its effect did not happen. Any other bad line is an error, because skipping it
// would leave something behind for ever.
func parse(name string, data []byte) (entries []Entry, good int, err error) {
	for number := 1; good < len(data); number++ {
		line, _, complete := strings.Cut(string(data[good:]), "\n")
		e, err := parseLine(line)
		if err != nil || !complete {
			if good+len(line)+1 >= len(data) {
				return entries, good, nil
			}
			return nil, 0, fmt.Errorf("reading ledger %q: line %d is damaged (%w): correct it, or delete it if you know what it was for", name, number, err)
		}
		entries = append(entries, e)
		good += len(line) + 1
	}
	return entries, good, nil
}

// missingDirs returns which of dir and its parents do not exist below root, parents first.
func missingDirs(root, dir string) ([]string, error) {
	var missing []string
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		_, err := os.Stat(filepath.Join(root, dir))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("looking at %q: %w", filepath.Join(root, dir), reason(err))
		}
		missing = append(missing, dir)
	}
	slices.Reverse(missing)
	return missing, nil
}

// ownState reports whether the ledger's directory holds no more than the ledger, still empty, and locks.
func ownState(real string) bool {
	entries, err := os.ReadDir(filepath.Dir(real))
	if err != nil {
		return false
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		if info, err := e.Info(); e.Name() != filepath.Base(real) || err != nil || info.Size() > 0 {
			return false
		}
	}
	return true
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// reason strips the operation and path that os puts before the cause; our messages have named them.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
