package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockedError says that another slipway changes this machine now.
type LockedError struct {
	Path string
	PID  int // 0 when it has not written it yet
}

func (e *LockedError) Error() string {
	who := "another slipway"
	if e.PID != 0 {
		who = fmt.Sprintf("another slipway, pid %d,", e.PID)
	}
	return fmt.Sprintf("%s is changing this machine and holds %q: wait for its end, then run the same command again", who, e.Path)
}

// Lock takes the lock file at path below root, writes this process's pid into it, and holds it until release is
// called, or the process ends. Held by another, it returns a *LockedError at once. release removes the file, and the
// directory if Lock made it and nothing else has come into it.
func Lock(root, path string) (release func(), err error) {
	real := filepath.Join(root, path)
	made := false
	for {
		if _, err := os.Stat(filepath.Dir(real)); errors.Is(err, fs.ErrNotExist) {
			made = true
		}
		if err := os.MkdirAll(filepath.Dir(real), 0o755); err != nil {
			return nil, fmt.Errorf("making the directory of lock %q: %w", real, reason(err))
		}
		file, err := os.OpenFile(real, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a release removed the directory just now
		}
		if err != nil {
			return nil, fmt.Errorf("opening lock %q: %w", real, reason(err))
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			defer file.Close()
			if !errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("locking %q: %w", real, err)
			}
			return nil, &LockedError{Path: real, PID: holder(real)}
		}
		if !isAt(file, real) {
			file.Close() // its holder removed it between our open and our flock
			continue
		}
		if err := errors.Join(file.Truncate(0), writePID(file)); err != nil {
			return nil, errors.Join(fmt.Errorf("writing lock %q: %w", real, reason(err)), file.Close())
		}
		return func() {
			if isAt(file, real) {
				_ = os.Remove(real)
			}
			if made {
				_ = syscall.Rmdir(filepath.Dir(real)) // refused unless it is empty
			}
			_ = file.Close()
		}, nil
	}
}

func writePID(file *os.File) error {
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Holder returns the pid of the process that holds the lock file at path below root; 0 for none. A file that a killed
// process left is held by none. Nothing is locked for it: a run that begins meanwhile is not refused.
func Holder(root, path string) int {
	pid := holder(filepath.Join(root, path))
	if pid == 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return 0
	}
	return pid
}

func holder(real string) int {
	data, _ := os.ReadFile(real)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// isAt reports whether the open file is the one at the path.
func isAt(file *os.File, path string) bool {
	a, err := file.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
