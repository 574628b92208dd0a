package watched

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// maxEntries bounds what the paths of one pod may come to.
const maxEntries = 1000

// entry is a file or directory as stat shows it. What is equal in all of it is taken as unchanged.
type entry struct {
	path  string
	kind  byte        // see kindOf
	mode  fs.FileMode // permissions, setuid, setgid and sticky
	dev   uint64
	inode uint64
	// Of a directory these stay 0: what counts of it is listed.
	size, mtime, ctime int64 // times in nanoseconds since the epoch
}

const (
	missing   = '-'
	regular   = 'f'
	directory = 'd'
	special   = 's' // a socket, pipe or device: it has no content to compare
)

// survey looks at the paths, symbolic links followed. Of a directory it shows the entries too, but nothing below them,
// and neither hidden files (editors' drafts, and the machinery of the directories that a kubelet makes of ConfigMaps,
// whose visible entries lead there) nor backups, which end in "~". What does not exist is an entry, too.
func survey(paths []string) ([]entry, error) {
	paths = slices.Clone(paths)
	slices.Sort(paths)
	var found []entry
	for _, p := range slices.Compact(paths) {
		e, err := look(p)
		if err != nil {
			return nil, err
		}
		found = append(found, e)
		if e.kind == directory {
			inside, err := list(p)
			if err != nil {
				return nil, err
			}
			found = append(found, inside...)
		}
		if len(found) > maxEntries {
			return nil, fmt.Errorf("watching %s: more than %d files", p, maxEntries)
		}
	}
	return found, nil
}

func list(dir string) ([]entry, error) {
	names, err := namesIn(dir)
	if err != nil {
		return nil, err
	}
	var found []entry
	for _, name := range names {
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		e, err := look(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	return found, nil
}

// namesIn returns the names in a directory, sorted; none for one that is gone.
func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("watching a directory: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("watching a directory: %w", err)
	}
	if len(names) > maxEntries {
		return nil, fmt.Errorf("watching %s: more than %d files", dir, maxEntries)
	}
	slices.Sort(names)
	return names, nil
}

func look(path string) (entry, error) {
	info, err := os.Stat(path)
	if isMissing(err) {
		return entry{path: path, kind: missing}, nil
	}
	if err != nil {
		return entry{}, fmt.Errorf("watching a file: %w", err)
	}
	e := entry{path: path, kind: kindOf(info.Mode()), mode: info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok {
		e.dev, e.inode = st.Dev, st.Ino
	}
	if e.kind == directory {
		return e, nil
	}
	e.size, e.mtime = info.Size(), info.ModTime().UnixNano()
	if ok {
		e.ctime = st.Ctim.Nano()
	}
	return e, nil
}

// isMissing is also true for a path whose parent is no directory.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func kindOf(m fs.FileMode) byte {
	switch {
	case m.IsRegular():
		return regular
	case m.IsDir():
		return directory
	}
	return special
}

// lost tells whether something that was there before is not there now.
func lost(before, now []entry) bool {
	there := map[string]bool{}
	for _, e := range now {
		there[e.path] = e.kind != missing
	}
	return slices.ContainsFunc(before, func(e entry) bool { return e.kind != missing && !there[e.path] })
}
