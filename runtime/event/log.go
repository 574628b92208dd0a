package event

import (
	"slices"
	"sync"
	"time"
)

// keep is how many events are remembered: some hours of trouble on a node with a dozen pods, in half a megabyte.
const keep = 1000

// Log remembers the latest events. It is safe for several goroutines. Use NewLog; a nil *Log forgets everything.
type Log struct {
	now func() time.Time

	mu      sync.Mutex
	events  []Event // by Number, oldest first
	number  uint64
	changed chan struct{} // closed and replaced at every event
}

// NewLog returns an empty log.
func NewLog(now func() time.Time) *Log { return &Log{now: now, changed: make(chan struct{})} }

// Record remembers an event. Of e, only Pod, UID, Container, Type, Reason and Message count. The same event again is
// the same entry with a higher count, moved to the end.
func (l *Log) Record(e Event) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	now := l.now()
	e.Number, e.First, e.Last, e.Count = l.number, now, now, 1
	for i, old := range l.events {
		if old.Pod == e.Pod && old.UID == e.UID && old.Container == e.Container && old.Type == e.Type && old.Reason == e.Reason && old.Message == e.Message {
			e.First, e.Count = old.First, old.Count+1
			l.events = append(l.events[:i], l.events[i+1:]...)
			break
		}
	}
	l.events = append(l.events, e)
	if extra := len(l.events) - keep; extra > 0 {
		l.events = slices.Delete(l.events, 0, extra) // in place: Since hands out copies
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Since returns the events with a Number greater than number, oldest first, and a channel that is closed at the next
// one.
func (l *Log) Since(number uint64) ([]Event, <-chan struct{}) {
	if l == nil {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Event
	for _, e := range l.events {
		if e.Number > number {
			out = append(out, e)
		}
	}
	return out, l.changed
}
