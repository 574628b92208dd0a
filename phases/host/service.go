package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// service is a program that outlives slipway: as a systemd unit, or as a detached process.
type service struct {
	Name    string   // for messages: "containerd"
	Unit    string   // name of the unit file, which exists before ensure is called
	Argv    []string // with an absolute program path
	Configs []string // files that the program reads once, at its start
	PIDFile string   // without an init system
	LogFile string   // without an init system
	// Ready returns nil once the program serves. It is asked again until then, and must not block for long.
	Ready func(context.Context) error
}

// services starts programs. Its two forms are units and processes.
type services interface {
	// ensure returns once the service runs with its present configuration and is ready. It reports whether it had to
	// be started.
	ensure(ctx context.Context, s service) (started bool, err error)
}

const (
	// startTimeout is how long a service may take to serve its socket. containerd takes 0.1 s on an idle machine; a
	// first start on a slow disk was seen to take seconds.
	startTimeout = 60 * time.Second
	// dialInterval is the pause between two looks at a socket that is about to appear. A refused connect costs some
	// 20 µs, so this is no load, and on average 5 ms are lost.
	dialInterval = 10 * time.Millisecond
	// logTail is how many of a failed program's last lines an error shows.
	logTail = 20
)

// errEnded is the cause of a wait whose program has ended.
var errEnded = errors.New("ended while starting")

// awaitReady asks ready until it gives nil. When ctx ends, the last answer is part of the error.
func awaitReady(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(dialInterval)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return cause
			}
			return fmt.Errorf("not ready in time: %w", err)
		case <-tick.C:
		}
	}
}

// startError says why a service is not up: which one, the reason, its last log lines and where the rest is.
func startError(name string, reason error, lines []string, where string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "starting %s: %v", name, reason)
	if len(lines) > 0 {
		fmt.Fprintf(&b, "; its last log lines:\n    %s\n", strings.Join(lines, "\n    "))
	} else {
		b.WriteString("; it wrote no log\n")
	}
	if cause, ok := LikelyCause(name, lines); ok {
		fmt.Fprintf(&b, "  likely cause: %s\n", cause.Text)
	}
	fmt.Fprintf(&b, "  next: %s", where)
	return &detailed{text: b.String(), err: reason}
}

// detailed is an error of several lines that still unwraps to its reason.
type detailed struct {
	text string
	err  error
}

func (e *detailed) Error() string { return e.text }
func (e *detailed) Unwrap() error { return e.err }

// lastLines returns up to n lines from the end of the file at path, reading no more than its last 64 KiB.
func lastLines(path string, n int) []string {
	const window = 64 << 10
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > window {
		f.Seek(-window, io.SeekEnd) //nolint:errcheck // then the whole file is read
	}
	data, _ := io.ReadAll(f)
	return tailOf(strings.TrimRight(string(data), "\n"), n)
}

func tailOf(text string, n int) []string {
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-n):]
}
