package supervisor

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// listRetry is the pause after a listing that failed: how long a runtime that is back goes unnoticed without a hint.
const listRetry = time.Second

// doubtFor is how long a hint about something unknown waits: most are about what a worker has just made and is about to
// see for itself.
const doubtFor = 250 * time.Millisecond

// listing is everything that the runtime has at one instant.
type listing struct {
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	err        error
	periodic   bool // nothing asked for it
}

// lister lists the runtime, one listing at a time, when it is told to and when none has ended for a while. Run owns it
// and reads done.
type lister struct {
	c       Config
	done    chan listing
	timer   *time.Timer // when the next listing is due
	running bool
	again   bool   // asked for while one runs, which may have begun too early
	failure string // of the last listing

	unknown map[string]bool // ids that hints spoke of and nobody knew
	doubt   *time.Timer     // runs while there are any
}

func newLister(c Config) *lister {
	l := &lister{c: c, done: make(chan listing), timer: time.NewTimer(c.Resync), unknown: map[string]bool{}, doubt: time.NewTimer(doubtFor)}
	l.doubt.Stop()
	return l
}

func (l *lister) close() {
	l.timer.Stop()
	l.doubt.Stop()
}

// wonder keeps an id that nobody knows in mind.
func (l *lister) wonder(id string) {
	if len(l.unknown) == 0 {
		l.doubt.Reset(doubtFor)
	}
	l.unknown[id] = true
}

func (l *lister) start(ctx context.Context, group *sync.WaitGroup, periodic bool) {
	if l.running {
		l.again = true
		return
	}
	l.running = true
	group.Go(func() {
		all := list(ctx, l.c.Runtime, "", l.c.Node.Instance)
		all.periodic = periodic
		select {
		case l.done <- all:
		case <-ctx.Done():
		}
	})
}

// finish notes how a listing ended, and begins or plans the next one.
func (l *lister) finish(ctx context.Context, group *sync.WaitGroup, err error) {
	failure, pause := "", l.c.Resync
	if err != nil {
		failure, pause = err.Error(), listRetry
	}
	if failure != l.failure && ctx.Err() == nil {
		if failure != "" {
			l.c.Log.Warn("the container runtime does not answer", "reason", failure)
		} else {
			l.c.Log.Info("the container runtime answers again")
		}
	}
	l.failure, l.running = failure, false
	if l.c.Listed != nil {
		l.c.Listed(err)
	}
	l.timer.Reset(pause)
	if l.again {
		l.again = false
		l.start(ctx, group, false)
	}
}

// list lists what carries the labels of a full name, or everything for "", except what another instance of slipway made.
// What something else made, such as a kubelet, belongs to whoever has its manifest.
func list(ctx context.Context, rt Runtime, name, instance string) listing {
	labels := selector(name)
	// The containers come first: one that another instance makes between the two calls would be listed without its
	// sandbox, and be taken for ours.
	containers, err := rt.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: labels})
	if err != nil {
		return listing{err: err}
	}
	sandboxes, err := rt.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: labels})
	others := map[string]bool{}
	sandboxes = slices.DeleteFunc(sandboxes, func(sb *runtimeapi.PodSandbox) bool {
		notes := sb.GetAnnotations()
		others[sb.GetId()] = notes[podspec.AnnotationSpecHash] != "" && notes[podspec.AnnotationInstance] != instance
		return others[sb.GetId()]
	})
	containers = slices.DeleteFunc(containers, func(c *runtimeapi.Container) bool { return others[c.GetPodSandboxId()] })
	return listing{sandboxes: sandboxes, containers: containers, err: err}
}

// byPod splits a listing by full name.
func (l listing) byPod() map[string]listing {
	pods := map[string]listing{}
	for _, sb := range l.sandboxes {
		p := pods[fullNameOf(sb.GetLabels())]
		p.sandboxes = append(p.sandboxes, sb)
		pods[fullNameOf(sb.GetLabels())] = p
	}
	for _, c := range l.containers {
		p := pods[fullNameOf(c.GetLabels())]
		p.containers = append(p.containers, c)
		pods[fullNameOf(c.GetLabels())] = p
	}
	return pods
}

func selector(name string) map[string]string {
	if name == "" {
		return nil
	}
	namespace, pod, _ := strings.Cut(name, "/")
	return map[string]string{podspec.LabelPodNamespace: namespace, podspec.LabelPodName: pod}
}

// states holds the CRI state of each sandbox and container of a pod by id; their numbers overlap, their ids do not.
type states map[string]int32

// presence is what a listing has of one full name.
type presence struct {
	states states
	ours   bool // this instance made one of its sandboxes
}

// byName sorts a listing by full name.
func (l listing) byName() map[string]presence {
	pods := map[string]presence{}
	add := func(labels map[string]string, id string, state int32, ours bool) {
		name := fullNameOf(labels)
		p := pods[name]
		if p.states == nil {
			p.states = states{}
		}
		p.states[id] = state
		p.ours = p.ours || ours
		pods[name] = p
	}
	for _, sb := range l.sandboxes {
		add(sb.GetLabels(), sb.GetId(), int32(sb.GetState()), sb.GetAnnotations()[podspec.AnnotationSpecHash] != "")
	}
	for _, c := range l.containers {
		add(c.GetLabels(), c.GetId(), int32(c.GetState()), false)
	}
	return pods
}

func fullNameOf(labels map[string]string) string {
	return labels[podspec.LabelPodNamespace] + "/" + labels[podspec.LabelPodName]
}
