// Package mirror shows the node's static pods in the Kubernetes API.
//
// It stands beside the supervisor and never on the way of a pod: it reads what the supervisor knows, and what the API
// server says or fails to say changes nothing about what runs.
//
//	kubeconfig ─► session: GET or POST Node ─┬─ heartbeat: Node status, Lease      every 10 s
//	    ▲                                    ├─ watch: the pods bound to this node ─┐
//	    │                                    ├─ reconcile: plan(wanted, seen) ─► create | remove | report
//	    └── API away, 401, new certificate ──┴─ post: what has happened ─► Events
package mirror

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// Config is what a Mirror works with.
type Config struct {
	Kubeconfig string // path; read anew when it or a file that it names changes, and after a 401
	NodeName   string
	HostIPs    []netip.Addr                              // the first one is the node's primary address
	Capacity   corev1.ResourceList                       // cpu, memory, pods, ephemeral-storage; see ReadMachine
	Info       corev1.NodeSystemInfo                     // see ReadMachine; KubeletVersion must be a semantic version
	Pods       func() (*corev1.PodList, <-chan struct{}) // what the supervisor knows, and a channel that is closed at the next change. nil: not known yet, so nothing is done. The pods are only read
	Log        *slog.Logger
	Now        func() time.Time

	// The rest is optional.
	Events     func(since uint64) ([]event.Event, <-chan struct{}) // what has happened, as event.Log.Since returns it
	Refused    func(pod, reason string)                            // told of a mirror that the API server does not take, and of a Node ("") that another program claims; reason is "" once that is over. Must not block
	Healthy    func(context.Context) error                         // whether pods can be started here, asked before each report; it returns with ctx
	Pressure   func() Pressure                                     // what this machine runs short of; see Thresholds
	Taints     []corev1.Taint                                      // for the Node when it is registered, beside slipway's
	ProviderID string                                              // likewise
	Unmanaged  bool                                                // somebody else registers the Node
	Rates      Rates
}

// Rates are how often the API server hears from this node. Zero values stand for a kubelet's defaults. Kubernetes v1.36.3
// pkg/kubelet/apis/config/v1beta1/defaults.go:117-152.
type Rates struct {
	Status time.Duration // between two looks at the Node: 10 s
	Report time.Duration // between two reports of an unchanged status: 5 min, or Status where that is set
	Lease  time.Duration // until a lease that is not renewed has run out: 40 s; it is renewed four times as often
	QPS    int           // events per second on the long run: 50; less than zero: no limit
	Burst  int           // events at once: 100
}

func (r Rates) withDefaults() Rates {
	if r.Report == 0 {
		r.Report = cmp.Or(r.Status, 5*time.Minute)
	}
	return Rates{Status: cmp.Or(r.Status, 10*time.Second), Report: r.Report, Lease: cmp.Or(r.Lease, 40*time.Second),
		QPS: cmp.Or(r.QPS, 50), Burst: cmp.Or(r.Burst, 100)}
}

// pace is how often things are tried.
type pace struct {
	eager    time.Duration // between tries while the API server is expected
	eagerFor time.Duration // how long after the start that is
	least    time.Duration // the first pause of a longer outage
	most     time.Duration // and the longest: nobody is to wait two seconds for us once the API server is back
	polite   time.Duration // the longest pause that a server may ask for
	dial     time.Duration // until a connection is given up
	request  time.Duration // until a request is given up
	brief    time.Duration // what works for less than this has not worked
}

func usualPace() pace {
	return pace{
		eager: 250 * time.Millisecond, eagerFor: time.Minute, least: 500 * time.Millisecond, most: 1500 * time.Millisecond,
		polite: 30 * time.Second, dial: 2 * time.Second, request: 10 * time.Second, brief: 5 * time.Second,
	}
}

// Mirror is made by New and lives in Run.
type Mirror struct {
	c    Config
	pace pace

	// The rest is owned by Run, and lent to the goroutines of a session.
	outage  outage
	started time.Time
	node    nodeKeeper
	memory  *memory
	journal *journal
}

// New returns a mirror that does nothing until Run.
func New(c Config) *Mirror {
	if c.Refused == nil {
		c.Refused = func(string, string) {}
	}
	c.Rates = c.Rates.withDefaults()
	return &Mirror{c: c, pace: usualPace(), memory: newMemory(), journal: newJournal()}
}

var (
	// errRenewed ends a session whose kubeconfig or certificate was replaced on disk.
	errRenewed = errors.New("the kubeconfig has changed")
	// errReplaced ends a session whose Node was deleted and registered again.
	errReplaced = errors.New("the Node was deleted and registered again")
)

// Run mirrors until ctx ends, then returns nil. It survives any absence of the API server.
func (m *Mirror) Run(ctx context.Context) error {
	m.started = m.c.Now()
	for failures := 0; ; {
		err := m.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errRenewed) || errors.Is(err, errReplaced) {
			m.c.Log.Info("connecting to the API server anew", "reason", err.Error())
			continue
		}
		if m.outage.failed(m.c.Log, err, m.c.Now(), m.pace.brief) {
			failures = 0
		}
		failures++
		if asked := retryAfter(err); asked > 0 {
			wait(ctx, min(asked, m.pace.polite))
		} else if m.rest(ctx, m.pace.pause(failures, m.c.Now().Sub(m.started))) {
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
	api := newClient(creds, m.pace)
	defer api.close()
	uid, err := m.ensureNode(ctx, api)
	if err != nil {
		return creds.explain(err, m.c.Now())
	}

	notices, doubt := make(chan notice), make(chan struct{}, 1)
	r := newReconciler(m.c, m.pace, api, uid, m.memory)
	r.doubt = doubt
	r.working = func() { m.outage.ended(m.c.Log, m.c.NodeName, m.c.Now()) } // Run does not look at it meanwhile
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.heartbeat(ctx, api, creds, uid, doubt) })
	group.Go(func() error { return watchPods(ctx, api, m.c.NodeName, notices) })
	group.Go(func() error { return r.run(ctx, notices) })
	if m.c.Events != nil {
		group.Go(func() error { return (&poster{c: m.c, pace: m.pace, api: api, node: uid, j: m.journal}).run(ctx) })
	}
	return creds.explain(group.Wait(), m.c.Now())
}
