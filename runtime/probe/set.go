// Package probe runs startup, liveness and readiness probes, keeping the latest result per container.
//
// It follows the kubelet's rules (Kubernetes v1.36.3 pkg/kubelet/prober) in everything that can do harm: failures
// count only on the kubelet's schedule, so nothing is restarted earlier than a kubelet would. It is faster where that
// only helps: until a container has started (or, without a startup probe, been ready) for the first time it is tried
// right away and often, whatever initialDelaySeconds and periodSeconds say, and the first success counts.
//
// Results live in memory. After a restart of the supervisor a long-running container is probed as if it had just
// started: eagerly, so that it counts as started and ready within milliseconds, and with all of its failure threshold
// before it.
package probe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// Deps are the effects that probes need.
type Deps struct {
	// Exec runs a command in a container and returns its combined output and exit code. An error that is
	// context.DeadlineExceeded means that the command took longer than timeout: the probe failed. Any other error
	// says nothing about the container: it is tried again and then ignored.
	Exec func(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (output string, exit int, err error)
	// GRPC asks the health service (grpc.health.v1) at host:port, in plain text. nil means SERVING; every error is a
	// failure of the probe. The deadline is in ctx.
	GRPC func(ctx context.Context, addr, service string) error
	// Changed is called when a container of the pod has become started, ready, not ready or due for a restart. It may
	// be called from several goroutines, and must neither block nor call back into the Set.
	Changed func(fullName string)
	Logger  *slog.Logger
}

// Running is one running container.
type Running struct {
	Name, ID  string
	StartedAt time.Time
}

// Set is all probes of a node. It owns its goroutines: one per probe that is under way, none for containers without
// probes. Its methods may be called from several goroutines.
type Set struct {
	deps Deps
	ctx  context.Context // ends with Close; the goroutines' parent, not a caller's
	end  context.CancelFunc
	wg   sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	pods       map[string]map[string]*container // by full name, then container id
	containers map[string]*container            // by id
}

// NewSet returns a Set that probes nothing yet. The caller ends it with Close.
func NewSet(d Deps) *Set {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Changed == nil {
		d.Changed = func(string) {}
	}
	ctx, end := context.WithCancel(context.Background())
	return &Set{deps: d, ctx: ctx, end: end, pods: map[string]map[string]*container{}, containers: map[string]*container{}}
}

// Sync makes the probes of one pod be those of its running containers: new ones begin, those of others end. podIP is
// what probes without a host of their own go to, the node's address for host network; it may change. A nil pod ends
// all. It is cheap when nothing has changed, and returns at once: results come later, save that a container without
// probes is started and ready by the time it returns.
func (s *Set) Sync(fullName string, pod *corev1.Pod, podIP string, running []Running) {
	if pod == nil {
		running = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	known := s.pods[fullName]
	for id, c := range known {
		if !contains(running, id) {
			c.end()
			delete(known, id)
			delete(s.containers, id)
		}
	}
	for _, r := range running {
		if c := known[r.ID]; c != nil {
			c.setIP(podIP)
			continue
		}
		if known == nil {
			known = map[string]*container{}
			s.pods[fullName] = known
		}
		c := s.newContainer(fullName, pod, podIP, r)
		known[r.ID], s.containers[r.ID] = c, c
	}
	if len(known) == 0 {
		delete(s.pods, fullName)
	}
}

func contains(running []Running, id string) bool {
	for i := range running {
		if running[i].ID == id {
			return true
		}
	}
	return false
}

// Result returns the latest results of a container, the zero value for one that Sync was not told of.
func (s *Set) Result(containerID string) lifecycle.Probe {
	s.mu.Lock()
	c := s.containers[containerID]
	s.mu.Unlock()
	if c == nil {
		return lifecycle.Probe{}
	}
	return c.result()
}

// Close ends all probes and waits for their goroutines. Results stay as they are; Sync does nothing any more.
func (s *Set) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.end()
	s.wg.Wait()
}

// specOf returns the container of that name, init or main; nil when there is none.
func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			if specs[i].Name == name {
				return &specs[i]
			}
		}
	}
	return nil
}
