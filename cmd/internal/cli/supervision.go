package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/hook"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/metrics"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/probe"
	"github.com/slipway-k8s/slipway/runtime/status"
	"github.com/slipway-k8s/slipway/runtime/supervisor"
)

const (
	// runtimeLimit is how long the runtime may stay silent before /healthz says so: two listings are lost.
	runtimeLimit = 3 * resync
	// settleAfter is a few times what a control plane takes to start.
	settleAfter = 20 * time.Second
)

// errNotYet is what a request for a pod gets until the supervisor knows its pods.
var errNotYet = errors.New("the supervisor is still waiting for the container runtime")

// supervision is one run of supervise: the supervisor and everything around it.
type supervision struct {
	paths                                    config.Paths
	instance, nodeName, endpoint, kubeconfig string
	kubelet                                  *kubeletv1beta1.KubeletConfiguration
	shown                                    []byte // the configuration, for /configz
	facts                                    config.HostFacts
	sources                                  []supervisor.Source
	limits                                   limits
	log                                      *slog.Logger
	board                                    *status.Board
	events                                   *event.Log
	health                                   *status.Health

	pods atomic.Pointer[supervisor.Supervisor] // nil until the runtime has answered
}

// run serves the local API at once, and the pods as soon as the container runtime answers. It ends with ctx, or with
// the first part that fails.
func (s *supervision) run(ctx context.Context) error {
	listener, err := status.Listen(s.paths.SupervisorSocket)
	if err != nil {
		return err
	}
	keeper := newKeeper(s)
	if _, _, err := keeper.renew(ctx); err != nil { // before the pods, so that those that are to be started use what is new
		s.log.Warn("renewing certificates: trying again when the pods are known", "reason", err.Error())
	}
	counts := metrics.New(metrics.Config{Board: s.board, RuntimeUp: func() bool { return s.health.OK("runtime") }, CertificateEnd: keeper.earliest.Load})
	server := &status.Server{
		Board: s.board, PodLogs: podLogs(s.kubelet, s.paths), Config: s.shown, Events: s.events, Restart: s.restart,
		Healthy: s.health.Check, Metrics: counts.Handler(),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Serve(ctx, listener) })
	group.Go(func() error { return watchdog(ctx, s.log) })
	group.Go(func() error {
		client, err := awaitRuntime(ctx, s.endpoint, s.log)
		if err != nil {
			return err
		}
		defer client.Close()
		return s.supervise(ctx, client, counts, keeper)
	})
	return group.Wait()
}

// supervise runs the pods through the runtime until ctx ends.
func (s *supervision) supervise(ctx context.Context, client *cri.Client, counts *metrics.Metrics, keeper *keeper) error {
	tree, err := cgroup.Open("/sys/fs/cgroup")
	if err != nil {
		return err
	}
	node, err := s.node(ctx, client, tree.V2())
	if err != nil {
		return err
	}
	store, err := lastgood.OpenStore(s.paths.LastGood)
	if err != nil {
		return err
	}
	hints, err := containerd.Events(ctx, host.SocketPath(s.endpoint))
	if err != nil {
		return err
	}
	runtime, err := containerd.Reach(client, host.SocketPath(s.endpoint))
	if err != nil {
		return err
	}
	defer runtime.Close()
	known := make(chan struct{}) // closed once every pod has been looked at
	exec := execIn(client)
	pods := supervisor.New(supervisor.Config{
		Node: node, Runtime: runtime, Sources: s.sources, Hints: hintsOf(ctx, hints), Board: s.board, Events: s.events,
		Probes: probe.Deps{Logger: s.log, Exec: exec, GRPC: cri.CheckHealth}, Hooks: hook.Runner{Exec: exec, Client: hook.NewClient()},
		Cgroups: tree, Policy: policyOf(s.kubelet), Log: s.log, Now: time.Now, Resync: resync, MaxPulls: s.limits.pulls,
		Good: store, Observe: counts.Observe, Started: counts.PodStarted, RolledBack: counts.RolledBack,
		Listed: func(err error) { s.health.Beat("runtime", err) },
		Ready:  func() { s.ready(known) },
	})
	s.pods.Store(pods)
	s.health.Expect("runtime", runtimeLimit)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return pods.Run(ctx) })
	group.Go(func() error { return s.settle(ctx, known) })
	group.Go(func() error { return keeper.run(ctx, known) })
	group.Go(func() error { return s.rotator(client, counts).Run(ctx) })
	group.Go(func() error { return s.collector(client, node, tree, store, counts, known).Run(ctx) })
	if s.kubeconfig != "" {
		group.Go(func() error {
			return mirrorPods(ctx, known, mirrored{
				kubeconfig: s.kubeconfig, node: node, kubelet: s.kubelet, runtime: client, board: s.board, events: s.events, log: s.log,
			})
		})
	}
	return group.Wait()
}

// node gathers what the conversion of pods needs to know of this host and of its runtime.
func (s *supervision) node(ctx context.Context, client *cri.Client, v2 bool) (podspec.Node, error) {
	n, err := nodeOf(s.kubelet, s.nodeName, s.instance, v2, s.paths, s.facts)
	if err != nil {
		return podspec.Node{}, err
	}
	if s.kubelet.CgroupDriver == "" { // as a kubelet, which asks the runtime
		if n.CgroupDriver, err = client.CgroupDriver(ctx); err != nil {
			return podspec.Node{}, err
		}
	}
	can, err := client.Features(ctx)
	if err != nil {
		return podspec.Node{}, err
	}
	n.RuntimeHandlers, n.RecursiveReadOnlyMounts, n.ImageVolumes = can.Handlers, can.RecursiveReadOnly, can.ImageVolumes
	n.StopSignals, n.SupplementalGroupsPolicy = can.StopSignals, can.SupplementalGroupsPolicy
	return n, nil
}

// ready is told that every pod has been looked at.
func (s *supervision) ready(known chan<- struct{}) {
	close(known)
	s.log.Info("supervising", "node", s.nodeName, "runtime", s.endpoint)
	notify(s.log, daemon.SdNotifyReady)
	s.release()
}

// release gives back what start-up needed and is not needed again.
func (s *supervision) release() {
	debug.FreeOSMemory()
	if err := releaseProgram(); err != nil {
		s.log.Debug("keeping start-up's pages", "reason", err.Error())
	}
}

// settle releases once more when the pods and the API server have come up: their start needed more than their life.
func (s *supervision) settle(ctx context.Context, known <-chan struct{}) error {
	select {
	case <-known:
	case <-ctx.Done():
		return nil
	}
	timer := time.NewTimer(settleAfter)
	defer timer.Stop()
	select {
	case <-timer.C:
		s.release()
	case <-ctx.Done():
	}
	return nil
}

// restart is asked for by the local API.
func (s *supervision) restart(pod, why string) error {
	pods := s.pods.Load()
	if pods == nil {
		return fmt.Errorf("restarting %s: %w", pod, errNotYet)
	}
	return pods.Restart(pod, why)
}
