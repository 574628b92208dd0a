package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// play reports the events of a small init. Their times are seconds after its begin.
func play(report func(phases.Event)) {
	at := func(seconds float64, e phases.Event) {
		e.Time = began.Add(time.Duration(seconds * float64(time.Second)))
		report(e)
	}
	key := artifact.File{Path: "/etc/kubernetes/pki/ca.key", Mode: 0o600, Secret: true}
	at(0, phases.Event{Kind: phases.PhaseStarted, Phase: "preflight"})
	at(0, phases.Event{Kind: phases.Warning, Phase: "preflight", Text: "[Swap] swap is on"})
	at(.01, phases.Event{Kind: phases.PhaseDone, Phase: "preflight", Elapsed: 10 * time.Millisecond})
	at(.01, phases.Event{Kind: phases.PhaseStarted, Phase: "certs/ca"})
	at(.02, phases.Event{Kind: phases.Changed, Phase: "certs/ca", Change: artifact.Change{Op: artifact.Create, After: &artifact.File{Path: "/etc/kubernetes", Mode: fs.ModeDir | 0o755}}})
	at(.02, phases.Event{Kind: phases.Changed, Phase: "certs/ca", Change: artifact.Change{Op: artifact.Create, After: &key}})
	at(.02, phases.Event{Kind: phases.Changed, Phase: "certs/ca", Change: artifact.Change{Before: &key, After: &key}})
	at(.02, phases.Event{Kind: phases.PhaseDone, Phase: "certs/ca", Elapsed: 10 * time.Millisecond})
	at(.02, phases.Event{Kind: phases.PhaseStarted, Phase: "supervisor/images"})
	at(.02, phases.Event{Kind: phases.Begun, Phase: "supervisor/images"})
	for _, step := range []struct {
		at   float64
		name string
		done int64
	}{{.1, "etcd", 0}, {.2, "kube-apiserver", 0}, {.5, "etcd", 400}, {.6, "kube-apiserver", 100}, {.7, "etcd", 1000}, {.9, "kube-apiserver", 1000}} {
		at(step.at, phases.Event{Kind: phases.Progress, Phase: "supervisor/images", Text: "importing " + step.name + ".tar", Done: step.done, Total: 1000, Unit: "B"})
	}
	at(.9, phases.Event{Kind: phases.Note, Phase: "supervisor/images", Text: "imported etcd.tar (0.6 s)"})
	at(1, phases.Event{Kind: phases.Joined, Phase: "supervisor/images", Elapsed: 980 * time.Millisecond})
	at(1, phases.Event{Kind: phases.PhaseDone, Phase: "supervisor/images", Elapsed: 980 * time.Millisecond})
	at(1, phases.Event{Kind: phases.PhaseStarted, Phase: "wait-control-plane"})
	at(2, phases.Event{Kind: phases.Progress, Phase: "wait-control-plane", Text: "waiting for etcd: starting", Total: 4, Unit: "pods"})
	at(12, phases.Event{Kind: phases.Progress, Phase: "wait-control-plane", Text: "waiting for etcd: running, not ready", Total: 4, Unit: "pods"})
	at(14, phases.Event{Kind: phases.Note, Phase: "wait-control-plane", Text: "etcd ready (13.0 s)"})
	at(15, phases.Event{Kind: phases.PhaseFailed, Phase: "wait-control-plane", Elapsed: 14 * time.Second, Err: errors.New("no")})
}

const played = `warning: [Swap] swap is on
preflight                                   10 ms
certs/ca                                    10 ms
  create /etc/kubernetes/ 0755
  create /etc/kubernetes/pki/ca.key 0600
supervisor/images                          980 ms
  imported etcd.tar (0.6 s)
`

