package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Latency is how long a disk took to make small writes durable.
type Latency struct {
	Dir     string // where it was measured
	Samples int
	P99     time.Duration
}

const (
	// fsyncWrite is about what etcd appends to its log for one change of a small object.
	fsyncWrite = 2300
	// fsyncPause keeps the probe from taking the disk away from the etcd that runs there: 200 writes a second at most.
	fsyncPause = 5 * time.Millisecond
	// fsyncEnough is how many samples a 99th percentile needs to be more than the slowest one.
	fsyncEnough = 100
)

// FsyncLatency measures the disk of dir, or of its nearest parent that exists, for as long as ctx lasts. The file has no
// name (O_TMPFILE): nothing is left of it, whatever ends the program. A file system without such files is an error.
func FsyncLatency(ctx context.Context, dir string) (Latency, error) {
	dir = nearestDir(dir)
	file, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return Latency{}, fmt.Errorf("opening a file without a name in %q: %w", dir, pathReason(err))
	}
	defer file.Close()
	data := make([]byte, fsyncWrite)
	var took []time.Duration
	pause := time.NewTicker(fsyncPause)
	defer pause.Stop()
	for ctx.Err() == nil {
		start := time.Now()
		_, err := file.WriteAt(data, int64(len(took))*fsyncWrite)
		if err == nil {
			err = unix.Fdatasync(int(file.Fd()))
		}
		if err != nil {
			return Latency{}, fmt.Errorf("writing to the disk of %q: %w", dir, pathReason(err))
		}
		took = append(took, time.Since(start))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
	}
	return Latency{Dir: dir, Samples: len(took), P99: percentile99(took)}, nil
}

// Enough reports whether there are samples enough to judge the disk by: fewer means that the time was short, or that
// each took very long.
func (l Latency) Enough() bool { return l.Samples >= fsyncEnough }

// percentile99 is the value that 99 in 100 do not exceed, 0 of none.
func percentile99(values []time.Duration) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*99+99)/100-1]
}

func nearestDir(path string) string {
	for path != filepath.Dir(path) {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// pathReason strips the operation and path that os puts before the cause.
func pathReason(err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
