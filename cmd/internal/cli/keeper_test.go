package cli

import (
	"bytes"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
	"github.com/slipway-k8s/slipway/runtime/event"
)

// keeper returns one for the node, at noon, over files that init made a year before, and what it logs.
func (n *node) keeper(record bool) (*keeper, *bytes.Buffer) {
	n.t.Helper()
	dir := n.t.TempDir()
	c := &config.Cluster{
		NodeName: "n1", ClusterName: "kubernetes", AdvertiseAddress: netip.MustParseAddr("192.0.2.10"), BindPort: 6443, DNSDomain: "cluster.local",
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, Etcd: config.Etcd{Local: &config.LocalEtcd{}}, KeyAlgorithm: config.ECDSAP256,
		CertificateValidity: 300 * 24 * time.Hour, CAValidity: 3000 * 24 * time.Hour,
		Paths: config.Paths{Kubernetes: dir, PKI: filepath.Join(dir, "pki"), State: dir, Ledger: filepath.Join(dir, "ledger.jsonl"), InitLock: filepath.Join(dir, "init.lock")},
	}
	book, err := openBook("", c.Paths)
	if err != nil {
		n.t.Fatal(err)
	}
	files := ledger.Recorded(artifact.Disk{}, book.Ledger)
	for _, group := range []phases.Phase{pki.New(), kubeconfig.New()} {
		for _, p := range group.Phases {
			env := &phases.Env{Config: c, Files: files, Now: func() time.Time { return noon.AddDate(-1, 0, 0) }, Report: func(phases.Event) {}}
			if err := p.Run(n.t.Context(), env); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	book.close()
	if !record {
		if err := (artifact.Disk{}).Remove(c.Paths.Ledger); err != nil {
			n.t.Fatal(err)
		}
	}
	var log bytes.Buffer
	return &keeper{paths: c.Paths, client: newLocal(n.g.socket), log: slog.New(slog.NewTextHandler(&log, nil)), events: n.events, now: func() time.Time { return noon }}, &log
}

// TestKeeperRenewsAndRestarts: after everything has expired while nobody looked, all is renewed, and the pods that run
// with what was there before are restarted one after the other.
func TestKeeperRenewsAndRestarts(t *testing.T) {
	n := newNode(t)
	for _, pod := range []string{"kube-scheduler", "etcd"} {
		n.again(pod, 0)
	}
	n.obey = func(pod string) error {
		n.again(strings.TrimSuffix(strings.TrimPrefix(pod, "kube-system/"), "-n1"), 7) // which starts at one o'clock
		return nil
	}
	k, log := n.keeper(true)
	if next := k.look(t.Context()); !next.Equal(noon.Add(lookEvery)) {
		t.Errorf("it looks again at %s:\n%s", next, log)
	}
	for _, it := range renewal.Survey(artifact.Disk{}, k.paths) {
		if it.Cert == nil || renewal.Due(it, noon) != "" || !pki.IssuedAt(it.Cert).Equal(noon) {
			t.Errorf("%s was not renewed: %v", it.Name, it.Err)
		}
	}
	if want := []string{"kube-system/etcd-n1: its certificates are new", "kube-system/kube-scheduler-n1: its certificates are new"}; !slices.Equal(n.restarts, want) {
		t.Errorf("restarted %q, want %q", n.restarts, want)
	}
	events, _ := n.events.Since(0)
	if len(events) != 12 || events[0].Reason != event.Renewed || !strings.Contains(events[0].Message, "it expired on ") {
		t.Errorf("events %v", events)
	}
	if got := time.Unix(k.earliest.Load(), 0); !got.Equal(noon.Add(300 * 24 * time.Hour)) {
		t.Errorf("the first ends at %s", got)
	}
	log.Reset()
	k.look(t.Context())
	if len(n.restarts) != 2 || log.Len() > 0 {
		t.Errorf("a second look restarted %q and said\n%s", n.restarts[2:], log)
	}
}

// TestKeeperGoesOnAfterACrash: it was killed between the renewal and the restarts.
func TestKeeperGoesOnAfterACrash(t *testing.T) {
	n := newNode(t)
	n.again("etcd", 0)
	k, _ := n.keeper(true)
	if _, _, err := k.renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.obey = func(string) error { n.again("etcd", 7); return nil }
	again := &keeper{paths: k.paths, client: k.client, log: k.log, events: n.events, now: k.now}
	again.look(t.Context())
	if want := []string{"kube-system/etcd-n1: its certificates are new"}; !slices.Equal(n.restarts, want) {
		t.Errorf("restarted %q, want %q", n.restarts, want)
	}
}

// TestKeeperPlansUnderTheLock: what somebody else has renewed since the keeper looked is not renewed again.
func TestKeeperPlansUnderTheLock(t *testing.T) {
	k, _ := newNode(t).keeper(true)
	all := func(string) bool { return true }
	if err := k.issue(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	renewed := renewal.Survey(artifact.Disk{}, k.paths)
	if err := k.issue(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	for i, it := range renewal.Survey(artifact.Disk{}, k.paths) {
		if it.Cert == nil || !pki.IssuedAt(it.Cert).Equal(noon) || !it.Cert.Equal(renewed[i].Cert) {
			t.Errorf("%s was not renewed once: %v", it.Name, it.Err)
		}
	}
}

// TestKeeperWaits while another pod is down, and while somebody else changes this machine.
func TestKeeperWaits(t *testing.T) {
	n := newNode(t)
	n.again("etcd", 0)
	down := runs("main", 8)
	down.Probe.Ready = false
	n.board.Publish(viewOf(staticPod(t, "kube-system", "kube-scheduler", oneContainer), down))
	k, log := n.keeper(true)
	if next := k.look(t.Context()); !next.Equal(noon.Add(retryAfter)) || len(n.restarts) > 0 || !strings.Contains(log.String(), "etcd uses an old certificate and is not restarted: kube-scheduler is not ready") {
		t.Errorf("until %s, restarted %q:\n%s", next, n.restarts, log)
	}
	n.again("kube-scheduler", 8)
	release, err := ledger.Lock("", k.paths.InitLock)
	if err != nil {
		t.Fatal(err)
	}
	if next := k.look(t.Context()); !next.Equal(noon.Add(lockedAfter)) || len(n.restarts) > 0 || !strings.Contains(log.String(), "another slipway") {
		t.Errorf("until %s, restarted %q:\n%s", next, n.restarts, log)
	}
	release()
}

// TestKeeperLeavesWhatIsNotSlipways: without a ledger nothing is read, renewed or restarted.
func TestKeeperLeavesWhatIsNotSlipways(t *testing.T) {
	n := newNode(t)
	n.again("etcd", 0)
	k, log := n.keeper(false)
	before := renewal.Survey(artifact.Disk{}, k.paths)
	k.look(t.Context())
	for i, it := range renewal.Survey(artifact.Disk{}, k.paths) {
		if !it.Cert.Equal(before[i].Cert) {
			t.Errorf("%s was renewed", it.Name)
		}
	}
	if len(n.restarts) > 0 || log.Len() > 0 || k.earliest.Load() != 0 {
		t.Errorf("restarted %q:\n%s", n.restarts, log)
	}
}

func TestJumped(t *testing.T) {
	for _, tc := range []struct {
		shown, passed time.Duration
		want          bool
	}{
		{time.Hour, time.Hour, false},
		{time.Hour + 30*time.Second, time.Hour, false}, // slewed
		{365 * 24 * time.Hour, time.Minute, true},
		{-time.Hour, time.Minute, true},
		{0, 2 * time.Minute, true},
	} {
		if got := jumped(tc.shown, tc.passed); got != tc.want {
			t.Errorf("shown %s, passed %s: %v", tc.shown, tc.passed, got)
		}
	}
}
