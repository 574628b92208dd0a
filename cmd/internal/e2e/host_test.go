//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// repository is the checkout: tests run in their package's directory.
var repository = func() string {
	dir, err := filepath.Abs("../../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

func slipwayBinary() string      { return filepath.Join(repository, "bin/slipway") }
func archives() string           { return filepath.Join(repository, "bin/images") }
func program(name string) string { return filepath.Join(repository, "bin/k8s", name) }

// TestMain refuses to run where a control plane may already be: these tests use the real paths of the machine.
func TestMain(m *testing.M) {
	lock, err := exclusive()
	if err == nil {
		err = suitable()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	lock.Close()
	os.Exit(code)
}

// exclusive returns once no other run has a control plane on this machine, and keeps others waiting until the file is
// closed. Nothing that a test starts inherits it.
func exclusive() (*os.File, error) {
	path := filepath.Join(os.TempDir(), "slipway-e2e.lock")
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of these tests: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
		return lock, nil
	}
	fmt.Fprintf(os.Stderr, "e2e: waiting for another run to release %s\n", path)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("waiting for the lock of these tests: %w", err)
	}
	return lock, nil
}

func suitable() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests must run as root: they start a real control plane")
	}
	for _, path := range []string{"/etc/kubernetes", "/var/lib/etcd", "/var/lib/slipway"} {
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("%s exists: this machine is, or was, a Kubernetes node; the tests would destroy it", path)
		}
	}
	for _, path := range []string{slipwayBinary(), filepath.Join(archives(), "etcd.tar"), program("kubectl")} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w; run make build programs", err)
		}
	}
	return nil
}

// lacking passes over a test for want of something on this machine. In CI, which installs what the tests need, the want
// is the failure: nothing may go untested there without a word.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

// slipway runs the binary and returns what it left; only a failure to run it at all fails the test.
func slipway(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, 3*time.Minute, slipwayBinary(), args...)
}

func run(t *testing.T, limit time.Duration, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %s %q: %v", name, args, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(start)}
}

// must fails the test unless the command ended well.
func (r result) must(t *testing.T, what string) result {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("%s: exit code %d\nstdout:\n%s\nstderr:\n%s", what, r.code, r.stdout, r.stderr)
	}
	return r
}

// initialised turns the machine into a node, and back when the test ends, whatever happened in between.
func initialised(t *testing.T, args ...string) result {
	t.Helper()
	cleanUp(t)
	return slipway(t, append([]string{"init", "--image-archives", archives()}, args...)...).must(t, "slipway init")
}

// cleanUp resets at the test's end. A reset that fails is the test's failure too.
func cleanUp(t *testing.T) {
	t.Cleanup(func() {
		if t.Failed() {
			for _, log := range []string{"/var/log/slipway/supervise.log", "/var/log/slipway/containerd.log"} {
				if data, err := os.ReadFile(log); err == nil {
					t.Logf("%s:\n%s", log, tail(string(data), 60))
				}
			}
		}
		slipway(t, "reset", "--force").must(t, "slipway reset")
	})
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// superKubectl runs the real kubectl against the node, with the credentials that need no role binding.
func superKubectl(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, time.Minute, program("kubectl"), append([]string{"--kubeconfig", "/etc/kubernetes/super-admin.conf", "--cache-dir", t.TempDir()}, args...)...)
}

// container is one row of `slipway ps -o json`.
type container struct {
	Container, ID, State, Pod string
	Ready                     bool
	Attempt                   int
}

// ps returns the node's containers by name.
func ps(t *testing.T) map[string]container {
	t.Helper()
	var rows []container
	r := slipway(t, "ps", "-o", "json").must(t, "slipway ps")
	if err := json.Unmarshal([]byte(r.stdout), &rows); err != nil {
		t.Fatalf("reading slipway ps: %v\n%s", err, r.stdout)
	}
	out := map[string]container{}
	for _, row := range rows {
		out[row.Container] = row
	}
	return out
}

// finding is one of doctor's.
type finding struct{ Severity, Check, Message, Fix string }

// diagnosis is what `slipway doctor -o json` printed, and how long that took.
type diagnosis struct {
	Verdict      string
	ControlPlane *bool
	Findings     []finding
	took         time.Duration
}

// doctor returns the diagnosis of a machine with a control plane. Its exit code and its verdict agree with what it found,
// or the test fails.
func doctor(t *testing.T, args ...string) diagnosis {
	t.Helper()
	r := slipway(t, append([]string{"doctor", "-o", "json"}, args...)...)
	d := diagnosis{took: r.took}
	if err := json.Unmarshal([]byte(r.stdout), &d); err != nil {
		t.Fatalf("reading slipway doctor: %v\n%s%s", err, r.stdout, r.stderr)
	}
	verdict := "ok"
	for _, f := range d.Findings {
		if f.Severity == "error" || f.Severity == "warning" && verdict == "ok" {
			verdict = f.Severity
		}
	}
	if code := map[string]int{"ok": 0, "warning": 2, "error": 3}[verdict]; d.Verdict != verdict || r.code != code || d.ControlPlane == nil || !*d.ControlPlane {
		t.Fatalf("slipway doctor: exit code %d for %q\n%s%s", r.code, verdict, r.stdout, r.stderr)
	}
	return d
}

// eventually waits until check returns "", else fails with what it last returned. It looks every 50 ms.
func eventually(t *testing.T, limit time.Duration, what string, check func() string) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(limit)
	for {
		last := check()
		if last == "" {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v: %s", what, limit, last)
		case <-ticker.C:
		}
	}
}

// healthy says why a component is not running and ready, or "".
func healthy(t *testing.T, names ...string) func() string {
	return func() string {
		have := ps(t)
		for _, name := range names {
			if c, ok := have[name]; !ok || c.State != "Running" || !c.Ready {
				return fmt.Sprintf("%s: %+v", name, c)
			}
		}
		return ""
	}
}
