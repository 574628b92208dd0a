//go:build e2e || bench

package podtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Process is a program in the background, which ends with the test process at the latest.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs argv with its output at the end of the file log.
func start(log string, env []string, argv ...string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p := &Process{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
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

// Start starts a further program, such as a kubelet, in the node's network. Its output goes to the file NAME.log in
// Dir. It is ended with the node.
func (n *Node) Start(name string, argv ...string) *Process {
	n.t.Helper()
	p, err := start(filepath.Join(n.Dir, name+".log"), nil, n.inNetwork(argv)...)
	n.must(err)
	n.others = append(n.others, p)
	return p
}

// PID stays the same after the end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Running is false for nil too.
func (p *Process) Running() bool {
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

// Signal sends a signal to a process that may have ended.
func (p *Process) Signal(s syscall.Signal) {
	if p.Running() {
		p.cmd.Process.Signal(s) //nolint:errcheck // it may end at this moment
	}
}

// Stop asks with SIGTERM, kills after the grace period (at once for 0), and returns when the process is gone. It wakes
// up one that is stopped.
func (p *Process) Stop(grace time.Duration) {
	if p == nil {
		return
	}
	if grace > 0 {
		p.Signal(syscall.SIGTERM)
		p.Signal(syscall.SIGCONT)
		limit := time.NewTimer(grace)
		defer limit.Stop()
		select {
		case <-p.done:
			return
		case <-limit.C:
		}
	}
	p.Signal(syscall.SIGKILL)
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
