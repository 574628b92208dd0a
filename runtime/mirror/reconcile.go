package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// patience is how many refusals in a row are nobody's business: at the first start of a cluster, the API server
	// answers before its namespaces and priority classes are there, and before it has heard of the Node.
	patience = 8
	// longestRefused is the pause of a mirror that is refused again and again. Quotas and webhooks change.
	longestRefused = 30 * time.Second
	// flaps removals of one mirror within flapsWithin mean that somebody else insists, a kubelet of the same name or a
	// controller.
	flaps       = 5
	flapsWithin = time.Minute
)

// reconciler makes the API show what the supervisor knows. One goroutine owns it, in run.
type reconciler struct {
	c    Config
	pace pace
	api  *client
	node types.UID

	have    map[string]seen    // nil until the first list
	dropped map[types.UID]bool // removed by us, until the watch has told so
	bases   map[types.UID]face
	refused map[string]*refusal // by full name
	flaps   map[string]*flapping
	sent    map[string]sentPatch
}

// sentPatch is the last patch of a status and the version that came of it: one that the server takes and does not
// follow is not sent for ever.
type sentPatch struct {
	patch   string
	version uint64
}

// refusal is what is remembered of a pod whose last request failed.
type refusal struct {
	hash  string
	times int
	until time.Time // of the next try
	said  string
}

type flapping struct {
	since time.Time
	times int
}

// newReconciler keeps in bases, which outlives it, what the API server made of our mirrors.
func newReconciler(c Config, p pace, api *client, node types.UID, bases map[types.UID]face) *reconciler {
	return &reconciler{c: c, pace: p, api: api, node: node, bases: bases,
		dropped: map[types.UID]bool{}, refused: map[string]*refusal{}, flaps: map[string]*flapping{}, sent: map[string]sentPatch{}}
}

// run reconciles after every change on either side, until ctx ends or the API server is away.
func (r *reconciler) run(ctx context.Context, nodes <-chan types.UID, events <-chan event) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		pods, changed := r.c.Pods()
		pause := time.Duration(-1)
		if pods != nil && r.have != nil {
			var err error
			if pause, err = r.settle(ctx, wantedPods(pods)); err != nil {
				return err
			}
		}
		timer.Stop()
		if pause >= 0 {
			timer.Reset(pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		case r.node = <-nodes:
		case e := <-events:
			r.take(e)
		}
	}
}

// take notes what the API server told. It may be older than what it answered to a request since.
func (r *reconciler) take(e event) {
	if e.all != nil {
		r.have = e.all
		clear(r.dropped)
		there := map[types.UID]bool{}
		for _, h := range e.all {
			there[h.uid] = true
		}
		maps.DeleteFunc(r.bases, func(uid types.UID, _ face) bool { return !there[uid] })
		return
	}
	known, there := r.have[e.name]
	// Versions order the states of all pods: an old pod of this name does not come back over a new one.
	newer := !there || e.pod.version == 0 || e.pod.version >= known.version
	switch {
	case e.gone && there && known.uid == e.pod.uid:
		delete(r.have, e.name)
	case !e.gone && newer && !r.dropped[e.pod.uid]:
		r.have[e.name] = e.pod
	}
	if e.gone {
		delete(r.dropped, e.pod.uid)
		delete(r.bases, e.pod.uid)
	}
}

// settle does what is to be done and returns in how long to come back, less than zero for only after a change.
func (r *reconciler) settle(ctx context.Context, want map[string]wanted) (time.Duration, error) {
	r.forget(want)
	for {
		now, acted := r.c.Now(), false
		pause := time.Duration(-1)
		for _, a := range plan(r.node, want, r.have, r.bases) {
			if left := r.left(a.name, want[a.name].hash, now); left > 0 {
				if pause < 0 || left < pause {
					pause = left
				}
				continue
			}
			if a.kind == report && r.sent[a.name] == (sentPatch{string(a.patch), r.have[a.name].version}) {
				continue
			}
			acted = true
			if err := r.act(ctx, a, want[a.name]); ctx.Err() != nil {
				return 0, ctx.Err()
			} else if err != nil && away(err) {
				return 0, err
			} else if err != nil {
				r.refuse(a.name, want[a.name].hash, err)
			} else if a.kind != remove {
				r.accept(a.name)
			}
		}
		if !acted {
			return pause, nil
		}
	}
}

