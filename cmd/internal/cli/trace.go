package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases"
)

// trace collects a run's timeline in the Chrome trace event format, which chrome://tracing and Perfetto open.
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
type trace struct {
	mu     sync.Mutex
	start  time.Time
	tracks map[string]int
	Events []traceEvent `json:"traceEvents"`
}

type traceEvent struct {
	Name      string            `json:"name"`
	Category  string            `json:"cat"`
	Type      string            `json:"ph"`            // X: complete, i: instant, M: metadata
	At        int64             `json:"ts"`            // µs since the start
	Duration  int64             `json:"dur,omitempty"` // µs
	Process   int               `json:"pid"`
	Track     int               `json:"tid"`
	Scope     string            `json:"s,omitempty"`
	Arguments map[string]string `json:"args,omitempty"`
}

func newTrace(start time.Time) *trace { return &trace{start: start, tracks: map[string]int{}} }

func (t *trace) since(at time.Time) int64 { return at.Sub(t.start).Microseconds() }

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

// event adds a phase's end as a bar, and its notes and progress as marks.
func (t *trace) event(e phases.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e.Kind {
	case phases.PhaseDone, phases.PhaseFailed:
		t.Events = append(t.Events, traceEvent{Name: e.Phase, Category: "phase", Type: "X", At: t.since(e.Time.Add(-e.Elapsed)),
			Duration: e.Elapsed.Microseconds(), Process: 1, Track: t.track("phases")})
	case phases.Note, phases.Progress:
		if e.Text != "" {
			t.Events = append(t.Events, traceEvent{Name: e.Text, Category: "note", Type: "i", Scope: "t", At: t.since(e.Time), Process: 1, Track: t.track(e.Phase)})
		}
	}
}

// span adds a bar of its own, such as a container's start until its readiness.
func (t *trace) span(track, name string, from, to time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Events = append(t.Events, traceEvent{Name: name, Category: "pod", Type: "X", At: t.since(from), Duration: to.Sub(from).Microseconds(), Process: 1, Track: t.track(track)})
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
