// Package supervisor runs static pods: it holds the manifests against the runtime and acts on the difference.
//
// One goroutine, Run, owns the set of workers. One worker owns a full name ("namespace/name"), so that the old version
// of a pod is gone before the new one starts without any lock. Events only shorten a worker's sleep; what it acts on is
// always a fresh look at the runtime.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// Source delivers snapshots of the manifests it reads until ctx ends. Each snapshot replaces the source's former one.
type Source interface {
	Run(ctx context.Context, deliver func(manifest.Snapshot)) error
}

// Config is what a supervisor works with. Every field is set by the caller.
type Config struct {
	Node    podspec.Node
	Runtime Runtime
	Sources []Source
	// Hints wakes workers early. It may be nil: then changes in the runtime are noticed at the next Resync.
	Hints <-chan Hint
	// Probes is how probes reach containers. Its Changed is the supervisor's own.
	Probes probe.Deps
	Board  *status.Board
	// Cgroups makes and removes the pod-level cgroups.
	Cgroups Cgroups
	Policy  lifecycle.Policy
	Log     *slog.Logger
	Now     func() time.Time
	// Resync is how often the whole runtime is listed even when nothing hints at a change. The kubelet relists every
	// second; events make ten enough here.
	Resync time.Duration
	// Ready is called once, after every source has delivered and every pod has been looked at.
	Ready func()
}

// Supervisor keeps static pods running. Use New.
type Supervisor struct {
	c Config

	// Owned by Run.
	workers  map[string]*worker
	parts    []*manifest.Snapshot // by source; nil until it has delivered
	merged   manifest.Snapshot
	desired  map[string]*manifest.StaticPod
	problems map[string]string // by full name
	// doubt says that some manifest is invalid and nobody can tell which pod it means. Its pod may be one that runs
	// without this process having ever read its manifest, so nothing that merely lacks a manifest is stopped meanwhile.
	doubt  bool
	idle   chan *worker
	looked chan string // full names of workers that have looked once

	probes *probe.Set

	mu      sync.Mutex
	awake   map[string]*worker          // the workers, for those who wake them
	ready   map[string]bool             // full name → every container ready; a key for every pod with a worker that looked
	owner   map[string]string           // container or sandbox id → full name
	wanted  map[string]bool             // full names that have a manifest
	waiters map[string]map[*worker]bool // full name → workers that wait for it to be ready
}

// New returns a supervisor that does nothing until Run.
func New(c Config) *Supervisor {
	s := &Supervisor{
		c: c, workers: map[string]*worker{}, parts: make([]*manifest.Snapshot, len(c.Sources)),
		desired: map[string]*manifest.StaticPod{}, problems: map[string]string{},
		idle: make(chan *worker), looked: make(chan string),
		ready: map[string]bool{}, owner: map[string]string{}, wanted: map[string]bool{}, waiters: map[string]map[*worker]bool{},
		awake: map[string]*worker{},
	}
	c.Probes.Changed = func(name string) { s.poke(name) }
	s.probes = probe.NewSet(c.Probes)
	return s
}

type delivery struct {
	source   int
	snapshot manifest.Snapshot
}