// act does one step, and notes the server's answer as the new state: the watch tells of it later.
func (r *reconciler) act(ctx context.Context, a action, w wanted) error {
	log := r.c.Log.With("pod", a.name)
	switch a.kind {
	case create:
		return r.create(ctx, log, a)
	case remove:
		zero := int64(0)
		err := r.api.delete(ctx, podPath(a.name, ""), metav1.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &a.uid}})
		absent := isCode(err, http.StatusNotFound, http.StatusConflict) // or another one by now: the watch will tell
		if err != nil && !absent {
			return fmt.Errorf("removing the mirror pod: %w", err)
		}
		delete(r.have, a.name)
		delete(r.bases, a.uid)
		if absent {
			return nil
		}
		log.Info("mirror pod removed", "reason", a.why)
		r.dropped[a.uid] = true
		if w.pod == nil {
			return nil
		}
		return r.flap(a)
	case report:
		var p corev1.Pod
		err := r.api.patch(ctx, podPath(a.name, "/status"), a.patch, &p)
		if isCode(err, http.StatusNotFound) {
			delete(r.have, a.name)
			return nil
		}
		if err != nil {
			return fmt.Errorf("updating the mirror pod's status: %w", err)
		}
		r.have[a.name] = seenOf(&p)
		r.sent[a.name] = sentPatch{string(a.patch), r.have[a.name].version}
		return nil
	}
	return errors.New(a.why)
}

// create makes a mirror, or finds out what is there instead.
func (r *reconciler) create(ctx context.Context, log *slog.Logger, a action) error {
	var p corev1.Pod
	err := r.api.post(ctx, podsPath(a.name), ownedBy(a.pod, r.c.NodeName, r.node), &p)
	if err == nil {
		log.Info("mirror pod created")
		r.have[a.name] = seenOf(&p)
		r.bases[p.UID] = faceOf(&p)
		return nil
	}
	if isCode(err, http.StatusConflict) {
		// A pod that is not ours, or not there any more, answers 403: the authorizer finds no way from it to this node.
		if get := r.api.get(ctx, podPath(a.name, ""), &p); get == nil && p.Spec.NodeName == r.c.NodeName {
			r.have[a.name] = seenOf(&p) // it is there, and the watch is late
			return nil
		} else if get != nil && away(get) {
			return get
		}
	}
	return fmt.Errorf("creating the mirror pod: %w", err)
}

// flappingError says that somebody else works against us.
type flappingError struct{ why string }

func (e *flappingError) Error() string {
	return fmt.Sprintf("the mirror pod was replaced %d times within %s, last because %s: does a kubelet run under this node's name?", flaps, flapsWithin, e.why)
}

// flap counts the removals of a mirror that is wanted.
func (r *reconciler) flap(a action) error {
	f, now := r.flaps[a.name], r.c.Now()
	if f == nil || now.Sub(f.since) > flapsWithin {
		f = &flapping{since: now}
		r.flaps[a.name] = f
	}
	if f.times++; f.times < flaps {
		return nil
	}
	delete(r.flaps, a.name)
	return &flappingError{a.why}
}

// left is how long a pod that was refused is left alone. Another version of it is another matter.
func (r *reconciler) left(name, hash string, now time.Time) time.Duration {
	if f := r.refused[name]; f != nil && f.hash == hash {
		return f.until.Sub(now)
	}
	return 0
}

// refuse notes that a request for a pod failed, and tells when it goes on to.
func (r *reconciler) refuse(name, hash string, err error) {
	f := r.refused[name]
	if f == nil {
		f = &refusal{}
		r.refused[name] = f
	}
	if f.hash != hash {
		f.hash, f.times = hash, 0
	}
	f.times++
	pause := r.pace.eager
	for i := patience; i < f.times && pause < longestRefused; i++ {
		pause *= 2
	}
	var flapping *flappingError
	if errors.As(err, &flapping) {
		pause = longestRefused
	} else if f.times < patience {
		f.until = r.c.Now().Add(pause)
		return
	}
	f.until = r.c.Now().Add(min(pause, longestRefused))
	if reason := err.Error(); f.said != reason {
		f.said = reason
		r.c.Log.Warn("pod cannot be shown in the API; it runs all the same", "pod", name, "reason", reason)
		r.c.Refused(name, reason)
	}
}

func (r *reconciler) accept(name string) {
	f := r.refused[name]
	if f != nil && f.said != "" {
		r.c.Log.Info("pod is shown in the API now", "pod", name)
		r.c.Refused(name, "")
	}
	delete(r.refused, name)
}

// forget drops what is remembered of pods that are not there any more.
func (r *reconciler) forget(want map[string]wanted) {
	gone := func(name string) bool {
		_, wanted := want[name]
		_, there := r.have[name]
		return !wanted && !there
	}
	maps.DeleteFunc(r.refused, func(name string, _ *refusal) bool { return gone(name) })
	maps.DeleteFunc(r.flaps, func(name string, _ *flapping) bool { return gone(name) })
	maps.DeleteFunc(r.sent, func(name string, _ sentPatch) bool { return gone(name) })
}
