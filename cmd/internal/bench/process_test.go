//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a program that was started here, and is ended here.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts argv in the background, with its output in the file log. It is in a process group of its own, so
// that Ctrl-C reaches it only through the clean-up.
func startProcess(log string, argv ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	defer file.Close()
	p := &process{name: argv[0], log: log, cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() //nolint:errcheck // ProcessState says how it ended
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks with SIGTERM, kills after the grace period, and returns when the process is gone. Nil may be stopped.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	if grace > 0 {
		p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		limit := time.NewTimer(grace)
		defer limit.Stop()
		select {
		case <-p.done:
			return
		case <-limit.C:
		}
	}
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.done
}

// complaint is the end of the process's log, for an error.
func (p *process) complaint() string {
	if p == nil {
		return "not started"
	}
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s printed last:\n%s", p.name, lastLines(string(data), 15))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// line is one line that a command printed, and when, after its start.
type line struct {
	At   time.Duration
	Text string
}

// command runs a program to its end and returns what it printed, line by line, and how long it took. After the end of
// ctx it gets SIGTERM, and ten seconds.
func command(ctx context.Context, env []string, argv ...string) ([]line, time.Duration, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	var printed []line
	read := make(chan struct{})
	start := time.Now()
	go func() {
		defer close(read)
		lines := bufio.NewScanner(reader)
		for lines.Scan() {
			printed = append(printed, line{time.Since(start), lines.Text()})
		}
	}()
	err := cmd.Run()
	took := time.Since(start)
	writer.Close()
	<-read
	if err == nil {
		return printed, took, nil
	}
	var text bytes.Buffer
	for _, l := range printed {
		fmt.Fprintln(&text, l.Text)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(cause, err)
	}
	return printed, took, fmt.Errorf("running %s: %w\n%s", strings.Join(argv, " "), err, lastLines(text.String(), 30))
}