// Run supervises until ctx ends, then returns nil. The pods go on running: ending the supervisor never ends a pod.
func (s *Supervisor) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	defer s.probes.Close()
	defer group.Wait()
	defer cancel(nil)

	deliveries := make(chan delivery)
	for i, source := range s.c.Sources {
		group.Go(func() {
			err := source.Run(ctx, func(snap manifest.Snapshot) {
				select {
				case deliveries <- delivery{i, snap}:
				case <-ctx.Done():
				}
			})
			if err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("reading manifests: %w", err))
			}
		})
	}
	resync := time.NewTicker(s.c.Resync)
	defer resync.Stop()
	listings := make(chan []string)
	listing := false
	list := func() {
		if listing {
			return
		}
		listing = true
		group.Go(func() {
			names := s.changed(ctx)
			select {
			case listings <- names:
			case <-ctx.Done():
			}
		})
	}
	waiting := map[string]bool(nil) // full names that have not been looked at yet; nil until every source has delivered
	announced := false
	for {
		select {
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return cause
			}
			return nil
		case d := <-deliveries:
			s.accept(ctx, &group, d)
			if waiting == nil && s.complete() {
				waiting = map[string]bool{}
				for name := range s.workers {
					waiting[name] = true
				}
				list() // finds the pods whose manifest went while nobody looked
			}
		case hint := <-s.c.Hints:
			if !s.wake(hint) {
				list()
			}
		case <-resync.C:
			list()
		case names := <-listings:
			listing = false
			for _, name := range names {
				s.look(ctx, &group, name)
			}
		case w := <-s.idle:
			if w.desired() == nil && s.workers[w.name] == w {
				w.cancel()
				s.forget(w.name)
			}
		case name := <-s.looked:
			delete(waiting, name)
		}
		if waiting != nil && len(waiting) == 0 && !announced {
			announced = true
			s.c.Ready()
		}
	}
}

// complete tells whether every source has delivered at least once. Until then nothing is removed.
func (s *Supervisor) complete() bool { return !slices.Contains(s.parts, nil) }

// accept takes a source's snapshot and tells the workers whose pod it changes.
func (s *Supervisor) accept(ctx context.Context, group *sync.WaitGroup, d delivery) {
	part := refuse(d.snapshot, s.desired)
	s.parts[d.source] = &part
	var parts []manifest.Snapshot
	for _, p := range s.parts {
		if p != nil {
			parts = append(parts, *p)
		}
	}
	s.merged = manifest.Merge(s.merged, parts...)
	before := s.desired
	s.desired, s.problems, s.doubt = map[string]*manifest.StaticPod{}, map[string]string{}, false
	for _, p := range s.merged.Pods {
		name := p.FullName()
		if old, ok := before[name]; ok && old.SpecHash == p.SpecHash && old.UID == p.UID {
			s.desired[name] = old // the same pod keeps its annotation of first sight
		} else {
			s.desired[name] = seenAt(p, s.c.Now())
		}
	}
	var shown []status.Problem
	for _, p := range s.merged.Problems {
		s.c.Log.Warn("manifest refused", "source", p.Source, "pod", p.FullName, "reason", p.Err.Error())
		shown = append(shown, status.Problem{Source: p.Source, Pod: p.FullName, Reason: p.Err.Error()})
		s.problems[p.FullName] = fmt.Sprintf("%s is not taken: %v", p.Source, p.Err)
		s.doubt = s.doubt || p.FullName == ""
	}
	s.c.Board.SetProblems(shown)

	s.mu.Lock()
	clear(s.wanted)
	for name := range s.desired {
		s.wanted[name] = true
	}
	s.mu.Unlock()
	for name, pod := range s.desired {
		w, ok := s.workers[name]
		if !ok {
			w = s.start(ctx, group, name)
		}
		w.set(pod, s.problems[name])
	}
	for name := range before {
		if w, ok := s.workers[name]; ok && s.desired[name] == nil {
			w.set(nil, "")
		}
	}
}

// refuse moves the pods that use a field which the supervisor does not act on to the problems. Where a former version
// of such a pod is wanted already, that one stays: a version that cannot be run never stops the one that runs.
func refuse(snap manifest.Snapshot, before map[string]*manifest.StaticPod) manifest.Snapshot {
	out := manifest.Snapshot{Problems: slices.Clone(snap.Problems)}
	for _, p := range snap.Pods {
		err := podspec.Refuse(p.Pod)
		if err == nil {
			out.Pods = append(out.Pods, p)
			continue
		}
		out.Problems = append(out.Problems, manifest.Problem{Source: p.Source, FullName: p.FullName(), Err: err})
		if old := before[p.FullName()]; old != nil && old.Source == p.Source {
			out.Pods = append(out.Pods, old)
		}
	}
	return out
}

