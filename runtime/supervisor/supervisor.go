// Package supervisor runs static pods: it holds the manifests against the runtime and acts on the difference.
//
// One goroutine, Run, owns the set of workers. One worker owns a full name ("namespace/name"), so that the old version
// of a pod is gone before the new one starts without any lock. Events only shorten a worker's sleep; what it acts on is
// always a fresh look at the runtime.
//
//	sources ──► Run ── what is wanted ──► worker: look ─► Decide ─► act ─► look …
//	hints ────► Run ── look again ──────►    │  ▲
//	resync ───► Run ── list, compare ───►    │  └── probes, other workers (roster)
//	                                         └────► status.Board
package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/hook"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
	"github.com/slipway-k8s/slipway/runtime/status"
	"github.com/slipway-k8s/slipway/runtime/watched"
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
	// Cgroups makes and removes the cgroups of pods and of their classes.
	Cgroups Cgroups
	Policy  lifecycle.Policy
	// Hooks is how lifecycle hooks reach containers.
	Hooks hook.Runner
	// Events remembers what has happened to the pods. It may be nil.
	Events *event.Log
	// Good stores the last version of each pod that was ready, and which newer ones were given up. It may be nil: then
	// nothing is judged.
	Good *lastgood.Store
	// Observe is told of every action that has ended. It may be nil, and must not block.
	Observe func(kind lifecycle.ActionKind, took time.Duration, err error)
	// Started is told how long it took from the first sight of a version of a pod until all of its containers ran, for
	// pods that were started here. It may be nil, and must not block.
	Started func(took time.Duration)
	// RolledBack is told when a version was given up for the last good one. It may be nil, and must not block.
	RolledBack func()
	// Listed is told how each listing of the whole runtime has ended: one begins at least every Resync. It may be nil,
	// and must not block.
	Listed func(err error)
	Log    *slog.Logger
	Now    func() time.Time
	// Resync is how often the whole runtime is listed even when nothing hints at a change. The kubelet relists every
	// second; events make ten enough here.
	Resync time.Duration
	// MaxPulls is how many images are pulled at the same time, for all pods together; 0 is no limit.
	MaxPulls int
	// Ready is called once, after every source has delivered and every pod has been looked at.
	Ready func()
}

// Supervisor keeps static pods running. Use New.
type Supervisor struct {
	c       Config
	roster  *roster
	probes  *probe.Set
	looks   *looks
	puller  *puller
	hooks   *hook.Set
	watcher fileWatcher
	idle    chan *worker // workers with nothing left to do, which wait for their end or for work
	looked  chan string  // full names of workers that have looked once

	// The rest is owned by Run.
	want    wanted
	workers map[string]*worker // by full name
	unseen  map[string]bool    // full names whose worker has not looked yet
	qosDue  bool               // the cgroups of the classes do not fit the pods
}

// New returns a supervisor that does nothing until Run, which may be called once.
func New(c Config) *Supervisor {
	s := &Supervisor{
		c: c, roster: newRoster(), idle: make(chan *worker), looked: make(chan string),
		looks: &looks{rt: c.Runtime, instance: c.Node.Instance}, puller: newPuller(c.Runtime, c.MaxPulls),
		want: newWanted(len(c.Sources), c.Node), workers: map[string]*worker{}, unseen: map[string]bool{},
	}
	c.Probes.Changed = func(name string) { s.roster.poke(name) }
	s.probes = probe.NewSet(c.Probes)
	s.hooks = hook.NewSet(hook.Deps{Run: c.Hooks.Run, Changed: func(name string) { s.roster.poke(name) }, Logger: c.Log})
	s.watcher = watched.NewWatcher(s.filesChanged, c.Log)
	return s
}

type delivery struct {
	source   int
	snapshot manifest.Snapshot
}

