//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// points are the moments at which init is interrupted: as soon as it has the lock, right behind a phase's line, which is
// in the next phase, and while the components start.
var points = []struct {
	name  string
	phase string        // whose line is waited for; "" for the lock
	after func() string // what is waited for then; see eventually
}{
	{name: "lock"},
	{name: "config", phase: "preflight"},
	{name: "certs", phase: "supervisor/config"},
	{name: "certs, in the middle", phase: "certs/front-proxy-ca"},
	{name: "kubeconfig", phase: "certs/sa"},
	{name: "kubelet-config", phase: "kubeconfig/scheduler"},
	{name: "etcd", phase: "kubelet-config"},
	{name: "control-plane", phase: "etcd/local"},
	{name: "containerd", phase: "control-plane/scheduler"},
	{name: "images", phase: "supervisor/containerd"},
	{name: "supervise", phase: "supervisor/images"},
	{name: "wait", phase: "supervisor/supervise"},
	{name: "wait, etcd runs", phase: "supervisor/supervise", after: runs("etcd")},
	{name: "wait, scheduler runs", phase: "supervisor/supervise", after: runs("kube-scheduler")},
}

func runs(name string) func() string {
	return func() string {
		if exec.Command("pgrep", "-xf", "^"+name+" .*").Run() != nil {
			return name + " does not run"
		}
		return ""
	}
}

// started is an init in a process group of its own, as a shell makes one, whose lines can be waited for.
type started struct {
	cmd   *exec.Cmd
	lines chan string // of standard error; closed at its end
	seen  []string
}

func startInit(t *testing.T) *started {
	t.Helper()
	s := &started{cmd: exec.Command(slipwayBinary(), "init", "--image-archives", archives()), lines: make(chan string, 1000)}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	errs, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the program
		defer close(s.lines)
		for scanner := bufio.NewScanner(errs); scanner.Scan(); {
			s.lines <- scanner.Text()
		}
	}()
	return s
}

// await returns once the phase's line was printed. It is false if init ended before.
func (s *started) await(phase string) bool {
	for line := range s.lines {
		s.seen = append(s.seen, line)
		if strings.HasPrefix(line, phase+" ") {
			return true
		}
	}
	return false
}

// awaitLock returns once init has the lock.
func (s *started) awaitLock(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat("/var/lib/slipway/init.lock"); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("init never took its lock")
		}
	}
}

// signal ends the process group and returns what init left.
func (s *started) signal(t *testing.T, signal syscall.Signal) result {
	t.Helper()
	began := time.Now()
	if err := syscall.Kill(-s.cmd.Process.Pid, signal); err != nil {
		t.Fatal(err)
	}
	s.await("no phase is called so")
	s.cmd.Wait()
	return result{stderr: strings.Join(s.seen, "\n"), code: s.cmd.ProcessState.ExitCode(), took: time.Since(began)}
}

// interrupt runs init up to a point and ends it there.
func interrupt(t *testing.T, signal syscall.Signal, phase string, after func() string) {
	t.Helper()
	s := startInit(t)
	if phase == "" {
		s.awaitLock(t)
	} else if !s.await(phase) {
		s.cmd.Wait()
		t.Fatalf("init ended before %s was done:\n%s", phase, strings.Join(s.seen, "\n"))
	}
	if after != nil {
		eventually(t, 30*time.Second, "the point to interrupt", after)
	}
	r := s.signal(t, signal)
	last := ""
	for _, line := range s.seen {
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "slipway:") {
			last, _, _ = strings.Cut(line, " ")
		}
	}
	t.Logf("%v after %q; the last line was of %q, and init ended within %v", signal, phase, last, r.took.Round(time.Millisecond))
	if signal == syscall.SIGKILL {
		return
	}
	if r.code != 1 || r.took > 10*time.Second {
		t.Errorf("after %v init ended with exit code %d, after %v:\n%s", signal, r.code, r.took, r.stderr)
	}
	for _, text := range []string{"slipway: interrupted: ", "go on with: slipway init", "take it back with: slipway reset"} {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("after %v init does not say %q:\n%s", signal, text, r.stderr)
		}
	}
}

var signals = []syscall.Signal{syscall.SIGINT, syscall.SIGKILL}

// TestInterruptedInitIsTakenBack: wherever init is ended, reset leaves the machine as it was before.
func TestInterruptedInitIsTakenBack(t *testing.T) {
	before := take(t)
	for _, signal := range signals {
		for _, p := range points {
			t.Run(fmt.Sprintf("%v/%s", signal, p.name), func(t *testing.T) {
				cleanUp(t)
				interrupt(t, signal, p.phase, p.after)
				slipway(t, "reset", "--force").must(t, "slipway reset")
				same(t, before, take(t))
			})
			if t.Failed() {
				return // the next would start from what this one left
			}
		}
	}
}

// TestInterruptedInitIsContinued ends init at one point after the other. Each run goes on where the former was ended,
// and the last one ends with a control plane.
func TestInterruptedInitIsContinued(t *testing.T) {
	for _, signal := range signals {
		t.Run(signal.String(), func(t *testing.T) {
			before := take(t)
			cleanUp(t)
			for _, p := range points {
				interrupt(t, signal, p.phase, p.after)
			}
			slipway(t, "init", "--image-archives", archives()).must(t, "the last slipway init")
			superKubectl(t, "get", "--raw", "/readyz").must(t, "readyz")
			if d := slipway(t, "diff"); d.code != 0 || d.stdout != "" {
				t.Errorf("slipway diff after init: exit code %d\n%s", d.code, d.stdout)
			}
			slipway(t, "reset", "--force").must(t, "slipway reset")
			same(t, before, take(t))
		})
	}
}

// TestTwoInitsAtOnce: the second is told which process the first is, and so is a reset.
func TestTwoInitsAtOnce(t *testing.T) {
	before := take(t)
	cleanUp(t)
	first := startInit(t)
	if !first.await("supervisor/containerd") {
		t.Fatalf("init ended early:\n%s", strings.Join(first.seen, "\n"))
	}
	held := fmt.Sprintf("another slipway, pid %d, is changing this machine", first.cmd.Process.Pid)
	slipway(t, "init", "--image-archives", archives()).refuses(t, held, "wait for its end")
	slipway(t, "reset", "--force").refuses(t, held)
	slipway(t, "init", "--dry-run").must(t, "a preview, which changes nothing")
	first.signal(t, syscall.SIGKILL)
	slipway(t, "reset", "--force").must(t, "slipway reset")
	same(t, before, take(t))
}
