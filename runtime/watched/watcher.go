package watched

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// settleFor is how long watched files must rest before a change of theirs counts: a certificate and its key are
	// replaced one after the other. Files that never rest never count.
	settleFor = time.Second
	// settleLost is for a change by which a file has gone: most likely its successor is on the way.
	settleLost = 10 * time.Second
	// pollEvery is how often files that have not come to rest are looked at. The kernel's news are gathered as long.
	pollEvery = 250 * time.Millisecond
	// checkEvery is how often all files are looked at whatever the kernel's notifications say.
	checkEvery = 10 * time.Second
)

// Watcher keeps the fingerprints of the files that pods watch. It has one goroutine, from the first Watch to Close. Its
// methods may be called from several goroutines, those of one pod by one at a time.
type Watcher struct {
	changed func(fullName string)
	log     *slog.Logger
	news    func() (notices, error) // newNotices

	quit, done chan struct{}
	nudge      chan struct{} // holds at most one: pods were added or removed

	mu      sync.Mutex
	started bool
	closed  bool
	pods    map[string]*pod // by full name
}

// pod is the files of one pod.
type pod struct {
	paths []string

	// These are the goroutine's, once the pod is in the map.
	seen    []entry         // when the fingerprint was taken
	pending []entry         // what has come instead; nil for nothing
	quiet   time.Time       // since when it has been so
	hinted  bool            // the kernel has told of something
	dirs    map[string]bool // in which a change shows

	// These are guarded by Watcher.mu.
	fingerprint string
	err         error
}

// NewWatcher returns a Watcher without pods, which the caller ends with Close. changed is called, by one goroutine, when
// the fingerprint of a pod's files is another one; it must neither block nor call back into the Watcher.
func NewWatcher(changed func(fullName string), log *slog.Logger) *Watcher {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{
		changed: changed, log: log, news: newNotices,
		quit: make(chan struct{}), done: make(chan struct{}), nudge: make(chan struct{}, 1), pods: map[string]*pod{},
	}
}

// Watch makes the pod's watched files those at paths, which are absolute; none ends the watch. The first fingerprint is
// known when it returns. It is cheap when the paths are those of the call before.
func (w *Watcher) Watch(fullName string, paths []string) {
	w.mu.Lock()
	old, closed := w.pods[fullName], w.closed
	w.mu.Unlock()
	if closed || old == nil && len(paths) == 0 || old != nil && slices.Equal(old.paths, paths) {
		return
	}
	var p *pod
	if len(paths) > 0 {
		p = &pod{paths: slices.Clone(paths)}
		if p.seen, p.err = survey(p.paths); p.err == nil {
			p.fingerprint, p.err = digest(p.seen)
		}
		if p.err != nil {
			p.seen = nil
			w.log.Warn("watching files", "pod", fullName, "reason", p.err.Error())
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p == nil {
		delete(w.pods, fullName)
	} else {
		w.pods[fullName] = p
	}
	if !w.started && !w.closed {
		w.started = true
		go w.run()
	}
	nudge(w.nudge)
}

// Unwatch ends the watch of a pod's files.
func (w *Watcher) Unwatch(fullName string) { w.Watch(fullName, nil) }

// Fingerprint returns the fingerprint of the pod's files as they were when they rested last, "" for a pod that watches
// none or whose files could not be read yet. Compare it with the one that a container was made with, and make containers
// with it: one taken between two writes would cost another restart. The error says why the files cannot be read now.
func (w *Watcher) Fingerprint(fullName string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pods[fullName]
	if p == nil {
		return "", nil
	}
	return p.fingerprint, p.err
}

// Close ends the goroutine and waits for it.
func (w *Watcher) Close() {
	w.mu.Lock()
	started, closed := w.started, w.closed
	w.closed = true
	w.mu.Unlock()
	if !closed {
		close(w.quit)
	}
	if started {
		<-w.done
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run looks at all pods every checkEvery, and more often at those that are not at rest.
func (w *Watcher) run() {
	defer close(w.done)
	news, err := w.news()
	if err != nil {
		w.log.Warn("the kernel does not tell of changed files, they are found within seconds", "reason", err.Error())
	}
	defer news.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	events, errs := news.events(), news.errors()
	full := time.Now() // when to look at all
	soon := false      // a look at what is hinted or pending is due before
	for {
		select {
		case <-w.quit:
			return
		case <-w.nudge:
			full, soon = time.Now(), true
			timer.Reset(0)
		case e, ok := <-events:
			if !ok {
				events = nil
			} else if w.hint(filepath.Dir(e.Name), e.Name) && !soon {
				soon = true
				timer.Reset(pollEvery)
			}
		case _, ok := <-errs: // an overflow: anything may have changed
			if !ok {
				errs = nil
			} else if !soon {
				full, soon = time.Now(), true
				timer.Reset(pollEvery)
			}
		case <-timer.C:
			now := time.Now()
			all := !now.Before(full)
			if all {
				full = now.Add(checkEvery)
			}
			soon = w.check(now, all, &news)
			switch {
			case soon:
				timer.Reset(pollEvery)
			case w.any():
				timer.Reset(full.Sub(now))
			}
		}
	}
}

// snapshot returns the pods in no order; they are the goroutine's to look at.
func (w *Watcher) snapshot() map[string]*pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.pods)
}

func (w *Watcher) any() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pods) > 0
}

