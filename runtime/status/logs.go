package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// tailWindow bounds how far back from the end of a log a tail is looked for: 20 lines at the CRI's largest, 16 KiB,
// and as much again for partial lines.
const tailWindow = 1 << 20

// ErrNoLog is returned when a container has not written a log yet.
var ErrNoLog = errors.New("there is no log yet")

// LatestLog returns the newest log file of a container: <dir>/<namespace>_<pod>_<uid>/<container>/<attempt>.log with
// the highest attempt of the directory that was changed last. An empty container means the pod's only one.
func LatestLog(podLogs, namespace, pod, container string) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(podLogs, namespace+"_"+pod+"_*", orAny(container)))
	if err != nil {
		return "", fmt.Errorf("finding the logs of %s/%s: %w", namespace, pod, err)
	}
	var newest string
	var changed int64
	names := map[string]bool{}
	for _, dir := range dirs {
		path, at := newestAttempt(dir)
		names[filepath.Base(dir)] = true
		if path != "" && at >= changed {
			newest, changed = path, at
		}
	}
	if container == "" && len(names) > 1 {
		return "", fmt.Errorf("pod %s/%s has several containers, name one of: %s", namespace, pod, strings.Join(sorted(names), ", "))
	}
	if newest == "" {
		return "", fmt.Errorf("reading the log of %s/%s below %s: %w", namespace, pod, podLogs, ErrNoLog)
	}
	return newest, nil
}

func orAny(container string) string {
	if container == "" {
		return "*"
	}
	return container
}

func sorted(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// newestAttempt returns the log with the highest attempt of a container's directory and when it was last written.
func newestAttempt(dir string) (string, int64) {
	all := attemptsIn(dir)
	if len(all) == 0 {
		return "", 0
	}
	path := logOf(dir, all[len(all)-1])
	info, err := os.Stat(path)
	if err != nil {
		return "", 0
	}
	return path, info.ModTime().UnixNano()
}

// attemptsIn returns the attempts that have a log in a container's directory, in order.
func attemptsIn(dir string) []int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []int
	for _, e := range entries {
		number, isLog := strings.CutSuffix(e.Name(), ".log")
		if n, err := strconv.Atoi(number); isLog && err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func logOf(dir string, attempt int) string { return filepath.Join(dir, strconv.Itoa(attempt)+".log") }

// Tail returns the last n lines of a CRI log, decoded: without time, stream and tag, partial lines joined.
func Tail(path string, n int) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	from := max(0, info.Size()-tailWindow)
	data, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	if from > 0 { // the window begins inside a line
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	var d decoder
	d.decode(data)
	lines := strings.Split(strings.TrimRight(d.text.String(), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil, nil
	}
	return lines[max(0, len(lines)-n):], nil
}

// Copy writes a whole CRI log, decoded, to out. With follow it goes on with what is appended, with the file that takes
// the place of a rotated one and with the next attempts' logs, until ctx ends or the log's directory is removed.
func Copy(ctx context.Context, path string, follow bool, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	defer func() { f.Close() }()
	var d decoder
	if !follow {
		return d.copy(out, f)
	}
	dir := filepath.Dir(path)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %q: %w", dir, err)
	}
	defer watcher.Close()
	// An open file keeps the kernel from telling that its directory is gone; the directory above it tells.
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := watcher.Add(d); err != nil {
			return fmt.Errorf("watching %q: %w", d, err)
		}
	}
	for {
		if err := d.copy(out, f); err != nil {
			return err
		}
		next, err := following(f, path)
		if err != nil {
			return err
		}
		if next != nil {
			// What was written between the last read and the appearance of the next file.
			err := d.copy(out, f)
			f.Close()
			if f, path = next, next.Name(); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				return nil
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("watching %q: %w", dir, err)
		}
	}
}

// following opens the file that comes after an open log: its successor by rotation, else the next attempt's. nil when
// there is none yet.
func following(f *os.File, path string) (*os.File, error) {
	open, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", path, err)
	}
	candidates := []string{path}
	current, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".log"))
	if err == nil {
		for _, attempt := range attemptsIn(filepath.Dir(path)) {
			if attempt > current {
				candidates = append(candidates, logOf(filepath.Dir(path), attempt))
			}
		}
	}
	for _, c := range candidates {
		g, err := os.Open(c)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("opening a log: %w", err)
		}
		if info, err := g.Stat(); err == nil && !os.SameFile(info, open) {
			return g, nil
		}
		g.Close()
	}
	return nil, nil
}

// decoder turns the CRI log format, "TIME STREAM TAG TEXT" with tag P for a part of a line and F for its end, into the
// container's own output. Bytes after the last newline wait for the rest of their line.
type decoder struct {
	text bytes.Buffer // decoded
	rest []byte
}

// copy decodes what is left of r to out.
func (d *decoder) copy(out io.Writer, r io.Reader) error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := r.Read(chunk)
		d.decode(chunk[:n])
		if _, werr := d.text.WriteTo(out); werr != nil {
			return fmt.Errorf("writing log lines: %w", werr)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

func (d *decoder) decode(data []byte) {
	d.rest = append(d.rest, data...)
	for {
		line, rest, whole := bytes.Cut(d.rest, []byte("\n"))
		if !whole {
			return
		}
		text, end := line, true
		if fields := bytes.SplitN(line, []byte(" "), 4); len(fields) == 4 {
			text, end = fields[3], string(fields[2]) != "P"
		}
		d.text.Write(text)
		if end {
			d.text.WriteByte('\n')
		}
		d.rest = rest
	}
}
