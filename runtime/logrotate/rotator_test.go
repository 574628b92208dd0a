package logrotate

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

// world is a runtime with one container that has a log, and a rotator at work on synctest's clock.
type world struct {
	t        *testing.T
	rt       *critest.Runtime
	id, log  string
	counting sync.Mutex
	written  int           // lines
	said     *bytes.Buffer // the rotator's own log

	mu     sync.Mutex // of what the rotator asks
	logs   map[string]string
	reopen func(ctx context.Context, id string) error
}

// change changes what the rotator gets to see.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// inWorld runs test beside a rotator whose logs are full at 1000 bytes: 10 lines. prepare works before it starts.
func inWorld(t *testing.T, prepare, test func(*world)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, dir)
		if prepare != nil {
			prepare(w)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		r := &Rotator{
			Policy: Policy{MaxSize: 1000, MaxFiles: 4, Workers: 1},
			Running: func(context.Context) (logs map[string]string, err error) {
				w.change(func() { logs = maps.Clone(w.logs) })
				return logs, nil
			},
			Reopen: func(ctx context.Context, id string) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.reopen(ctx, id)
			},
			Log: slog.New(slog.NewTextHandler(w.said, nil)), Now: time.Now,
		}
		go func() { done <- r.Run(ctx) }()
		w.pass(50 * time.Millisecond) // from now on nothing is due at the instants at which the test looks
		test(w)
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run ended with %v", err)
		}
		w.rt.Exit(w.id, 0)
	})
}

func newWorld(t *testing.T, dir string) *world {
	rt := critest.New(critest.Options{Images: []string{"app"}, Logs: true})
	client := cri.New(rt.Conn())
	pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}, LogDirectory: dir}
	sandbox, err := client.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "app"}, LogPath: "0.log",
	}, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "0.log")
	return &world{t: t, rt: rt, id: id, log: log, said: &bytes.Buffer{}, logs: map[string]string{id: log}, reopen: client.ReopenContainerLog}
}

// write has the container write lines of 100 bytes.
func (w *world) write(lines int) {
	w.t.Helper()
	w.counting.Lock()
	defer w.counting.Unlock()
	for range lines {
		if err := w.rt.WriteLog(w.id, fmt.Sprintf("line %094d\n", w.written)); err != nil {
			w.t.Fatal(err)
		}
		w.written++
	}
}

// pass lets time pass, and what is due be done.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// files lists the log's directory, with the lines in each file, and T for the time of a rotation.
func (w *world) files() []string {
	w.t.Helper()
	stamps := regexp.MustCompile(`\.[0-9]{8}-[0-9]{6}`)
	entries, err := os.ReadDir(filepath.Dir(w.log))
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s %d", stamps.ReplaceAllString(e.Name(), ".T"), len(linesOf(w.t, filepath.Join(filepath.Dir(w.log), e.Name())))))
	}
	return out
}

func (w *world) want(files ...string) {
	w.t.Helper()
	if diff := cmp.Diff(files, w.files()); diff != "" {
		w.t.Errorf("after %d lines (-want +got):\n%s\n%s", w.written, diff, w.said)
	}
}

// kept is how many lines there are in all files together.
func (w *world) kept() int {
	n := 0
	for _, f := range w.files() {
		lines, err := strconv.Atoi(f[strings.LastIndexByte(f, ' ')+1:])
		if err != nil {
			w.t.Fatal(err)
		}
		n += lines
	}
	return n
}

// wantLines checks that the files together hold the last n lines that were written, each once and in order.
func (w *world) wantLines(n int) {
	w.t.Helper()
	paths, err := filepath.Glob(w.log + ".*")
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(paths)
	var got []string
	for _, path := range append(paths, w.log) {
		got = append(got, linesOf(w.t, path)...)
	}
	var want []string
	for i := w.written - n; i < w.written; i++ {
		want = append(want, fmt.Sprintf("line %094d", i))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func linesOf(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(path, ".gz") {
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if data, err = io.ReadAll(r); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")[:bytes.Count(data, []byte("\n"))]
}

// TestRotation goes through the life of a log.
func TestRotation(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.write(9)
		w.pass(time.Minute)
		w.want("0.log 9")
		w.write(2)
		w.pass(2 * time.Second)
		w.want("0.log 0", "0.log.T 11")
		w.write(10)
		w.pass(2 * time.Second)
		w.want("0.log 0", "0.log.T.gz 11", "0.log.T 10")
		w.write(10)
		w.pass(2 * time.Second)
		w.write(10)
		w.pass(2 * time.Second)
		w.want("0.log 0", "0.log.T.gz 10", "0.log.T.gz 10", "0.log.T 10")
		w.write(1)
		w.wantLines(31)
		if w.said.Len() > 0 {
			t.Errorf("it complained: %s", w.said)
		}
	})
}

// TestNamesOfParts: a part is named by the time of its rotation, on this machine's clock.
func TestNamesOfParts(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.pass(time.Hour)
		w.write(10)
		w.pass(time.Second)
		parts, err := filepath.Glob(w.log + ".*")
		if err != nil || len(parts) != 1 {
			t.Fatalf("parts %q, %v", parts, err)
		}
		at, err := time.ParseInLocation("20060102-150405", strings.TrimPrefix(parts[0], w.log+"."), time.Local)
		if age := time.Since(at); err != nil || age < 0 || age > 2*time.Second {
			t.Errorf("%s: rotated %s ago by its name (%v)", parts[0], age, err)
		}
	})
}