// hint notes which pods a change in one of the directories may concern, and tells whether there is any.
func (w *Watcher) hint(dirs ...string) (any bool) {
	for _, p := range w.snapshot() {
		for _, dir := range dirs {
			p.hinted = p.hinted || p.dirs[dir]
		}
		any = any || p.hinted
	}
	return any
}

// check looks at the pods that need it, or at all, and tells whether some are not at rest.
func (w *Watcher) check(now time.Time, all bool, news *notices) (restless bool) {
	pods := w.snapshot()
	due := map[string]*pod{}
	for name, p := range pods {
		if all || p.hinted || p.pending != nil {
			due[name] = p
			p.dirs, p.hinted = directories(p.paths), false
		}
	}
	dirs := map[string]bool{}
	for _, p := range pods {
		maps.Copy(dirs, p.dirs)
	}
	news.follow(dirs) // before the look: what changes afterwards is an event
	for name, p := range due {
		w.look(name, p, now)
		restless = restless || p.pending != nil
	}
	return restless
}

// look compares a pod's files with what they were, and takes a new fingerprint once they rest.
func (w *Watcher) look(name string, p *pod, now time.Time) {
	seen, err := survey(p.paths)
	if err != nil {
		p.pending = nil // the next check of all looks again
		w.report(name, p, p.fingerprint, err)
		return
	}
	if slices.Equal(seen, p.seen) {
		p.pending = nil
		w.report(name, p, p.fingerprint, nil)
		return
	}
	if !slices.Equal(seen, p.pending) {
		p.pending, p.quiet = seen, now
	}
	rest := settleFor
	if lost(p.seen, seen) {
		rest = settleLost
	}
	if now.Sub(p.quiet) < rest {
		return
	}
	p.pending = nil
	fingerprint, err := digest(seen)
	if err != nil {
		w.report(name, p, p.fingerprint, err)
		return
	}
	p.seen = seen
	w.report(name, p, fingerprint, nil)
}

// report shows what was found, and says so where it is news.
func (w *Watcher) report(name string, p *pod, fingerprint string, err error) {
	w.mu.Lock()
	current := w.pods[name] == p
	fresh := p.fingerprint != fingerprint
	failed := err != nil && (p.err == nil || p.err.Error() != err.Error())
	p.fingerprint, p.err = fingerprint, err
	w.mu.Unlock()
	if failed && current {
		w.log.Warn("watching files", "pod", name, "reason", err.Error())
	}
	if fresh && current {
		w.changed(name)
	}
}
