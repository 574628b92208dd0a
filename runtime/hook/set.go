package hook

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// Deps are the effects that post-start hooks need.
type Deps struct {
	// Run is Runner.Run.
	Run func(ctx context.Context, h *corev1.LifecycleHandler, container *corev1.Container, containerID, podIP string) error
	// Changed is called when a hook of the pod has ended, well or not. It may be called from several goroutines, and
	// must neither block nor call back into the Set.
	Changed func(fullName string)
	Logger  *slog.Logger
}

// PostStart is one post-start hook to run.
type PostStart struct {
	FullName  string // of the pod
	ID        string // of the container
	PodIP     string // see Runner.Run
	Container *corev1.Container
	Marker    string // the file of Mark; "" for none
}

// Set is the post-start hooks of a node, each in a goroutine of its own for as long as it runs. Its methods may be
// called from several goroutines.
//
//	          ┌──► HookDone: the marker is removed
//	Start ──► HookRunning
//	          └──► HookFailed: the marker stays until Keep lets the container go
type Set struct {
	deps Deps
	ctx  context.Context // ends with Close; the goroutines' parent, not a caller's
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	hooks  map[string]*entry // by container id
}

type entry struct {
	post  PostStart
	end   context.CancelFunc
	state lifecycle.Hook
}

// NewSet returns a Set without hooks. The caller ends it with Close.
func NewSet(d Deps) *Set {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Changed == nil {
		d.Changed = func(string) {}
	}
	ctx, end := context.WithCancel(context.Background())
	return &Set{deps: d, ctx: ctx, end: end, hooks: map[string]*entry{}}
}

// Start runs the post-start hook of a container that has just been started, and returns at once: its state is
// HookRunning by then. A container without such a hook, and one whose hook was started before, are left alone; the
// calls for one container must not overlap. An error says that the marker could not be written where none was; the hook runs all the same.
func (s *Set) Start(p PostStart) error {
	if p.Container.Lifecycle == nil || p.Container.Lifecycle.PostStart == nil {
		return nil
	}
	if s.Known(p.ID) {
		return nil
	}
	var err error
	if p.Marker != "" && !Pending(p.Marker) {
		err = Mark(p.Marker)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.hooks[p.ID] != nil {
		return err
	}
	ctx, end := context.WithCancel(s.ctx)
	e := &entry{post: p, end: end, state: lifecycle.Hook{State: lifecycle.HookRunning, Message: "the post-start hook runs"}}
	s.hooks[p.ID] = e
	s.wg.Go(func() {
		defer end()
		s.run(ctx, e)
	})
	return err
}

// run ends without a trace when ctx does: the container, or the supervisor, is about to be gone.
func (s *Set) run(ctx context.Context, e *entry) {
	p := e.post
	err := s.deps.Run(ctx, p.Container.Lifecycle.PostStart, p.Container, p.ID, p.PodIP)
	s.mu.Lock()
	if ctx.Err() != nil || s.hooks[p.ID] != e {
		s.mu.Unlock()
		return
	}
	if err != nil {
		e.state = lifecycle.Hook{State: lifecycle.HookFailed, Message: err.Error()}
	} else {
		e.state = lifecycle.Hook{}
		s.unmark(p)
	}
	s.mu.Unlock()
	s.deps.Changed(p.FullName)
}

func (s *Set) unmark(p PostStart) {
	if p.Marker == "" {
		return
	}
	if err := Unmark(p.Marker); err != nil {
		s.deps.Logger.Warn("the hook may run again after a restart of the supervisor", "pod", p.FullName, "container", p.Container.Name, "reason", err.Error())
	}
}

// Result returns how far the hook of a container is: HookDone for one that Start was not told of.
func (s *Set) Result(containerID string) lifecycle.Hook {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.hooks[containerID]; e != nil {
		return e.state
	}
	return lifecycle.Hook{}
}

// Known tells whether Start was told of the container and Keep has not let it go.
func (s *Set) Known(containerID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hooks[containerID] != nil
}

// Keep lets go of the pod's containers that do not run any more: of all but running. Their hooks end, and their markers
// are removed. It is cheap when nothing has changed, and does not wait.
func (s *Set) Keep(fullName string, running []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return // whatever is pending is the next supervisor's
	}
	for id, e := range s.hooks {
		if e.post.FullName != fullName || slices.Contains(running, id) {
			continue
		}
		e.end()
		delete(s.hooks, id)
		s.unmark(e.post)
	}
}

// Close ends all hooks and waits for their goroutines. Results stay as they are, and the markers of the hooks that had
// not ended stay for the next supervisor; Start does nothing any more.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.wg.Wait()
}
