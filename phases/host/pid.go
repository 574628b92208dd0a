package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning is returned for a process that has ended, or whose pid now belongs to another one.
var ErrNotRunning = errors.New("not running")

// ProcessID names one process for good: pids are used again, but never by two processes with the same start time.
type ProcessID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks after boot: field 22 of /proc/PID/stat
}

// IdentifyProcess returns the identity of the process that runs as pid now, or ErrNotRunning. A zombie has ended.
func IdentifyProcess(pid int) (ProcessID, error) { return identifyProcess("/proc", pid) }

func identifyProcess(proc string, pid int) (ProcessID, error) {
	data, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ProcessID{}, fmt.Errorf("process %d: %w", pid, ErrNotRunning)
	}
	if err != nil {
		return ProcessID{}, fmt.Errorf("identifying process %d: %w", pid, err)
	}
	fields, err := statFields(string(data))
	if err != nil {
		return ProcessID{}, fmt.Errorf("identifying process %d: %w", pid, err)
	}
	if state := fields[0]; state == "Z" || state == "X" {
		return ProcessID{}, fmt.Errorf("process %d: %w", pid, ErrNotRunning)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return ProcessID{}, fmt.Errorf("identifying process %d: %w", pid, err)
	}
	return ProcessID{PID: pid, Start: start}, nil
}

// statFields returns the fields of /proc/PID/stat from the third, the state, on. The second is the program's name in
// parentheses, which may itself hold spaces and parentheses: what follows the last one is regular.
func statFields(stat string) ([]string, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 20 {
		return nil, fmt.Errorf("malformed stat %q", stat)
	}
	return fields, nil
}

// Running reports whether exactly this process runs.
func (id ProcessID) Running() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := IdentifyProcess(id.PID)
	return err == nil && now == id
}

// StopProcess sends SIGTERM to the process, waits up to grace for its end, then sends SIGKILL and waits for that. A
// process that has ended already, or whose pid now belongs to another, gives nil and gets no signal. When ctx ends
// first, no SIGKILL is sent.
func StopProcess(ctx context.Context, id ProcessID, grace time.Duration) error {
	// The descriptor is opened before the identity is checked: from then on signals reach this process or none.
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || id.PID <= 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stopping process %d: %w", id.PID, err)
	}
	handle := os.NewFile(uintptr(fd), "pidfd")
	defer handle.Close()
	if !id.Running() {
		return nil
	}
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, killTimeout}} {
		if err := unix.PidfdSendSignal(fd, step.signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stopping process %d: %s: %w", id.PID, unix.SignalName(step.signal), err)
		}
		ended, err := waitEnd(ctx, handle, step.wait)
		if err != nil {
			return fmt.Errorf("waiting for the end of process %d: %w", id.PID, err)
		}
		if ended {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end, %s after SIGKILL: it may hang in the kernel", id.PID, killTimeout)
}

// killTimeout is how long the kernel gets to end a process that was killed.
const killTimeout = 10 * time.Second

// waitEnd waits on a non-blocking pidfd, which polls as readable once its process has ended.
func waitEnd(ctx context.Context, pidfd *os.File, timeout time.Duration) (ended bool, err error) {
	conn, err := pidfd.SyscallConn()
	if err != nil {
		return false, err
	}
	if err := pidfd.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { pidfd.SetReadDeadline(time.Now()) }) //nolint:errcheck // closed files need no deadline
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	}
	return false, err
}

// findProcess returns the running process with exactly this command line. It finds what was started by a run that
// ended before it could write the pid down.
func findProcess(proc string, argv []string) (ProcessID, bool) {
	want := []byte(strings.Join(argv, "\x00") + "\x00")
	for _, pid := range pids(proc) {
		cmdline, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cmdline"))
		if err != nil || !bytes.Equal(cmdline, want) {
			continue
		}
		if id, err := identifyProcess(proc, pid); err == nil {
			return id, true
		}
	}
	return ProcessID{}, false
}

// pids lists the processes under proc, lowest pid first.
func pids(proc string) []int {
	dir, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var list []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list
}