// TestPlainLinesOffATerminal: one line per phase, with what it did below it. Steps of long work show only once
// nothing was printed for a while.
func TestPlainLinesOffATerminal(t *testing.T) {
	var out bytes.Buffer
	u := newUI(Streams{Err: &out}, false, nil)
	play(u.report)
	u.close()
	want := played + `  wait-control-plane: waiting for etcd: running, not ready
wait-control-plane                         14.0 s  failed
  etcd ready (13.0 s)
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	if len(u.changes) != 2 {
		t.Errorf("%d changes are kept for -o json; unchanged files are none: %v", len(u.changes), u.changes)
	}
}

func TestPreviewSaysWould(t *testing.T) {
	var out bytes.Buffer
	u := newUI(Streams{Err: &out}, true, nil)
	play(u.report)
	u.close()
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if strings.Contains(line, "create") && !strings.HasPrefix(line, "  would create /") {
			t.Errorf("a preview prints %q", line)
		}
	}
}

// screen is what a terminal shows after these bytes.
func screen(t *testing.T, written string) string {
	t.Helper()
	lines, column := [][]rune{nil}, 0
	for rest := written; rest != ""; {
		line := &lines[len(lines)-1]
		switch {
		case strings.HasPrefix(rest, "\033[2K"):
			*line, rest = nil, rest[4:]
		case strings.HasPrefix(rest, "\033[0K"):
			*line, rest = (*line)[:min(column, len(*line))], rest[4:]
		case rest[0] == '\033':
			t.Fatalf("an unknown control sequence in %q", rest[:min(8, len(rest))])
		case rest[0] == '\r':
			column, rest = 0, rest[1:]
		case rest[0] == '\n':
			lines, column, rest = append(lines, nil), 0, rest[1:]
		default:
			for _, r := range rest {
				for len(*line) <= column {
					*line = append(*line, ' ')
				}
				(*line)[column] = r
				column++
				rest = rest[len(string(r)):]
				break
			}
		}
	}
	var b strings.Builder
	for i, line := range lines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimRight(string(line), " "))
	}
	return b.String()
}

// TestTerminalKeepsOnlyTheLines: bars and spinners come and go on the last line.
func TestTerminalKeepsOnlyTheLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		u := &ui{out: &out}
		u.live = newActivity(&u.mu, terminal{&out, func() int { return 80 }})
		play(func(e phases.Event) {
			time.Sleep(max(0, e.Time.Sub(began)-time.Since(start()))) // the fake clock's: the bars are drawn meanwhile
			u.report(e)
		})
		u.close()
		want := played + "wait-control-plane                         14.0 s  failed\n  etcd ready (13.0 s)\n"
		if diff := cmp.Diff(want, screen(t, out.String())); diff != "" {
			t.Errorf("- want, + what stays on the terminal:\n%s", diff)
		}
		for _, shown := range []string{"importing etcd.tar and 1 more", "importing kube-apiserver.tar ", "waiting for etcd: running, not ready", " wait-control-plane"} {
			if !strings.Contains(out.String(), shown) {
				t.Errorf("%q was never shown", shown)
			}
		}
		for _, frame := range regexp.MustCompile(`[\r\n]`).Split(out.String(), -1) {
			if n := len([]rune(strings.ReplaceAll(frame, "\033[0K", ""))); n > 80 {
				t.Errorf("a line of %d columns on a terminal of 80: %q", n, frame)
			}
		}
	})
}

// start is the time at which a synctest bubble begins.
func start() time.Time { return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) }

func readTrace(t *testing.T, tr *trace) (names map[string]traceEvent, rows map[int]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.json")
	if err := tr.write(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TraceEvents []traceEvent `json:"traceEvents"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	names, rows = map[string]traceEvent{}, map[int]string{}
	for _, e := range file.TraceEvents {
		if e.Type == "M" {
			rows[e.Track] = e.Arguments["name"]
			continue
		}
		names[e.Name] = e
	}
	return names, rows
}

