// Package mirror shows the node's static pods in the Kubernetes API.
//
// It stands beside the supervisor and never on the way of a pod: it reads what the supervisor knows, and what the API
// server says or fails to say changes nothing about what runs.
//
//	kubeconfig ─► session: GET or POST Node ─┬─ heartbeat: Node status, Lease      every 10 s
//	    ▲                                    ├─ watch: the pods bound to this node ─┐
//	    └── API away, 401, new certificate ──┴─ reconcile: plan(wanted, seen) ─► create | remove | report
package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config is what a Mirror works with. All fields but Refused are required.
type Config struct {
	Kubeconfig string // path; read anew when it or a file that it names changes, and after a 401
	NodeName   string
	HostIPs    []netip.Addr                              // the first one is the node's primary address
	Capacity   corev1.ResourceList                       // cpu, memory, pods, ephemeral-storage; see ReadMachine
	Info       corev1.NodeSystemInfo                     // see ReadMachine; KubeletVersion must be a semantic version
	Pods       func() (*corev1.PodList, <-chan struct{}) // what the supervisor knows, and a channel that is closed at the next change. nil: not known yet, so nothing is done. The pods are only read
	Refused    func(pod, reason string)                  // told of a mirror that the API server does not take; "" once it does
	Log        *slog.Logger
	Now        func() time.Time
}

// pace is how often things happen.
type pace struct {
	eager     time.Duration // between tries while the API server is expected
	eagerFor  time.Duration // how long after the start that is
	least     time.Duration // the first pause of a longer outage
	most      time.Duration // and the longest
	heartbeat time.Duration // between two renewals of the lease
	request   time.Duration // until a request is given up
}

func usualPace() pace {
	return pace{
		eager: 250 * time.Millisecond, eagerFor: time.Minute, least: time.Second, most: 10 * time.Second,
		heartbeat: 10 * time.Second, // a quarter of leaseDuration, as the kubelet
		request:   10 * time.Second,
	}
}

// Mirror is made by New and lives in Run.
type Mirror struct {
	c    Config
	pace pace

	// The rest is owned by Run.
	outage  outage
	warned  bool // of a Node without our taint
	started time.Time
	bases   map[types.UID]face // what the API server made of our mirrors
}

// New returns a mirror that does nothing until Run.
func New(c Config) *Mirror {
	if c.Refused == nil {
		c.Refused = func(string, string) {}
	}
	return &Mirror{c: c, pace: usualPace(), bases: map[types.UID]face{}}
}

// errRenewed ends a session whose kubeconfig or certificate was replaced on disk.
var errRenewed = errors.New("the kubeconfig has changed")

// Run mirrors until ctx ends, then returns nil. It survives any absence of the API server.
func (m *Mirror) Run(ctx context.Context) error {
	m.started = m.c.Now()
	for failures := 0; ; {
		began := m.c.Now()
		err := m.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errRenewed) {
			m.c.Log.Info("kubeconfig has changed, connecting anew", "kubeconfig", m.c.Kubeconfig)
			continue
		}
		m.outage.failed(m.c.Log, err, m.c.Now())
		if m.c.Now().Sub(began) > m.pace.most {
			failures = 0 // it worked for a while
		}
		failures++
		if m.rest(ctx, m.pace.pause(failures, m.c.Now().Sub(m.started))) {
			failures = 0
		}
	}
}

// pause is how long to wait after so many failures in a row, that long after the start.
func (p pace) pause(failures int, sinceStart time.Duration) time.Duration {
	if sinceStart < p.eagerFor {
		return p.eager
	}
	d := p.least
	for range failures - 1 {
		if d = 2 * d; d >= p.most {
			return p.most
		}
	}
	return d
}

// rest waits, and less long when the supervisor tells of a change: it may be that the API server has just become ready.
func (m *Mirror) rest(ctx context.Context, d time.Duration) (early bool) {
	_, changed := m.c.Pods()
	if wait(ctx, min(d, m.pace.eager)); d <= m.pace.eager {
		return false
	}
	timer := time.NewTimer(d - m.pace.eager)
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// session is one connection, from reading the kubeconfig to the first failure, which it returns.
func (m *Mirror) session(ctx context.Context) error {
	creds, err := readKubeconfig(m.c.Kubeconfig, m.c.NodeName)
	if err != nil {
		return &localError{err}
	}
	api := newClient(creds, m.pace.request)
	defer api.close()
	uid, err := m.ensureNode(ctx, api)
	if err != nil {
		return err
	}
	m.outage.ended(m.c.Log, m.c.NodeName, m.c.Now())

	nodes, events := make(chan types.UID), make(chan event)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.heartbeat(ctx, api, creds, uid, nodes) })
	group.Go(func() error { return watchPods(ctx, api, m.c.NodeName, events) })
	group.Go(func() error { return newReconciler(m.c, m.pace, api, uid, m.bases).run(ctx, nodes, events) })
	return group.Wait()
}

// localError is a failure before anything was sent.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// outage makes one line of log out of any number of failures: one per kind of failure, that is.
type outage struct {
	since time.Time // zero while all is well
	said  map[string]bool
	once  bool // it has worked before
}

func (o *outage) failed(log *slog.Logger, err error, now time.Time) {
	if o.since.IsZero() {
		o.since, o.said = now, map[string]bool{}
	}
	kind, text := "unreachable", "API server is not reachable, its view of the pods waits"
	var local *localError
	var refused *statusError
	switch {
	case errors.As(err, &local):
		kind, text = "local", "API server cannot be asked, its view of the pods waits"
	case errors.As(err, &refused):
		kind, text = fmt.Sprint(refused.Code), "API server refuses this node, its view of the pods waits"
		if refused.Code >= http.StatusInternalServerError || refused.Code == http.StatusTooManyRequests {
			kind, text = "unable", "API server cannot answer now, its view of the pods waits"
		}
	}
	switch {
	case o.said[kind]:
	case kind == "unreachable" && !o.once: // it is one of our pods, and takes its time
		log.Info("waiting for the API server", "reason", err.Error())
	default:
		log.Warn(text, "reason", err.Error())
	}
	o.said[kind] = true
}

func (o *outage) ended(log *slog.Logger, node string, now time.Time) {
	if o.since.IsZero() {
		log.Info("showing the pods in the API", "node", node)
	} else {
		log.Info("showing the pods in the API", "node", node, "after", now.Sub(o.since).Round(time.Millisecond))
	}
	*o = outage{once: true}
}