// Run supervises until ctx ends, then returns nil; the error is a source's. The pods go on running: ending the
// supervisor never ends a pod.
func (s *Supervisor) Run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	var group sync.WaitGroup
	defer s.watcher.Close()
	defer s.hooks.Close()
	defer s.probes.Close()
	defer group.Wait()
	defer cancel(nil)

	deliveries := s.follow(ctx, cancel, &group)
	lister := newLister(s.c)
	defer lister.close()
	hints := s.c.Hints
	listed, announced := false, false
	for {
		select {
		case <-ctx.Done():
			if parent.Err() != nil {
				return nil
			}
			return context.Cause(ctx)
		case d := <-deliveries:
			s.accept(ctx, &group, d)
			lister.start(ctx, &group, false) // finds pods without a manifest
		case hint, ok := <-hints:
			switch {
			case !ok:
				hints = nil
			case hint.Images:
				s.roster.stored()
			case hint.ID == "":
				lister.start(ctx, &group, false)
			case !s.roster.hint(hint):
				lister.wonder(hint.ID)
			}
		case <-lister.doubt.C:
			if !s.roster.knows(lister.unknown) {
				lister.start(ctx, &group, false)
			}
			clear(lister.unknown)
		case <-lister.timer.C:
			lister.start(ctx, &group, true)
		case l := <-lister.done:
			listed = s.want.complete()
			s.compare(ctx, &group, l)
			lister.finish(ctx, &group, l.err)
		case w := <-s.idle:
			if w.desired() == nil {
				s.forget(w)
			} else {
				select {
				case w.resume <- struct{}{}: // it waits for this
				case <-ctx.Done():
				}
			}
		case name := <-s.looked:
			delete(s.unseen, name)
		}
		if !announced && listed && s.want.complete() && len(s.unseen) == 0 {
			announced = true
			s.forgetStrangers()
			s.c.Ready()
		}
	}
}

// follow starts the sources. One that fails ends ctx.
func (s *Supervisor) follow(ctx context.Context, fail context.CancelCauseFunc, group *sync.WaitGroup) <-chan delivery {
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
				fail(fmt.Errorf("reading manifests: %w", err))
			}
		})
	}
	return deliveries
}

// accept takes a source's snapshot and tells the workers whose pod it changes.
func (s *Supervisor) accept(ctx context.Context, group *sync.WaitGroup, d delivery) {
	fresh := s.want.accept(d.source, d.snapshot, s.c.Now())
	for _, p := range fresh {
		s.c.Log.Warn("manifest refused", "source", p.Source, "pod", p.FullName, "reason", p.Err.Error())
		s.c.Events.Record(event.Event{Pod: p.FullName, Type: event.Warning, Reason: event.Refused, Message: oneLine(p.Source + ": " + p.Err.Error())})
	}
	s.c.Board.SetProblems(s.want.shown())
	s.roster.want(s.want.pods)
	for name, pod := range s.want.pods {
		w, ok := s.workers[name]
		if !ok {
			w = s.start(ctx, group, name, pod)
		}
		w.set(pod, s.want.problems[name])
	}
	for name, w := range s.workers {
		if s.want.pods[name] == nil {
			w.set(nil, s.want.problems[name])
		}
	}
	s.qosDue = true
	s.ensureClasses() // nobody waits for it: a pod's cgroup is made with those above it
}

// start makes the worker of a full name. Run owns it and waits for it.
func (s *Supervisor) start(ctx context.Context, group *sync.WaitGroup, name string, pod *manifest.StaticPod) *worker {
	ctx, cancel := context.WithCancel(ctx)
	w := newWorker(s, name, pod, cancel)
	s.workers[name], s.unseen[name] = w, true
	s.roster.enter(w)
	group.Go(func() { w.run(ctx) })
	return w
}

// forget ends an idle worker and drops everything about its pod, which is gone.
func (s *Supervisor) forget(w *worker) {
	w.cancel()
	delete(s.workers, w.name)
	delete(s.unseen, w.name)
	s.roster.leave(w.name)
	s.watcher.Unwatch(w.name)
	s.forgetGood(w.name)
	s.c.Board.Remove(w.name)
}

// compare wakes the workers whose pod differs from what they saw, and starts one for each pod that this supervisor made
// and that has no manifest. Pods of others are none of its business.
func (s *Supervisor) compare(ctx context.Context, group *sync.WaitGroup, l listing) {
	if l.err != nil {
		return
	}
	s.ensureClasses()
	pods := l.byName()
	s.roster.compare(pods, l.periodic)
	for name, there := range pods {
		if there.ours && s.workers[name] == nil && s.want.lacks(name) {
			s.c.Log.Info("pod without a manifest", "pod", name)
			s.start(ctx, group, name, nil)
		}
	}
}

// ensureClasses gives the cgroups above the pods' what the wanted pods ask for together.
func (s *Supervisor) ensureClasses() {
	if !s.qosDue || len(s.want.pods) == 0 {
		return
	}
	s.qosDue = false
	pods := s.want.list()
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		if err := s.c.Cgroups.Ensure(podspec.QOSCgroup(class, pods, s.c.Node)); err != nil {
			s.qosDue = true
			s.c.Log.Warn("sharing the CPU between classes of pods", "reason", err.Error())
		}
	}
}
