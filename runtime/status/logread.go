package status

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// LogOptions say what of a log is read.
type LogOptions struct {
	Tail       int       // only the last lines; less than 0 for all
	Since      time.Time // only what was written from then on; zero for all
	Timestamps bool      // with the time of each line before it
	Follow     bool      // go on with what is appended, see CopyLog
}

// CopyLog writes the log of an attempt, decoded, to out: what was rotated away first, oldest first, then path itself.
// With Follow it goes on with what is appended, with the file that takes the place of a rotated one and with the next
// attempts' logs, until ctx ends or the log's directory is removed. However large the log is, little of it is in memory
// at once.
func CopyLog(ctx context.Context, path string, o LogOptions, out io.Writer) error {
	files, rotated, err := openAll(path, o.Since)
	if err != nil {
		return err
	}
	defer func() { closeAll(files) }()
	d := decoder{timestamps: o.Timestamps, since: o.Since}
	if o.Tail >= 0 {
		if files, d.skip, err = cut(files, o.Tail); err != nil {
			return err
		}
	}
	if o.Follow {
		current := files[len(files)-1]
		watch, err := watchLog(path, current, rotated)
		if err != nil {
			return err
		}
		defer watch.close()
		if err := d.copyAll(out, files); err != nil {
			return err
		}
		files = files[:len(files)-1] // the last one is the watch's
		return watch.follow(ctx, &d, out)
	}
	return d.copyAll(out, files)
}

// tailWindow bounds what Tail returns, in bytes: 20 lines at the CRI's largest, 16 KiB, and as much again for partial
// lines.
const tailWindow = 1 << 20

// Tail returns the last n lines of a log, decoded; of very long lines, the last mebibyte.
func Tail(path string, n int) ([]string, error) {
	var out window
	if err := CopyLog(context.Background(), path, LogOptions{Tail: n}, &out); err != nil {
		return nil, err
	}
	text := strings.TrimRight(out.String(), "\n")
	if text == "" {
		return nil, nil
	}
	return strings.Split(text, "\n"), nil
}

// window is a buffer that forgets all but its end.
type window struct{ bytes.Buffer }

func (w *window) Write(p []byte) (int, error) {
	w.Buffer.Write(p)
	if extra := w.Len() - tailWindow; extra > 0 {
		w.Next(extra)
	}
	return len(p), nil
}

// logFile is one open file of a log.
type logFile struct {
	*os.File
	info fs.FileInfo
	from int64 // where to begin; not for a compressed one
	gz   *gzip.Reader
}

func openLog(path string) (*logFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	l := &logFile{File: f, info: info}
	if strings.HasSuffix(path, compressed) {
		if l.gz, err = gzip.NewReader(f); err != nil {
			f.Close()
			return nil, fmt.Errorf("reading %q: %w", path, err)
		}
	}
	return l, nil
}

// Read goes on where the last Read ended.
func (l *logFile) Read(p []byte) (int, error) {
	if l.gz != nil {
		return l.gz.Read(p)
	}
	return l.File.Read(p)
}

// rewind makes the next Read begin at from.
func (l *logFile) rewind() error {
	_, err := l.Seek(l.from, io.SeekStart)
	if err == nil && l.gz != nil {
		err = l.gz.Reset(l.File)
	}
	if err != nil {
		return fmt.Errorf("reading %q: %w", l.Name(), err)
	}
	return nil
}

// listings is how often a directory is listed again while files are renamed below its reader's hands.
const listings = 5

// openAll opens a log and what was rotated away from it, oldest first, as of one instant, and names the latter. What
// was last written before since is left out. While a rotation has taken the file away and the runtime has not made the
// next one, the newest of the rotated ones is the last.
func openAll(path string, since time.Time) (files []*logFile, rotated []string, err error) {
	for range listings {
		closeAll(files)
		var current *logFile
		if current, err = opened(path); err != nil {
			return nil, nil, err
		}
		if files, rotated, err = openBefore(path, current, since); err != nil {
			return nil, nil, err
		}
		if info, err := os.Stat(path); current != nil && err == nil && os.SameFile(info, current.info) {
			break
		}
	}
	if len(files) == 0 {
		return nil, nil, fmt.Errorf("opening a log: %w", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist})
	}
	return files, rotated, nil
}

// openBefore opens what was rotated away from a log before current, and adds current, which may be nil. What was rotated
// since current was opened is newer, or is current itself.
func openBefore(path string, current *logFile, since time.Time) (files []*logFile, rotated []string, err error) {
	rotated, err = rotatedOf(path)
	for i := 0; err == nil && i < len(rotated); i++ {
		var f *logFile
		switch f, err = openRotated(rotated[i]); {
		case f == nil: // the oldest ones go
		case current != nil && os.SameFile(f.info, current.info):
			f.Close()
			rotated = rotated[:i]
		case f.info.ModTime().Before(since):
			f.Close()
		default:
			files = append(files, f)
		}
	}
	if current != nil {
		files = append(files, current)
	}
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	return files, rotated, nil
}

// openRotated opens a rotated file under the name that it has by now; nil when it is gone.
func openRotated(name string) (*logFile, error) {
	f, err := opened(original(name))
	if f == nil && err == nil {
		f, err = opened(original(name) + compressed)
	}
	return f, err
}

func closeAll(files []*logFile) {
	for _, f := range files {
		f.Close()
	}
}

// cut leaves of the files what is needed for the last n lines, and says how many lines too many that is. What is not
// needed is closed.
func cut(files []*logFile, n int) (rest []*logFile, skip int, err error) {
	lines, first := 0, len(files)
	for first > 0 && lines <= n {
		first--
		more, err := files[first].last(n - lines)
		if err != nil {
			return files, 0, err
		}
		lines += more
	}
	for _, f := range files[:first] {
		f.Close()
	}
	return files[first:], max(0, lines-n), nil
}

// last moves the beginning of a file to where its last n lines begin, or earlier, and returns how many there are. One
// line more than is asked for is among them, because the first may lack its beginning.
func (l *logFile) last(n int) (lines int, err error) {
	if l.gz != nil {
		if lines, err = countLines(l); err != nil {
			return 0, err
		}
		return lines, l.rewind()
	}
	size := l.info.Size()
	for reach := int64(64 << 10); ; reach *= 4 {
		if l.from, err = l.lineAfter(max(0, size-reach)); err != nil {
			return 0, err
		}
		lines, err = countLines(io.NewSectionReader(l.File, l.from, size-l.from))
		if err != nil || lines > n || reach >= size {
			break
		}
	}
	if err != nil {
		return 0, err
	}
	return lines, l.rewind()
}

// lineAfter returns where the first line at or after an offset begins.
func (l *logFile) lineAfter(offset int64) (int64, error) {
	if offset == 0 {
		return 0, nil
	}
	chunk := make([]byte, 64<<10)
	for at := offset - 1; ; at += int64(len(chunk)) { // a newline just before it makes the offset itself a beginning
		n, err := l.ReadAt(chunk, at)
		if i := bytes.IndexByte(chunk[:n], '\n'); i >= 0 {
			return at + int64(i) + 1, nil
		}
		if errors.Is(err, io.EOF) {
			return at + int64(n), nil
		}
		if err != nil {
			return 0, fmt.Errorf("reading %q: %w", l.Name(), err)
		}
	}
}

// copyAll decodes the files one after the other.
func (d *decoder) copyAll(out io.Writer, files []*logFile) error {
	for _, f := range files {
		if err := d.copy(out, f); err != nil {
			return fmt.Errorf("%w: %s", err, f.Name())
		}
	}
	return nil
}
