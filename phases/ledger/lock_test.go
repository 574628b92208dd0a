package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const lockPath = "/var/lib/slipway/init.lock"

// TestMain lets the test binary be the other slipway: it takes the lock, says so, and holds it until its input ends.
func TestMain(m *testing.M) {
	if root := os.Getenv("LEDGER_TEST_LOCK"); root != "" {
		release, err := Lock(root, lockPath)
		fmt.Println("locked", err)
		bufio.NewReader(os.Stdin).ReadString('\n')
		if err == nil {
			release()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestTheSecondOfTwoIsToldTheFirstsPID(t *testing.T) {
	root := t.TempDir()
	first := exec.CommandContext(t.Context(), os.Args[0])
	first.Env = append(os.Environ(), "LEDGER_TEST_LOCK="+root)
	in, err := first.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "locked <nil>\n" {
		t.Fatalf("the first says %q", line)
	}

	_, err = Lock(root, lockPath)
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != first.Process.Pid {
		t.Errorf("error %v, want one with pid %d", err, first.Process.Pid)
	}
	want := fmt.Sprintf("another slipway, pid %d, is changing this machine and holds %q: wait for its end, then run the same command again",
		first.Process.Pid, filepath.Join(root, lockPath))
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}

	if err := first.Process.Kill(); err != nil { // it leaves its file, which must not stop the next one
		t.Fatal(err)
	}
	_ = first.Wait()
	_ = in.Close()
	release, err := Lock(root, lockPath)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

func TestReleaseLeavesNothing(t *testing.T) {
	root := t.TempDir()
	release, err := Lock(root, lockPath)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, lockPath))
	if err != nil || strings.TrimSpace(string(data)) != fmt.Sprint(os.Getpid()) {
		t.Errorf("the lock holds %q, %v", data, err)
	}
	release()
	if _, err := os.Stat(filepath.Join(root, "var/lib/slipway")); err == nil {
		t.Error("the directory that Lock made is still there")
	}

	populate(t, root, "var/lib/slipway/")
	release, err = Lock(root, lockPath)
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := os.Stat(filepath.Join(root, "var/lib/slipway")); err != nil {
		t.Errorf("a directory that Lock did not make is gone: %v", err)
	}
}

func TestReleaseLeavesTheLockOfTheNextOne(t *testing.T) {
	root := t.TempDir()
	first, err := Lock(root, lockPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := Discard(root, path, lockPath); err != nil { // the end of a reset
		t.Fatal(err)
	}
	second, err := Lock(root, lockPath)
	if err != nil {
		t.Fatal(err)
	}
	first()
	if _, err := os.Stat(filepath.Join(root, lockPath)); err != nil {
		t.Errorf("the second's lock: %v", err)
	}
	second()
}

func TestHolder(t *testing.T) {
	root := t.TempDir()
	if pid := Holder(root, "/init.lock"); pid != 0 {
		t.Errorf("without a lock: %d", pid)
	}
	release, err := Lock(root, "/init.lock")
	if err != nil {
		t.Fatal(err)
	}
	if pid := Holder(root, "/init.lock"); pid != os.Getpid() {
		t.Errorf("while it is held: %d, want %d", pid, os.Getpid())
	}
	release()
	if err := os.WriteFile(filepath.Join(root, "init.lock"), []byte("4194999\n"), 0o600); err != nil { // above the kernel's largest pid
		t.Fatal(err)
	}
	if pid := Holder(root, "/init.lock"); pid != 0 {
		t.Errorf("of a process that is gone: %d", pid)
	}
}
