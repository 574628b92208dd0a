package logrotate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// maxPause is how often the size of every log is looked at. The kubelet's containerLogMonitorInterval is 10 s, in
	// which a container can write a gigabyte; a look at 200 logs takes less than a millisecond.
	maxPause = time.Second
	// minPause is how soon a log that grows fast is looked at again.
	minPause = 100 * time.Millisecond
	// retryPause is how long a log rests of which the rotation has failed.
	retryPause = 10 * time.Second
	// reopenTimeout bounds the runtime's part of a rotation; a runtime that is well answers in a millisecond.
	reopenTimeout = 10 * time.Second
)

// Rotator rotates the logs of running containers. Every field is set by the caller; nobody changes one after Run.
type Rotator struct {
	Policy Policy
	// Running returns the log file of each running container by container id: of those whose logs nobody else rotates.
	// It is asked every second and oftener, so it answers from memory.
	Running func(ctx context.Context) (map[string]string, error)
	// Reopen makes the runtime write a container's output to a new file at the log's path. cri.Client.ReopenContainerLog
	// does.
	Reopen func(ctx context.Context, id string) error
	Log    *slog.Logger
	Now    func() time.Time
}

// Run rotates until ctx ends, then returns nil. It may run once at a time.
func (r *Rotator) Run(ctx context.Context) error {
	if r.Policy.MaxSize < 0 {
		<-ctx.Done()
		return nil
	}
	s := &rounds{Rotator: r, logs: map[string]*state{}, busy: map[string]string{}, done: make(chan compressed)}
	defer s.group.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	failure := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-s.done:
			s.finish(c)
		case <-timer.C:
		}
		running, err := r.Running(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if failure != err.Error() {
				failure = err.Error()
				r.Log.Warn("finding the logs to rotate", "reason", failure)
			}
			timer.Reset(maxPause)
			continue
		}
		failure = ""
		timer.Reset(s.look(ctx, running))
	}
}

// rounds is what Run knows from one look at the logs to the next. Only Run's goroutine uses it, except done.
type rounds struct {
	*Rotator
	logs  map[string]*state // by container id
	busy  map[string]string // paths that are being compressed → container id
	done  chan compressed
	group sync.WaitGroup
}

// state is what is known of one container's log.
type state struct {
	path    string
	size    int64 // at the last look
	at      time.Time
	pause   time.Duration // after it
	due     bool          // its directory is to be looked at, whatever its size
	served  time.Time     // when a part was last compressed
	rest    time.Time     // until then it is left alone: something has failed
	failure string        // the last one logged
}

type compressed struct {
	path string
	err  error
}

// look goes through all logs and returns how soon to look again.
func (s *rounds) look(ctx context.Context, running map[string]string) time.Duration {
	maps.DeleteFunc(s.logs, func(id string, l *state) bool { return running[id] != l.path })
	for id, path := range running {
		if s.logs[id] == nil {
			s.logs[id] = &state{path: path, due: true}
		}
	}
	ids := slices.SortedFunc(maps.Keys(s.logs), func(a, b string) int { // who waited longest is compressed first
		return cmp.Or(s.logs[a].served.Compare(s.logs[b].served), cmp.Compare(a, b))
	})
	pause := maxPause
	for _, id := range ids {
		l := s.logs[id]
		if l.rest.After(s.Now()) || ctx.Err() != nil {
			continue
		}
		next, err := s.tend(ctx, id, l)
		s.report(l, err)
		pause = min(pause, next)
	}
	return pause
}

// tend does what one log needs.
func (s *rounds) tend(ctx context.Context, id string, l *state) (time.Duration, error) {
	info, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		// Whoever moved it, maybe this program before it was killed, did not come to the second half.
		return maxPause, s.reopen(ctx, id)
	}
	if err != nil {
		return maxPause, fmt.Errorf("looking at a log: %w", err)
	}
	now, took := s.Now(), time.Duration(0)
	if !l.at.IsZero() {
		took = now.Sub(l.at)
	}
	next := pauseFor(s.Policy.MaxSize, l.size, info.Size(), took, l.pause)
	l.size, l.at, l.pause = info.Size(), now, next
	if l.size < s.Policy.MaxSize && !l.due {
		return next, nil
	}
	plan, err := s.plan(l)
	if err != nil {
		return next, err
	}
	l.due = false
	if plan.Rotate != "" {
		if err = s.rotate(ctx, id, l, plan.Rotate); err == nil {
			l.size = 0
			if plan, err = s.plan(l); err != nil {
				return next, err
			}
		}
	}
	return next, errors.Join(err, s.tidy(ctx, id, l, plan))
}

