package status

import (
	"bufio"
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
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", 0
	}
	best := -1
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".log"))
		if err == nil && strings.HasSuffix(e.Name(), ".log") {
			best = max(best, n)
		}
	}
	if best < 0 {
		return "", 0
	}
	path := filepath.Join(dir, strconv.Itoa(best)+".log")
	info, err := os.Stat(path)
	if err != nil {
		return "", 0
	}
	return path, info.ModTime().UnixNano()
}

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
	var out bytes.Buffer
	d := decoder{out: &out}
	if err := d.write(data); err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil, nil
	}
	return lines[max(0, len(lines)-n):], nil
}

// Copy writes a whole CRI log, decoded, to out. With follow it goes on with what is appended, and with the next
// attempt's log, until ctx ends.
func Copy(ctx context.Context, path string, follow bool, out io.Writer) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	defer func() { f.Close() }()
	d := decoder{out: out}
	if !follow {
		return d.copy(f)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %q: %w", path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("watching %q: %w", filepath.Dir(path), err)
	}
	for {
		if err := d.copy(f); err != nil {
			return err
		}
		if next, _ := newestAttempt(filepath.Dir(path)); next != "" && next != path {
			g, err := os.Open(next)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("opening a log: %w", err)
			}
			if err == nil {
				f.Close()
				f, path = g, next
				continue
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
		case err := <-watcher.Errors:
			return fmt.Errorf("watching %q: %w", path, err)
		}
	}
}

// decoder turns the CRI log format, "TIME STREAM TAG TEXT" with tag P for a part of a line and F for its end, into the
// container's own output. Bytes after the last newline wait for the rest of their line.
type decoder struct {
	out  io.Writer
	rest []byte
}

func (d *decoder) copy(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		chunk, err := in.ReadSlice('\n')
		if werr := d.write(chunk); werr != nil {
			return werr
		}
		switch {
		case err == nil, errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

func (d *decoder) write(data []byte) error {
	d.rest = append(d.rest, data...)
	for {
		line, rest, whole := bytes.Cut(d.rest, []byte("\n"))
		if !whole {
			return nil
		}
		text := line
		end := true
		if fields := bytes.SplitN(line, []byte(" "), 4); len(fields) == 4 {
			text, end = fields[3], string(fields[2]) != "P"
		}
		if _, err := d.out.Write(text); err != nil {
			return fmt.Errorf("writing log lines: %w", err)
		}
		if end {
			if _, err := d.out.Write([]byte("\n")); err != nil {
				return fmt.Errorf("writing log lines: %w", err)
			}
		}
		d.rest = rest
	}
}
