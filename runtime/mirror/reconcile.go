package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// memory is what a reconciler knows that outlives its connection.
type memory struct {
	bases    map[types.UID]face  // what the API server made of our mirrors
	refusals map[string]*refusal // by full name
	contests map[string]*contest // likewise
}

func newMemory() *memory {
	return &memory{bases: map[types.UID]face{}, refusals: map[string]*refusal{}, contests: map[string]*contest{}}
}

// reconciler makes the API show what the supervisor knows. One goroutine owns it, in run.
type reconciler struct {
	c       Config
	pace    pace
	api     *client
	node    types.UID
	doubt   chan<- struct{} // told when the Node may be gone
	working func()          // called once, when the API server has told what it has

	*memory
	have    map[string]seen    // nil until the first list
	dropped map[types.UID]bool // removed by us, until the watch has told so
	sent    map[string]sentPatch
	settled map[string]settled
}

// sentPatch is the last patch of a status and the version that came of it: one that the server takes and does not
// follow is not sent for ever.
type sentPatch struct {
	patch   string
	version uint64
}

// settled is a pod and the state of its mirror that needed nothing: comparing pointers is cheaper than comparing JSON.
type settled struct {
	static  corev1.Pod
	uid     types.UID
	version uint64
}

func newReconciler(c Config, p pace, api *client, node types.UID, m *memory) *reconciler {
	for _, f := range m.refusals {
		if f.slow {
			f.until = time.Time{} // it may have been the API server that was slow, and not what stands behind it
		}
	}
	return &reconciler{c: c, pace: p, api: api, node: node, memory: m, working: func() {},
		dropped: map[types.UID]bool{}, sent: map[string]sentPatch{}, settled: map[string]settled{}}
}

// run reconciles after every change on either side, until ctx ends or the API server is away.
func (r *reconciler) run(ctx context.Context, notices <-chan notice) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		pods, changed := r.c.Pods()
		pause := time.Duration(-1)
		if pods != nil && r.have != nil {
			var err error
			if pause, err = r.settle(ctx, pods); err != nil {
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
		case n := <-notices:
			if r.have == nil {
				r.working()
			}
			r.take(n)
		}
	}
}

// take notes what the API server told. It may be older than what it answered to a request since.
func (r *reconciler) take(n notice) {
	if n.all != nil {
		r.have = n.all
		clear(r.dropped)
		there := map[types.UID]bool{}
		for _, h := range n.all {
			there[h.uid] = true
		}
		maps.DeleteFunc(r.bases, func(uid types.UID, _ face) bool { return !there[uid] })
		return
	}
	known, there := r.have[n.name]
	// Versions order the states of all pods: an old pod of this name does not come back over a new one.
	newer := !there || n.pod.version == 0 || n.pod.version >= known.version
	switch {
	case n.gone && there && known.uid == n.pod.uid:
		delete(r.have, n.name)
	case !n.gone && newer && !r.dropped[n.pod.uid]:
		r.have[n.name] = n.pod
	}
	if n.gone {
		delete(r.dropped, n.pod.uid)
		delete(r.bases, n.pod.uid)
	}
}

// settle does what is to be done and returns in how long to come back, less than zero for only after a change.
func (r *reconciler) settle(ctx context.Context, list *corev1.PodList) (time.Duration, error) {
	r.forget(list)
	for {
		due, pause := r.due(list)
		if len(due.actions) == 0 {
			return pause, nil
		}
		for _, a := range due.actions {
			w := due.want[a.name]
			err := r.act(ctx, a, w)
			switch {
			case ctx.Err() != nil:
				return 0, ctx.Err()
			case err != nil && away(err):
				return 0, err
			case err != nil:
				r.refuse(a.name, w.hash, err)
			case a.kind != remove:
				r.accept(a.name)
			}
		}
	}
}

// agenda is what can be done now.
type agenda struct {
	want    map[string]wanted
	actions []action
}

// due returns what can be done now, and in how long there may be more: less than zero for only after a change.
func (r *reconciler) due(list *corev1.PodList) (agenda, time.Duration) {
	now, pause := r.c.Now(), time.Duration(-1)
	soon := func(d time.Duration) {
		if pause < 0 || d < pause {
			pause = max(d, 0)
		}
	}
	want, have, static := r.unsettled(list)
	found := agenda{want: want}
	needed := map[string]bool{}
	for _, a := range plan(r.node, want, have, r.bases) {
		hash := want[a.name].hash
		unheard := a.kind == report && r.sent[a.name] == (sentPatch{string(a.patch), r.have[a.name].version})
		needed[a.name] = !unheard
		if left := r.left(a.name, hash, now); left > 0 {
			soon(left)
		} else if left := r.held(a, hash, now); left > 0 {
			soon(left)
		} else if !unheard {
			found.actions = append(found.actions, a)
		}
	}
	for name := range want {
		if !needed[name] {
			r.accept(name)
			h := r.have[name]
			r.settled[name] = settled{static: *static[name], uid: h.uid, version: h.version}
		}
	}
	r.peace(needed, now, soon)
	return found, pause
}

// unsettled returns what is wanted and seen of the pods of which one or the other has changed since they needed nothing.
func (r *reconciler) unsettled(list *corev1.PodList) (map[string]wanted, map[string]seen, map[string]*corev1.Pod) {
	want, have, static := map[string]wanted{}, maps.Clone(r.have), map[string]*corev1.Pod{}
	for i := range list.Items {
		p := &list.Items[i]
		name := p.Namespace + "/" + p.Name
		h := r.have[name]
		if s, ok := r.settled[name]; ok && s.uid == h.uid && s.version == h.version && h.version != 0 && reflect.DeepEqual(&s.static, p) {
			delete(have, name)
			continue
		}
		want[name], static[name] = wantedOf(p), p
	}
	return want, have, static
}

// act does one step, and notes the server's answer as the new state: the watch tells of it later.
func (r *reconciler) act(ctx context.Context, a action, w wanted) error {
	log := r.c.Log.With("pod", a.name)
	switch a.kind {
	case create:
		return r.create(ctx, log, a, w.hash)
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
			r.contest(a.name).repaired("", r.c.Now())
		}
		return nil
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
func (r *reconciler) create(ctx context.Context, log *slog.Logger, a action, hash string) error {
	var p corev1.Pod
	err := r.api.post(ctx, podsPath(a.name), ownedBy(a.pod, r.c.NodeName, r.node), &p)
	if err == nil {
		log.Info("mirror pod created")
		r.have[a.name] = seenOf(&p)
		r.bases[p.UID] = faceOf(&p)
		r.contest(a.name).repaired(hash, r.c.Now())
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
	if doubtful(err) {
		select {
		case r.doubt <- struct{}{}:
		default: // told already
		}
	}
	return fmt.Errorf("creating the mirror pod: %w", err)
}