// start makes the worker of a full name. Run owns it and waits for it.
func (s *Supervisor) start(ctx context.Context, group *sync.WaitGroup, name string) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w := newWorker(s, name, cancel)
	s.workers[name] = w
	s.mu.Lock()
	s.awake[name] = w
	s.mu.Unlock()
	group.Go(func() { w.run(ctx) })
	return w
}

// look wakes the worker of a full name, or starts one for a pod whose manifest is gone.
func (s *Supervisor) look(ctx context.Context, group *sync.WaitGroup, name string) {
	if w, ok := s.workers[name]; ok {
		w.poke()
		return
	}
	if s.complete() && !s.doubt && s.problems[name] == "" {
		s.c.Log.Info("pod without a manifest", "pod", name, "state", "terminating")
		s.start(ctx, group, name).set(nil, "")
	}
}

// wake hands a hint to the worker it is about and tells whether there is one.
func (s *Supervisor) wake(h Hint) bool {
	s.mu.Lock()
	name := s.owner[h.ID]
	s.mu.Unlock()
	return s.poke(name)
}

// poke makes the worker of a full name look, and tells whether there is one. It may be called from any goroutine.
func (s *Supervisor) poke(name string) bool {
	s.mu.Lock()
	w := s.awake[name]
	s.mu.Unlock()
	if w == nil {
		return false
	}
	w.poke()
	return true
}

// changed lists the runtime and returns the full names of pods that look different from what their worker last saw,
// and of pods that this supervisor made but has no worker for. Pods of others are none of its business.
func (s *Supervisor) changed(ctx context.Context) []string {
	sandboxes, err := s.c.Runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		s.c.Log.Warn("listing sandboxes", "reason", err.Error())
		return nil
	}
	containers, err := s.c.Runtime.ListContainers(ctx, nil)
	if err != nil {
		s.c.Log.Warn("listing containers", "reason", err.Error())
		return nil
	}
	names := map[string]bool{}
	known := map[string]bool{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sb := range sandboxes {
		name := fullNameOf(sb.GetLabels())
		known[sb.GetId()] = true
		ours := sb.GetAnnotations()[podspec.AnnotationSpecHash] != "" && sb.GetAnnotations()[podspec.AnnotationInstance] == s.c.Node.Instance
		owner, seen := s.owner[sb.GetId()]
		switch {
		case seen && owner == name && sb.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY,
			!seen && (ours || s.ownsName(name)):
			names[name] = true
		}
	}
	for _, ctr := range containers {
		name := fullNameOf(ctr.GetLabels())
		known[ctr.GetId()] = true
		if _, seen := s.owner[ctr.GetId()]; !s.ownsName(name) {
			continue
		} else if !seen || ctr.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			names[name] = true
		}
	}
	for id, name := range s.owner { // removed behind our back
		if !known[id] {
			names[name] = true
		}
	}
	return keys(names)
}

// ownsName tells whether any pod of this name was observed by a worker. The caller holds mu.
func (s *Supervisor) ownsName(name string) bool { _, ok := s.ready[name]; return ok }

// observed records what a worker saw, for hints, listings and the pods that wait for this one.
func (s *Supervisor) observed(name string, seen lifecycle.Observed, ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, owner := range s.owner {
		if owner == name {
			delete(s.owner, id)
		}
	}
	for _, sb := range seen.Sandboxes {
		s.owner[sb.ID] = name
	}
	for _, c := range seen.Containers {
		s.owner[c.ID] = name
	}
	was := s.ready[name]
	s.ready[name] = ready
	if ready && !was {
		for waiter := range s.waiters[name] {
			waiter.poke()
		}
		delete(s.waiters, name)
	}
}

// forget drops everything about a pod that is gone.
func (s *Supervisor) forget(name string) {
	delete(s.workers, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.awake, name)
	delete(s.ready, name)
	for id, owner := range s.owner {
		if owner == name {
			delete(s.owner, id)
		}
	}
	s.c.Board.Remove(name)
}

func keys(set map[string]bool) []string {
	out := make([]string, 0, len(set))
	for k := range set {
		out = append(out, k)
	}
	return out
}
