package supervisor

import (
	"context"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// reservation is what is known of names that the runtime keeps for something that it does not show: what is left of a
// call that was cut off, or of a life before a reboot.
type reservation struct {
	uid, name string // name of the container, "" for the sandbox
}

// freeAttempt is the attempt that an action may use: its own, or the first one that is not known to be taken.
func (w *worker) freeAttempt(a lifecycle.Action) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(a.Attempt, w.reserved[reservation{a.UID, a.Name}])
}

// makeWay deals with an error that says that the name of what was to be made is taken. What holds it is removed, unless
// it is something that a look has shown: then, or if it is taken again, the next try has the next attempt.
func (w *worker) makeWay(ctx context.Context, a lifecycle.Action, err error) {
	id := cri.ReservedFor(err)
	if !cri.IsNameReserved(err) {
		return
	}
	key := reservation{a.UID, a.Name}
	w.mu.Lock()
	attempt, again := w.reserved[key]
	seen := id == "" || w.cache.has(id)
	w.reserved[key] = a.Attempt
	if seen || again && attempt == a.Attempt {
		w.reserved[key] = a.Attempt + 1
	}
	w.mu.Unlock()
	if seen {
		return
	}
	rt := w.s.c.Runtime
	if a.Kind == lifecycle.RunSandbox {
		if err = rt.StopPodSandbox(ctx, id); err == nil {
			err = rt.RemovePodSandbox(ctx, id)
		}
	} else {
		err = rt.RemoveContainer(ctx, id)
	}
	if err != nil {
		w.log.Warn("removing what holds a name", "id", id, "reason", err.Error())
	}
}

// forgetReserved drops what is known of names that other versions had. The caller holds mu.
func (w *worker) forgetReserved(uid string) {
	for key := range w.reserved {
		if key.uid != uid {
			delete(w.reserved, key)
		}
	}
}