// TestFlood: a log that grows by ten times its limit each second is looked at oftener, and what is kept of it stays
// near what the policy allows.
func TestFlood(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		most := 0
		for i := range 600 { // a minute
			w.write(10)
			w.pass(100 * time.Millisecond)
			if i > 20 { // it takes a second to see it coming
				most = max(most, w.kept())
			}
		}
		if most > 4*10+10 {
			t.Errorf("of a log of 4 files of 10 lines up to %d lines were kept:\n%s", most, strings.Join(w.files(), "\n"))
		}
		w.pass(2 * time.Second)
		kept := w.kept()
		w.wantLines(kept)
		if kept < 20 {
			t.Errorf("after the flood only %d lines are left", kept)
		}
	})
}

func TestAFailedRotationLosesNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		works, calls := w.reopen, 0
		w.change(func() {
			w.reopen = func(context.Context, string) error { calls++; return errors.New("no such task") }
		})
		w.write(10)
		w.pass(time.Second)
		w.want("0.log 10")
		w.write(5)
		w.pass(5 * time.Second)
		if calls != 1 || strings.Count(w.said.String(), "no such task") != 1 {
			t.Errorf("%d calls within 6 s, want one, and one word about it:\n%s", calls, w.said)
		}
		w.change(func() { w.reopen = works })
		w.pass(6 * time.Second)
		w.write(1)
		w.wantLines(16)
		if files := w.files(); len(files) != 2 {
			t.Errorf("files %q, want the log and one part", files)
		}
	})
}

// TestAnswerThatGotLost: the runtime has begun a new file, and says that it failed. The old one must not be moved over it.
func TestAnswerThatGotLost(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		works := w.reopen
		w.change(func() {
			w.reopen = func(ctx context.Context, id string) error {
				err := works(ctx, id)
				w.write(1)
				return errors.Join(err, errors.New("no answer"))
			}
		})
		w.write(10)
		w.pass(time.Second)
		w.wantLines(11)
		if files := w.files(); len(files) != 2 {
			t.Errorf("files %q, want the log and one part", files)
		}
		if said := w.said.String(); !strings.Contains(said, "no answer") || strings.Contains(said, "moving a log back") {
			t.Errorf("it said %s; want the runtime's failure, and nothing of one of its own", said)
		}
	})
}

// TestKilledInBetween: a rotator that was killed has moved the log and compressed half of another part.
func TestKilledInBetween(t *testing.T) {
	inWorld(t, func(w *world) {
		w.write(3)
		if err := os.Rename(w.log, w.log+".19991231-235959"); err != nil {
			w.t.Fatal(err)
		}
		for name, text := range map[string]string{"19991231-235958": "whole\n", "19991231-235958.tmp": "ha"} {
			if err := os.WriteFile(w.log+"."+name, []byte(text), 0o640); err != nil {
				w.t.Fatal(err)
			}
		}
		w.write(2) // to where it was moved
	}, func(w *world) {
		w.pass(2 * time.Second)
		w.write(1)
		w.want("0.log 1", "0.log.T.gz 1", "0.log.T 5")
	})
}

// TestLogsComeAndGo: a log without a directory is complained of once, one that is not listed any more is left alone.
func TestLogsComeAndGo(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.change(func() { w.logs["gone"] = "/nonexistent/0.log" })
		w.pass(15 * time.Second)
		if n := strings.Count(w.said.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings, want one:\n%s", n, w.said)
		}
		w.change(func() { w.logs = nil })
		w.write(20)
		w.pass(time.Minute)
		w.want("0.log 20")
	})
}

func TestRotationIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		r := &Rotator{Policy: Policy{MaxSize: -1, MaxFiles: 5, Workers: 1}} // anything it would call is nil
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}

// TestCompress: the file keeps its mode; one that changes meanwhile, or whose compression is broken off, stays as it is.
func TestCompress(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log.20261120-120000")
	text := strings.Repeat("line\n", 1000)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := compress(ended, path); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	shrinking := &askedContext{Context: t.Context(), second: func() {
		if err := os.Truncate(path, 10); err != nil {
			t.Fatal(err)
		}
	}}
	if err := compress(shrinking, path); !errors.Is(err, errChanged) {
		t.Errorf("of a file that was changed while it was read: %v", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadDir(dir); err != nil || len(got) != 1 {
		t.Errorf("after two failures: %v, %v; want the file alone", got, err)
	}
	if err := compress(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if got := len(linesOf(t, path+".gz")); got != 1000 {
		t.Errorf("%d lines, want 1000", got)
	}
	if info, err := os.Stat(path + ".gz"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want the file's own mode 0600", info.Mode(), err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the original is still there: %v", err)
	}
	if err := compress(t.Context(), path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a file that is gone: %v", err)
	}
}

// askedContext calls second when it is asked for the second time: after the first read, which had everything.
type askedContext struct {
	context.Context
	asked  int
	second func()
}

func (c *askedContext) Err() error {
	if c.asked++; c.asked == 2 {
		c.second()
	}
	return c.Context.Err()
}
