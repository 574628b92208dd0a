package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases"
)

// trace collects a run's timeline in the Chrome trace event format, which chrome://tracing and Perfetto open. It may be
// used from several goroutines.
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
type trace struct {
	mu     sync.Mutex
	start  time.Time
	tracks map[string]int
	Events []traceEvent `json:"traceEvents"`
}

type traceEvent struct {
	Name      string            `json:"name"`
	Category  string            `json:"cat,omitempty"`
	Type      string            `json:"ph"`            // X: complete, i: instant, M: metadata
	At        int64             `json:"ts"`            // µs since the start
	Duration  int64             `json:"dur,omitempty"` // µs
	Process   int               `json:"pid"`
	Track     int               `json:"tid"`
	Scope     string            `json:"s,omitempty"`
	Arguments map[string]string `json:"args,omitempty"`
}

func newTrace(start time.Time) *trace { return &trace{start: start, tracks: map[string]int{}} }

// since is a time in the trace's unit. What happened before the run is put at its start.
func (t *trace) since(at time.Time) int64 { return max(0, at.Sub(t.start).Microseconds()) }

// track returns the row of a name, making it at its first use.
func (t *trace) track(name string) int {
	if id, ok := t.tracks[name]; ok {
		return id
	}
	id := len(t.tracks) + 1
	t.tracks[name] = id
	t.Events = append(t.Events, traceEvent{Name: "thread_name", Type: "M", Process: 1, Track: id, Arguments: map[string]string{"name": name}})
	return id
}

// event adds a phase as a bar on the row of phases. Its early part, which runs beside others, is a bar on a row of its
// own, and its notes and steps are marks there.
func (t *trace) event(e phases.Event) {
	switch e.Kind {
	case phases.PhaseDone, phases.PhaseFailed:
		t.span("phases", "phase", e.Phase, e.Time.Add(-e.Elapsed), e.Time, failure(e.Err))
	case phases.Joined:
		t.span(e.Phase, "early", e.Phase+" (early part)", e.Time.Add(-e.Elapsed), e.Time, failure(e.Err))
	case phases.Note, phases.Warning, phases.Progress:
		if e.Text != "" && (e.Unit != "B" || e.Done == 0) { // a transfer is marked once
			t.mark(e.Phase, e.Kind.String(), e.Text, e.Time)
		}
	}
}

// failure is what a bar says about an error.
func failure(err error) map[string]string {
	if err == nil {
		return nil
	}
	return map[string]string{"error": err.Error()}
}

// span adds a bar to the row of that name.
func (t *trace) span(row, category, name string, from, to time.Time, arguments map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.since(from)
	t.Events = append(t.Events, traceEvent{Name: name, Category: category, Type: "X", At: at, Duration: max(1, t.since(to)-at),
		Process: 1, Track: t.track(row), Arguments: arguments})
}

// mark adds a moment to the row of that name.
func (t *trace) mark(row, category, name string, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Events = append(t.Events, traceEvent{Name: name, Category: category, Type: "i", Scope: "t", At: t.since(at), Process: 1, Track: t.track(row)})
}

// write puts the timeline into a file that only its owner reads.
func (t *trace) write(path string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	data, err := json.MarshalIndent(t, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the timeline: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the timeline: %w", err)
	}
	return nil
}
