package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
	"github.com/slipway-k8s/slipway/runtime/event"
)

const (
	// lookEvery is how often certificates are looked at, if nothing is due before.
	lookEvery = time.Hour
	// retryAfter is when a renewal or a restart that was held up is tried again.
	retryAfter = time.Minute
	// lockedAfter is when it is tried again while another slipway is at work: init, which starts this process, is soon done.
	lockedAfter = 5 * time.Second
	// jump is a step of the clock that is no slewing, and believeAfter how long the clock must stay there until it is
	// acted upon: time services that correct a wrong step do so within minutes.
	jump         = time.Minute
	believeAfter = 10 * time.Minute
)

// keeper renews the certificates that slipway made before they end, and restarts the pods that use them. Without such
// certificates it does nothing.
//
//	look ─► renew what is due ─► restart what was started before its certificate ─► sleep: until something is due,
//	        an hour, a minute where something was held up, or until the clock jumps
//
// It keeps no state: files and the pods' start times say what is to be done, so that a supervisor that is killed in
// between goes on where it was.
type keeper struct {
	paths  config.Paths
	client *local // the supervisor's own socket: restarts and readiness are what every client sees
	log    *slog.Logger
	events *event.Log
	now    func() time.Time

	earliest atomic.Int64 // end of the certificate of slipway's that ends first, in Unix seconds; 0 for none
}

func newKeeper(s *supervision) *keeper {
	paths := s.paths
	if dir, found := strings.CutSuffix(s.kubelet.Authentication.X509.ClientCAFile, "/ca.crt"); found {
		paths.PKI = dir
	}
	return &keeper{paths: paths, client: newLocal(paths.SupervisorSocket), log: s.log, events: s.events, now: time.Now}
}

