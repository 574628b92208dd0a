package supervisor

import (
	"fmt"
	"maps"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// Restart makes every running container of a pod be restarted, with its grace period and without back-off; one that
// waits in its back-off is started at once. It returns before that is done. why is one line for a human. The error is
// status.ErrNoPod, or status.ErrNothingRuns when there is no container to restart. Any goroutine may call it.
func (s *Supervisor) Restart(fullName, why string) error {
	w := s.roster.worker(fullName)
	if w == nil || w.desired() == nil {
		return fmt.Errorf("restarting %s: %w", fullName, status.ErrNoPod)
	}
	if !w.restart(why) {
		return fmt.Errorf("restarting %s: %w", fullName, status.ErrNothingRuns)
	}
	return nil
}

// restart asks for a restart of the newest container of each name, as the last look saw them. It tells whether there is
// any.
func (w *worker) restart(why string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.newest {
		w.asked[id] = why
	}
	if len(w.newest) == 0 {
		return false
	}
	w.record(versionUID(w.pod), "", event.Normal, event.Restarting, "Restarting the containers: %s", why)
	w.order()
	return true
}

// recallAsked adds the restarts that were asked for, and forgets those of containers that have a successor.
func (w *worker) recallAsked(want *manifest.StaticPod, seen *lifecycle.Observed) {
	newest := map[string]lifecycle.Container{} // by name
	for _, c := range seen.Containers {
		if want == nil || c.UID != want.UID || c.State != lifecycle.ContainerRunning && c.State != lifecycle.ContainerExited {
			continue
		}
		if last, ok := newest[c.Name]; !ok || c.Attempt > last.Attempt {
			newest[c.Name] = c
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.newest)
	for name, c := range newest {
		w.newest[name] = c.ID
	}
	maps.DeleteFunc(w.asked, func(id string, _ string) bool {
		for _, known := range w.newest {
			if known == id {
				return false
			}
		}
		return true
	})
	seen.Restart = maps.Clone(w.asked)
}

// fileWatcher keeps the fingerprints of the host files that pods watch. watched.Watcher is one.
type fileWatcher interface {
	Watch(fullName string, paths []string)
	Unwatch(fullName string)
	Fingerprint(fullName string) (string, error)
	Close()
}

// watchFiles keeps the watch on the host files whose change restarts the pod, and returns their fingerprint.
func (w *worker) watchFiles(want *manifest.StaticPod) string {
	if want == nil {
		w.s.watcher.Unwatch(w.name)
		return ""
	}
	w.s.watcher.Watch(w.name, manifest.WatchedPaths(want.Pod))
	// The watcher has told of an error already. What it saw before that still counts: a container that is made meanwhile
	// carries it, and is restarted when the files can be read again and are others.
	print, _ := w.s.watcher.Fingerprint(w.name)
	return print
}

// filesChanged records that a pod's watched files have changed, and makes its worker look.
func (s *Supervisor) filesChanged(fullName string) {
	if w := s.roster.worker(fullName); w != nil {
		w.record(versionUID(w.desired()), "", event.Normal, event.Restarting, "Watched files have changed")
		w.hint()
	}
}

func versionUID(p *manifest.StaticPod) string {
	if p == nil {
		return ""
	}
	return p.UID
}