// plan reads the log's directory and decides.
func (s *rounds) plan(l *state) (Plan, error) {
	entries, err := os.ReadDir(filepath.Dir(l.path))
	if err != nil {
		return Plan{}, fmt.Errorf("reading a log's directory: %w", err)
	}
	var files []File
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() { // else it is gone, or none of ours
			files = append(files, File{e.Name(), info.Size()})
		}
	}
	busy := map[string]bool{}
	for path := range s.busy {
		if filepath.Dir(path) == filepath.Dir(l.path) {
			busy[filepath.Base(path)] = true
		}
	}
	return s.Policy.Plan(filepath.Base(l.path), files, busy, s.Now()), nil
}

// rotate moves the log away and has the runtime begin a new one. When that fails the log is moved back, unless there is
// a new one all the same: its lines must not be lost.
func (s *rounds) rotate(ctx context.Context, id string, l *state, name string) error {
	to := filepath.Join(filepath.Dir(l.path), name)
	if err := os.Rename(l.path, to); err != nil {
		return fmt.Errorf("rotating a log: %w", err)
	}
	err := s.reopen(ctx, id)
	if err == nil {
		return nil
	}
	if back := os.Link(to, l.path); errors.Is(back, fs.ErrExist) { // unlike a rename, it replaces nothing
		return err
	} else if back != nil {
		return errors.Join(err, fmt.Errorf("moving a log back: %w", back))
	}
	return errors.Join(err, os.Remove(to))
}

// reopen is not cut short by the end of the program.
func (s *rounds) reopen(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reopenTimeout)
	defer cancel()
	return s.Reopen(ctx, id)
}

// tidy removes the parts that are too many, and begins to compress where a worker is free.
func (s *rounds) tidy(ctx context.Context, id string, l *state, plan Plan) error {
	dir := filepath.Dir(l.path)
	var errs []error
	for _, name := range plan.Remove {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing an old log: %w", err))
		}
	}
	for _, name := range plan.Compress {
		if len(s.busy) >= s.Policy.Workers {
			l.due = true
			break
		}
		path := filepath.Join(dir, name)
		s.busy[path], l.served = id, s.Now()
		s.group.Go(func() {
			err := compress(ctx, path)
			select {
			case s.done <- compressed{path, err}:
			case <-ctx.Done():
			}
		})
	}
	return errors.Join(errs...)
}

// finish notes the end of a compression. Where another waits for it, the log is due already.
func (s *rounds) finish(c compressed) {
	l := s.logs[s.busy[c.path]]
	delete(s.busy, c.path)
	if l == nil {
		return
	}
	if errors.Is(c.err, fs.ErrNotExist) { // removed meanwhile: there was no room for it
		c.err = nil
	}
	s.report(l, c.err)
}

// report logs a failure once for as long as it stays the same, and lets the log rest.
func (s *rounds) report(l *state, err error) {
	if err == nil {
		l.failure = ""
		return
	}
	l.rest, l.due = s.Now().Add(retryPause), true
	if l.failure != err.Error() {
		l.failure = err.Error()
		s.Log.Warn("keeping a log small", "log", l.path, "reason", l.failure, "retry", retryPause.String())
	}
}

// pauseFor is how long to wait until a log that grew from one size to another within took is probably full. It gets
// longer step by step: a flood that pauses for a moment is not over. last is the pause before.
func pauseFor(full, before, size int64, took, last time.Duration) time.Duration {
	longest := min(max(2*last, minPause), maxPause)
	switch {
	case size >= full: // it is rotated now; how fast it grows is seen at the next look
		return minPause
	case size <= before || took <= 0:
		return longest
	}
	left := time.Duration(float64(full-size) / float64(size-before) * float64(took))
	return min(max(left, minPause), longest)
}