// run looks until ctx ends. known is closed when the supervisor knows its pods.
func (k *keeper) run(ctx context.Context, known <-chan struct{}) error {
	select {
	case <-known:
	case <-ctx.Done():
		return nil
	}
	last := k.now()
	var doubted time.Time // when the clock jumped
	next := last
	for {
		now := k.now()
		if shown := now.Round(0).Sub(last.Round(0)); jumped(shown, now.Sub(last)) { // the second is by the monotonic clock
			k.log.Info("the clock was moved: certificates are looked at once it has stayed there", "by", (shown - now.Sub(last)).String(), "for", believeAfter.String())
			doubted, next = now, now
		}
		last = now
		if !now.Round(0).Before(next.Round(0)) && (doubted.IsZero() || now.Sub(doubted) >= believeAfter) {
			doubted = time.Time{}
			next = k.look(ctx)
		}
		wait := time.NewTimer(max(time.Second, min(retryAfter, next.Round(0).Sub(k.now().Round(0)))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil
		}
	}
}

// jumped tells whether the clock was moved, forward or back: it shows another time than what has passed.
func jumped(shown, passed time.Duration) bool {
	by := shown - passed
	return by > jump || by < -jump
}

// look does what is to be done and returns when to look again.
func (k *keeper) look(ctx context.Context) time.Time {
	items, owns, err := k.renew(ctx)
	if err == nil && items != nil {
		err = k.restart(ctx, items, owns)
	}
	now := k.now()
	switch {
	case ctx.Err() != nil:
		return now
	case errors.As(err, new(*ledger.LockedError)):
		k.log.Info("keeping certificates valid: waiting", "for", err.Error())
		return now.Add(lockedAfter)
	case err != nil:
		k.log.Warn("keeping certificates valid: trying again", "reason", err.Error(), "after", retryAfter.String())
		return now.Add(retryAfter)
	}
	return renewal.NextLook(items, now, now.Add(lookEvery))
}

// renew renews what is due, and returns what is on disk then. Nothing is returned where slipway made no certificates.
func (k *keeper) renew(ctx context.Context) ([]renewal.Item, func(string) bool, error) {
	entries, err := ledger.Load("", k.paths.Ledger)
	if err != nil || len(entries) == 0 {
		return nil, nil, err
	}
	owns := func(path string) bool {
		return slices.ContainsFunc(entries, func(e ledger.Entry) bool { return e.Kind == ledger.File && e.Path == path })
	}
	items := renewal.Survey(artifact.Disk{}, k.paths)
	if !slices.ContainsFunc(items, func(it renewal.Item) bool { return owns(it.Path) }) {
		return nil, nil, nil
	}
	tasks, held := k.plan(items, owns)
	for _, text := range held {
		k.log.Warn(text)
		k.events.Record(event.Event{Type: event.Warning, Reason: event.NotRenewed, Message: text})
	}
	if len(tasks) > 0 {
		if err := k.issue(ctx, owns); err != nil {
			return nil, nil, err
		}
		items = renewal.Survey(artifact.Disk{}, k.paths)
	}
	k.earliest.Store(earliestEnd(items, owns))
	return items, owns, nil
}

// plan returns what is due, and why what is due cannot be renewed here.
func (k *keeper) plan(items []renewal.Item, owns func(string) bool) (tasks []renewal.Task, held []string) {
	now := k.now()
	return renewal.Plan(items, owns, func(name string) (*pki.Authority, error) {
		return pki.OpenAuthority(artifact.Disk{}, k.paths, name, now)
	}, now)
}

// issue renews what is due once it has the lock: others may have renewed it, or replaced its authority, until then.
func (k *keeper) issue(ctx context.Context, owns func(string) bool) error {
	files, release, err := openFiles("", k.paths)
	if err != nil {
		return err
	}
	defer release()
	tasks, _ := k.plan(renewal.Survey(files, k.paths), owns)
	overlay := artifact.NewOverlay(files)
	var items []renewal.Item
	for _, t := range tasks {
		items = append(items, t.Item)
	}
	if err := renewItems(overlay, k.paths, items, nil, k.now()); err != nil {
		return err
	}
	if _, err := overlay.Commit(ctx); err != nil {
		return err
	}
	for _, t := range tasks {
		k.log.Info("certificate renewed", "certificate", t.Name, "file", t.Path, "reason", t.Why)
		k.events.Record(event.Event{Type: event.Normal, Reason: event.Renewed, Message: "Renewed " + t.Path + ": " + t.Why})
	}
	return nil
}

func earliestEnd(items []renewal.Item, owns func(string) bool) int64 {
	var first int64
	for _, it := range items {
		if it.Cert != nil && owns(it.Path) && (first == 0 || it.Cert.NotAfter.Unix() < first) {
			first = it.Cert.NotAfter.Unix()
		}
	}
	return first
}

// errHeld is why a restart that is due has not been made.
var errHeld = errors.New("a restart waits")

// restart restarts the pods that were started before one of their certificates was issued, one after the other.
func (k *keeper) restart(ctx context.Context, items []renewal.Item, owns func(string) bool) error {
	var release func()
	defer func() {
		if release != nil {
			release()
		}
	}()
	for done := map[string]bool{}; ; {
		pods, started, err := k.controlPlane(ctx)
		if err != nil {
			return err
		}
		stale := renewal.Stale(items, owns, started)
		left := byDependency(slices.DeleteFunc(slices.Clone(stale), func(pod string) bool { return done[pod] }))
		if len(left) == 0 {
			return nil
		}
		pod := left[0]
		if why := renewal.MayRestart(pod, pods, stale); why != "" {
			return fmt.Errorf("%w: %s uses an old certificate and is not restarted: %s", errHeld, pod, why)
		}
		if release == nil { // init, apply, certs renew and certs rotate-ca restart pods themselves
			if release, err = ledger.Lock("", k.paths.InitLock); err != nil {
				return err
			}
			continue // one of them may have restarted it just now
		}
		done[pod] = true // once for each look: what does not become well by a restart needs somebody
		if err := restartUsers(ctx, k.client, k.paths, []string{pod}, logWriter{k.log}); err != nil {
			return err
		}
	}
}

// controlPlane returns the pods of the control plane that run here, and when each was started.
func (k *keeper) controlPlane(ctx context.Context) ([]renewal.Pod, map[string]time.Time, error) {
	list, err := k.client.pods(ctx)
	if err != nil {
		return nil, nil, err
	}
	var pods []renewal.Pod
	started := map[string]time.Time{}
	for i := range list.Items {
		p := &list.Items[i]
		name := podName{p.Namespace, p.Name, p.Spec.NodeName}.manifest()
		if p.Namespace != metav1.NamespaceSystem || !slices.Contains(restartOrder, name) {
			continue
		}
		pod := renewal.Pod{Name: name, Ready: isReady(p)}
		for _, other := range restartOrder {
			if needs(name, other) {
				pod.Needs = append(pod.Needs, other)
			}
		}
		pods = append(pods, pod)
		for _, c := range p.Status.ContainerStatuses {
			if c.State.Running != nil && (started[name].IsZero() || c.State.Running.StartedAt.Time.Before(started[name])) {
				started[name] = c.State.Running.StartedAt.Time
			}
		}
	}
	return pods, started, nil
}

// logWriter logs each line that is written to it.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Info(strings.TrimSpace(string(p)))
	return len(p), nil
}
