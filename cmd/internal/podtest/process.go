//go:build e2e || bench

package podtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is a program in the background, which ends with the test process at the latest.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs argv with its output at the end of the file log.
func start(log string, env []string, argv ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), file, file
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	go func() {
		defer close(p.done)
		p.cmd.Wait() //nolint:errcheck // ProcessState says how it ended
	}()
	return p, nil
}

// running is false for nil too.
func (p *process) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) signal(s syscall.Signal) {
	if p.running() {
		p.cmd.Process.Signal(s) //nolint:errcheck // it may end at this moment
	}
}

// stop asks with SIGTERM, kills after the grace period (at once for 0), and returns when the process is gone. It wakes
// up one that is stopped.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	if grace > 0 {
		p.signal(syscall.SIGTERM)
		p.signal(syscall.SIGCONT)
		limit := time.NewTimer(grace)
		defer limit.Stop()
		select {
		case <-p.done:
			return
		case <-limit.C:
		}
	}
	p.signal(syscall.SIGKILL)
	<-p.done
}

// tail returns the last lines of a file, for a report.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
