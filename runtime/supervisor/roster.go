package supervisor

import (
	"maps"
	"strings"
	"sync"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// AnnotationStartAfter names, separated by commas, the pods of the same namespace (as their manifests name them,
// without the node) that must be ready before this one is started for the first time. A name that has no manifest on
// this node, and a pod that has completed, hold nothing back. A kubelet ignores the annotation.
const AnnotationStartAfter = "slipway.dev/start-after"

// roster is what is known of every pod beyond its own worker: enough to tell whom a hint, a listing or another pod's
// readiness concerns. It wakes workers and knows nothing else to do. Any goroutine may use it.
type roster struct {
	mu    sync.Mutex
	pods  map[string]*entry // by full name
	owner map[string]string // id of a container or sandbox → full name
	// departed holds the ids that a worker has seen go since the last periodic listing: hints about them tell nothing.
	departed map[string]bool
}

// entry is one pod with a manifest, a worker, or both.
type entry struct {
	worker *worker
	wanted string // version; "" when it has no manifest
	ready  string // the version of which every container was ready, or had completed, at the last look
	saw    states // what the last look saw
	held   bool   // at the last look it waited for another pod
	blind  bool   // the last look failed: the runtime did not answer
}

func newRoster() *roster {
	return &roster{pods: map[string]*entry{}, owner: map[string]string{}, departed: map[string]bool{}}
}

func (r *roster) entry(name string) *entry {
	e := r.pods[name]
	if e == nil {
		e = &entry{}
		r.pods[name] = e
	}
	return e
}

// want replaces the set of wanted pods.
func (r *roster) want(pods map[string]*manifest.StaticPod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.pods {
		e.wanted = ""
	}
	for name, p := range pods {
		r.entry(name).wanted = versionOf(p)
	}
	maps.DeleteFunc(r.pods, func(_ string, e *entry) bool { return e.worker == nil && e.wanted == "" })
	r.release()
}

// release wakes the workers whose pod waits for another one. The caller holds mu.
func (r *roster) release() {
	for _, e := range r.pods {
		if e.held && e.worker != nil {
			e.worker.hint()
		}
	}
}

func (r *roster) enter(w *worker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entry(w.name).worker = w
}

// worker returns the worker of a full name; nil when there is none.
func (r *roster) worker(name string) *worker {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.pods[name]; e != nil {
		return e.worker
	}
	return nil
}

func (r *roster) leave(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.see(name, nil)
	delete(r.pods, name)
}

// saw records a look: the states it saw, and the version that was ready, "" for none.
func (r *roster) saw(name string, saw states, ready string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(name)
	r.see(name, saw)
	e.blind = false
	if e.ready != ready {
		e.ready = ready
		r.release()
	}
}

// see replaces what was last seen of a pod. The caller holds mu.
func (r *roster) see(name string, saw states) {
	e := r.entry(name)
	for id := range e.saw {
		if _, still := saw[id]; !still {
			delete(r.owner, id)
			r.departed[id] = true
		}
	}
	for id := range saw {
		r.owner[id] = name
	}
	e.saw = saw
}

// missed records that a look failed.
func (r *roster) missed(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entry(name).blind = true
}

// held says which pods the wanted one still waits for, or returns "". Its worker is woken when that may have changed.
func (r *roster) held(name string, want *manifest.StaticPod, node string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(name)
	e.held = false
	if want == nil {
		return ""
	}
	var missing []string
	for _, short := range strings.Split(want.Pod.Annotations[AnnotationStartAfter], ",") {
		short = strings.TrimSpace(short)
		other := r.pods[want.Pod.Namespace+"/"+short+"-"+strings.ToLower(node)]
		if other != nil && other != e && other.wanted != "" && other.ready != other.wanted {
			missing = append(missing, short)
		}
	}
	e.held = len(missing) > 0
	return strings.Join(missing, ", ")
}

// poke makes the worker of a full name look, and tells whether there is one.
func (r *roster) poke(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pods[name]
	if e == nil || e.worker == nil {
		return false
	}
	e.worker.hint()
	return true
}

// hint makes the worker that knows of the container or sandbox look, and tells whether there is one, or there was.
func (r *roster) hint(h Hint) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.pods[r.owner[h.ID]]
	if e == nil || e.worker == nil {
		return r.departed[h.ID]
	}
	if h.Exit != nil {
		e.worker.exited(h.ID, *h.Exit)
	}
	e.worker.hint()
	return true
}

// knows tells whether all of the ids are known.
func (r *roster) knows(ids map[string]bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range ids {
		if r.owner[id] == "" && !r.departed[id] {
			return false
		}
	}
	return true
}

// stored tells every worker that the image store has changed.
func (r *roster) stored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.pods {
		if e.worker != nil {
			e.worker.stored()
		}
	}
}

// compare wakes the workers of the pods that the runtime shows otherwise than they saw it, and of those whose last look
// failed. After a periodic listing it also wakes those of pods that are not ready: their probes may have more to tell.
func (r *roster) compare(pods map[string]presence, periodic bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if periodic {
		clear(r.departed)
	}
	for name, e := range r.pods {
		switch {
		case e.worker == nil:
		case e.blind:
			e.worker.order()
		case periodic && e.ready != e.wanted, !maps.Equal(e.saw, pods[name].states):
			e.worker.hint()
		}
	}
}
