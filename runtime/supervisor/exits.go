package supervisor

import (
	"maps"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// exited notes that a container has ended, before the runtime shows it.
func (w *worker) exited(id string, e Exit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.exits[id] = e
}

// ended returns the container as ended if it is known to have, although the runtime still shows it as running. What is
// only in the runtime's own word, such as a kill for lack of memory, comes with a later look.
func (w *worker) ended(c lifecycle.Container) lifecycle.Container {
	w.mu.Lock()
	e, told := w.exits[c.ID]
	w.mu.Unlock()
	if !told || c.State != lifecycle.ContainerRunning {
		return c
	}
	c.State, c.ExitCode, c.FinishedAt, c.Reason = lifecycle.ContainerExited, e.Code, e.At, "Completed"
	if e.Code != 0 {
		c.Reason = "Error"
	}
	return c
}

// forgetGone drops what is kept of containers that are gone.
func (w *worker) forgetGone(saw states) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.exits, func(id string, _ Exit) bool { _, there := saw[id]; return !there })
	maps.DeleteFunc(w.preStopped, func(id string, _ bool) bool { _, there := saw[id]; return !there })
}
