package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// logWatch follows a container's log from file to file. It owns the file that it reads.
type logWatch struct {
	dir     string
	path    string // of the attempt under way
	f       *logFile
	current bool            // f was opened as path; it may have been rotated away since
	done    map[string]bool // rotated files that were read or are f, without ".gz"
	events  *fsnotify.Watcher
}

// watchLog begins to watch before anything is read: what changes afterwards is an event. f is the file that was at
// path, or the newest rotated one; rotated are those that were beside it at that moment.
func watchLog(path string, f *logFile, rotated []string) (*logWatch, error) {
	dir := filepath.Dir(path)
	events, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching %q: %w", dir, err)
	}
	w := &logWatch{dir: dir, path: path, f: f, current: f.Name() == path, done: map[string]bool{}, events: events}
	// An open file keeps the kernel from telling that its directory is gone; the directory above it tells.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := events.Add(d); err != nil {
			events.Close()
			return nil, fmt.Errorf("watching %q: %w", d, err)
		}
	}
	for _, name := range rotated {
		w.done[original(name)] = true
	}
	return w, nil
}

func original(rotated string) string { return strings.TrimSuffix(rotated, compressed) }

// close ends the watch. The file that CopyLog opened is closed by CopyLog, which is harmless to do twice.
func (w *logWatch) close() {
	w.events.Close()
	w.f.Close()
}

// follow goes on with what is appended, until ctx ends or the log's directory is gone.
func (w *logWatch) follow(ctx context.Context, d *decoder, out io.Writer) error {
	for {
		if err := d.copy(out, w.f); err != nil {
			return err
		}
		next, err := w.next()
		if err != nil {
			return err
		}
		if next != nil {
			// What was written between the last read and the appearance of the next file.
			err := d.copy(out, w.f)
			w.f.Close()
			if w.f = next; err != nil {
				return err
			}
			continue
		}
		if over, err := w.wait(ctx); over || err != nil {
			return err
		}
	}
}

// wait returns at the next change; over says that none will come.
func (w *logWatch) wait(ctx context.Context) (over bool, err error) {
	select {
	case <-ctx.Done():
		return true, nil
	case <-w.events.Events:
	case err := <-w.events.Errors:
		if !errors.Is(err, fsnotify.ErrEventOverflow) { // of those too many, one is enough
			return false, fmt.Errorf("watching %q: %w", w.dir, err)
		}
	}
	_, err = os.Stat(w.dir)
	return errors.Is(err, fs.ErrNotExist), nil
}

// next opens the file that comes after w.f: a rotated one, the file at path, or the first of the next attempt. nil when
// there is none yet.
func (w *logWatch) next() (*logFile, error) {
	if info, err := os.Stat(w.path); w.current && err == nil && os.SameFile(info, w.f.info) {
		return w.nextAttempt()
	}
	pending, err := w.pending()
	if err != nil {
		return nil, err
	}
	if w.current && len(pending) > 0 && w.mayBe(pending[0]) {
		w.done[original(pending[0])] = true
		pending, w.current = pending[1:], false
	}
	f, err := w.open(pending)
	if f != nil || err != nil {
		return f, err
	}
	return w.nextAttempt()
}

// mayBe tells whether a rotated file is the one that is open. A compressed copy is another file.
func (w *logWatch) mayBe(rotated string) bool {
	info, err := os.Stat(rotated)
	return strings.HasSuffix(rotated, compressed) || err != nil || os.SameFile(info, w.f.info)
}

// open returns the first of the pending files, else the one at path, else nil. Where a rotation comes in between, what
// was rotated away is first.
func (w *logWatch) open(pending []string) (f *logFile, err error) {
	for range listings {
		if len(pending) > 0 {
			w.done[original(pending[0])], w.current = true, false
			return openRotated(pending[0])
		}
		if f, err = opened(w.path); f == nil || err != nil {
			return nil, err
		}
		if pending, err = w.pending(); err == nil && len(pending) == 0 {
			w.current = true
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, nil // looked at again at the next change
}

func (w *logWatch) pending() ([]string, error) {
	rotated, err := rotatedOf(w.path)
	if err != nil {
		return nil, err
	}
	var pending []string
	for _, name := range rotated {
		if !w.done[original(name)] {
			pending = append(pending, name)
		}
	}
	return pending, nil
}

// nextAttempt goes on to the next attempt that has a log.
func (w *logWatch) nextAttempt() (*logFile, error) {
	attempt, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(w.path), ".log"))
	if err != nil {
		return nil, nil // a name of somebody else's
	}
	for _, later := range attemptsIn(w.dir) {
		if later <= attempt {
			continue
		}
		w.path, w.current, w.done = logOf(w.dir, later), false, map[string]bool{}
		pending, err := w.pending()
		if err != nil {
			return nil, err
		}
		return w.open(pending)
	}
	return nil, nil
}

// opened is openLog, with nil for a file that is gone.
func opened(path string) (*logFile, error) {
	f, err := openLog(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}
