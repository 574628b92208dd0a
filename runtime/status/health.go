package status

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Health knows whether the parts of a supervisor are alive: each says so again and again. It is safe for several
// goroutines. Use NewHealth.
type Health struct {
	now func() time.Time

	mu    sync.Mutex
	parts map[string]part
}

type part struct {
	limit time.Duration // between two beats
	last  time.Time
	err   error
}

// NewHealth returns the health of something that has no parts yet, and so is well.
func NewHealth(now func() time.Time) *Health { return &Health{now: now, parts: map[string]part{}} }

// Expect begins to count on a part: it is unwell when it stays silent for longer than limit.
func (h *Health) Expect(name string, limit time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts[name] = part{limit: limit, last: h.now()}
}

// Beat says that a part is alive, and whether it is well. One that nobody expects is ignored.
func (h *Health) Beat(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p, known := h.parts[name]; known {
		p.last, p.err = h.now(), err
		h.parts[name] = p
	}
}

// Check returns nil while every part has been heard of in time and was well, else what is wrong with each that was not.
func (h *Health) Check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for name, p := range h.parts {
		if err := p.check(h.now()); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// OK tells whether one part is well.
func (h *Health) OK(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, known := h.parts[name]
	return known && p.check(h.now()) == nil
}

func (p part) check(now time.Time) error {
	if silent := now.Sub(p.last); silent > p.limit {
		return fmt.Errorf("nothing was heard of it for %s", silent.Round(time.Second))
	}
	return p.err
}