// TestTraceShowsPhases: a phase is a bar, its early part another on a row of its own, and steps are marks.
func TestTraceShowsPhases(t *testing.T) {
	tr := newTrace(began)
	play(tr.event)
	names, rows := readTrace(t, tr)
	for name, want := range map[string]string{
		"certs/ca":                       "phases X 10000 +10000",
		"supervisor/images":              "phases X 20000 +980000",
		"supervisor/images (early part)": "supervisor/images X 20000 +980000",
		"wait-control-plane":             "phases X 1000000 +14000000",
		"importing etcd.tar":             "supervisor/images i 100000 +0",
		"imported etcd.tar (0.6 s)":      "supervisor/images i 900000 +0",
		"etcd ready (13.0 s)":            "wait-control-plane i 14000000 +0",
	} {
		e, ok := names[name]
		if got := fmt.Sprintf("%s %s %d +%d", rows[e.Track], e.Type, e.At, e.Duration); !ok || got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
	if got := names["wait-control-plane"].Arguments["error"]; got != "no" {
		t.Errorf("the failed phase says %q of its error", got)
	}
}

// TestTraceShowsContainers: when a container starts, is ready, and exits, by the moments at which it was told.
func TestTraceShowsContainers(t *testing.T) {
	tr := newTrace(began)
	p := newPodTimes(tr)
	look := func(seconds float64, c corev1.ContainerStatus) {
		c.Name = "etcd"
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-cp-1"}, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{c}}}
		p.see([]corev1.Pod{pod}, began.Add(time.Duration(seconds*float64(time.Second))))
	}
	running := func() corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(began)}}
	}
	gone := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "containerd://a", ExitCode: 2}}
	look(1, corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}})
	look(1.5, corev1.ContainerStatus{ContainerID: "containerd://a", State: running()})
	look(2, corev1.ContainerStatus{ContainerID: "containerd://b", RestartCount: 1, State: running(), LastTerminationState: gone})
	look(4, corev1.ContainerStatus{ContainerID: "containerd://b", RestartCount: 1, State: running(), LastTerminationState: gone, Ready: true})
	look(5, corev1.ContainerStatus{ContainerID: "containerd://b", RestartCount: 1, State: running(), LastTerminationState: gone, Ready: true})

	names, rows := readTrace(t, tr)
	got := map[string]string{}
	for name, e := range names {
		if rows[e.Track] != "pod etcd-cp-1" {
			t.Errorf("%q is on the row %q", name, rows[e.Track])
		}
		got[name] = fmt.Sprintf("%s %d +%d", e.Type, e.At, e.Duration)
	}
	want := map[string]string{
		"starting etcd (attempt 0)":    "X 1000000 +500000",
		"etcd (attempt 0) started":     "i 1500000 +0",
		"etcd exited with code 2":      "i 2000000 +0",
		"starting etcd (attempt 1)":    "X 2000000 +1",
		"etcd (attempt 1) started":     "i 2000000 +0",
		"etcd (attempt 1) until ready": "X 2000000 +2000000",
		"etcd (attempt 1) ready":       "i 4000000 +0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestErrorsAreOnLinesOfTheirOwn(t *testing.T) {
	var out bytes.Buffer
	err := withHint(errors.Join(errors.New("one:\n    detail"), errors.New("two")), "do this\nor that")
	if code := fail(&out, err); code != 1 {
		t.Errorf("exit code %d", code)
	}
	want := "slipway: one:\n    detail\nslipway: two\n  do this\n  or that\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	out.Reset()
	if code := fail(&out, &exit{code: 2}); code != 2 || out.Len() > 0 {
		t.Errorf("an exit code without a message gives %d and prints %q", code, &out)
	}
}

// TestReportFromManyGoroutines is for the race detector.
func TestReportFromManyGoroutines(t *testing.T) {
	var out bytes.Buffer
	u := newUI(Streams{Err: &out}, false, newTrace(began))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { play(u.report) })
	}
	all.Wait()
	u.close()
}
