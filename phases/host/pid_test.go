package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMain lets the test binary play the processes that the tests start.
func TestMain(m *testing.M) {
	if role := os.Getenv("HOST_TEST_ROLE"); role != "" {
		playRole(role)
		return
	}
	os.Exit(m.Run())
}

// startRole runs this binary as role and reaps it in the background, as init would.
func startRole(t *testing.T, role string) ProcessID {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_ROLE="+role)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // one byte says that its signal handlers stand
		t.Fatal(err)
	}
	id, err := IdentifyProcess(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	reaped := make(chan struct{})
	go func() { cmd.Wait(); close(reaped) }() //nolint:errcheck // how it ends is the test's matter
	t.Cleanup(func() { cmd.Process.Kill(); <-reaped })
	return id
}

func TestStopProcessEndsIt(t *testing.T) {
	for _, tc := range []struct {
		role  string
		grace time.Duration
	}{
		{"obedient", time.Minute},
		{"stubborn", 10 * time.Millisecond}, // ignores SIGTERM
	} {
		t.Run(tc.role, func(t *testing.T) {
			id := startRole(t, tc.role)
			if !id.Running() {
				t.Fatal("the helper does not run")
			}
			if err := StopProcess(t.Context(), id, tc.grace); err != nil {
				t.Fatal(err)
			}
			if id.Running() {
				t.Error("still running")
			}
		})
	}
}

func TestStopProcessLeavesAnotherProcessWithThatPidAlone(t *testing.T) {
	id := startRole(t, "obedient")
	former := ProcessID{PID: id.PID, Start: id.Start - 1}
	if former.Running() {
		t.Error("a process with another start time counts as running")
	}
	if err := StopProcess(t.Context(), former, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if !id.Running() {
		t.Error("the process that uses the pid now was stopped")
	}
}

func TestStopProcessHeedsItsContext(t *testing.T) {
	id := startRole(t, "stubborn")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := StopProcess(ctx, id, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if !id.Running() {
		t.Error("killed although the caller gave up")
	}
}

func TestStatFieldsWithHostileProgramNames(t *testing.T) {
	fields, err := statFields("42 (a) R ) (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20\n")
	if err != nil || fields[0] != "S" || fields[19] != "4711" {
		t.Errorf("got %v, %v", fields, err)
	}
	if _, err := statFields("42 a"); err == nil {
		t.Error("a malformed line is accepted")
	}
}
