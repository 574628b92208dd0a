package host

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// book is a ledger that remembers what it was told, in order.
type book struct {
	lines []string
	owned []string
	start func(Process) // called at every record of a process
}

func (b *book) Process(p Process) error {
	state := "running"
	if p.PID == 0 {
		state = "about to start"
	}
	b.lines = append(b.lines, p.Name+" "+state)
	if b.start != nil {
		b.start(p)
	}
	return nil
}

func (b *book) Unit(name string) error { b.lines = append(b.lines, "unit "+name); return nil }
func (b *book) Tree(path string) error { b.lines = append(b.lines, "tree "+path); return nil }
func (b *book) Owns(path string) bool  { return slices.Contains(b.owned, path) }

// helper is a service that this test binary plays.
func helper(t *testing.T, role string) (*processes, service, *book) {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "s.sock")
	must(t, os.WriteFile(filepath.Join(dir, "config"), []byte("one"), 0o600))
	ledger := &book{}
	p := &processes{files: artifact.Disk{}, ledger: ledger, environ: append(os.Environ(), "HOST_TEST_ROLE="+role), grace: restartGrace}
	s := service{
		Name: "helper", Argv: []string{os.Args[0], socket}, Configs: []string{filepath.Join(dir, "config")},
		PIDFile: filepath.Join(dir, "run", "helper.pid"), LogFile: filepath.Join(dir, "log", "helper.log"),
		Ready: func(ctx context.Context) error { return knock(ctx, socket) },
	}
	t.Cleanup(func() {
		if id, ok := findProcess("/proc", s.Argv); ok {
			if err := StopProcess(context.Background(), id, 0); err != nil {
				t.Error(err)
			}
		}
	})
	return p, s, ledger
}

func pidOf(t *testing.T, s service) pidFile {
	t.Helper()
	data, err := os.ReadFile(s.PIDFile)
	must(t, err)
	var f pidFile
	must(t, json.Unmarshal(data, &f))
	return f
}

func ensure(t *testing.T, p *processes, s service, wantStarted bool) pidFile {
	t.Helper()
	started, err := p.ensure(t.Context(), s)
	must(t, err)
	if started != wantStarted {
		t.Errorf("started %t, want %t", started, wantStarted)
	}
	return pidOf(t, s)
}

func TestProcessIsRecordedBeforeItStarts(t *testing.T) {
	p, s, ledger := helper(t, "server")
	ledger.start = func(record Process) {
		if _, running := findProcess("/proc", s.Argv); record.PID == 0 && running {
			t.Error("it ran before it was recorded")
		}
	}
	first := ensure(t, p, s, true)
	if want := []string{"helper about to start", "helper running"}; !slices.Equal(ledger.lines, want) {
		t.Errorf("ledger %q, want %q", ledger.lines, want)
	}
	if session, err := unix.Getsid(first.PID); err != nil || session != first.PID {
		t.Errorf("it runs in session %d, not in its own (%v)", session, err)
	}
	for path, mode := range map[string]os.FileMode{s.LogFile: 0o600, s.PIDFile: 0o600, filepath.Dir(s.LogFile): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, want %o (%v)", path, info.Mode(), mode, err)
		}
	}
}

// A lock that the caller holds in an inherited descriptor, as flock(1) does, must not be held by the daemon for ever.
func TestProcessInheritsNoOpenFiles(t *testing.T) {
	p, s, _ := helper(t, "server")
	held := filepath.Join(t.TempDir(), "lock")
	file, err := os.Create(held)
	must(t, err)
	defer file.Close()
	inheritable, err := unix.Dup(int(file.Fd())) // without close-on-exec
	must(t, err)
	defer unix.Close(inheritable)
	started := ensure(t, p, s, true)
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", started.PID))
	must(t, err)
	if len(open) == 0 {
		t.Fatal("the descriptors of the process cannot be read")
	}
	for _, fd := range open {
		if target, err := os.Readlink(fd); err == nil && target == held {
			t.Errorf("%s is %s", fd, held)
		}
	}
}

func TestProcessThatRunsIsLeftAlone(t *testing.T) {
	p, s, _ := helper(t, "server")
	first := ensure(t, p, s, true)
	if again := ensure(t, p, s, false); again.ProcessID != first.ProcessID {
		t.Errorf("process %v became %v", first.ProcessID, again.ProcessID)
	}
}

func TestProcessStartsAgainWithAChangedConfiguration(t *testing.T) {
	p, s, _ := helper(t, "server")
	first := ensure(t, p, s, true)
	must(t, os.WriteFile(s.Configs[0], []byte("two"), 0o600))
	second := ensure(t, p, s, true)
	if first.Running() || !second.Running() {
		t.Errorf("first running %t, second running %t", first.Running(), second.Running())
	}
}

func TestProcessWithoutPIDFileIsFound(t *testing.T) {
	p, s, _ := helper(t, "server")
	first := ensure(t, p, s, true)
	must(t, os.Remove(s.PIDFile)) // as if slipway had been killed before it wrote it
	ensure(t, p, s, true)
	if first.Running() {
		t.Error("two of them run")
	}
}

func TestPIDFileOfAnotherProcessIsNotTrusted(t *testing.T) {
	p, s, _ := helper(t, "server")
	stranger := startRole(t, "obedient")
	must(t, os.MkdirAll(filepath.Dir(s.PIDFile), 0o755))
	data, err := json.Marshal(pidFile{ProcessID: ProcessID{PID: stranger.PID, Start: stranger.Start - 1}})
	must(t, err)
	must(t, os.WriteFile(s.PIDFile, data, 0o600))
	ensure(t, p, s, true)
	if !stranger.Running() {
		t.Error("a process that only shares the pid was stopped")
	}
}

func TestProcessThatEndsAtOnceSaysWhy(t *testing.T) {
	p, s, _ := helper(t, "broken")
	_, err := p.ensure(t.Context(), s)
	if err == nil {
		t.Fatal("no error")
	}
	want := "starting helper: exit status 3: ended while starting; its last log lines:\n" +
		"    first line\n    Error: unknown flag: --no-such-flag\n" +
		"  likely cause: the flag --no-such-flag is not one that helper knows: check its extraArgs\n" +
		"  next: read " + s.LogFile
	if got := err.Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if strings.HasSuffix(err.Error(), "\n") {
		t.Error("ends in an empty line")
	}
}
