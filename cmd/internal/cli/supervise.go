package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/runtime/containerd"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/status"
	"github.com/slipway-k8s/slipway/runtime/supervisor"
)

const (
	// resync is how often the whole runtime is listed without a hint. See supervisor.Config.
	resync = 10 * time.Second
	// heapTarget makes the garbage collector work a little more for a lot less memory: the supervisor allocates
	// little, and what it keeps resident it takes from the control plane.
	heapTarget = 30 // percent, GOGC
	// kubeletLock is where a kubelet that is started with --lock-file keeps the lock that this process holds, so that
	// the two never run the same pods.
	kubeletLock = "/run/lock/kubelet.lock"
)

// superviseFlags are those of supervise.
type superviseFlags struct {
	config     string
	sources    sourceFlags
	nodeName   string
	criSocket  string
	kubeconfig string
	verbose    bool
}

func newSupervise(std Streams, g *global) *cobra.Command {
	var f superviseFlags
	cmd := &cobra.Command{
		Use: "supervise", Short: "Run the static pods of a manifest directory, in the foreground", Args: noArguments,
		Long: "supervise reads a KubeletConfiguration and runs the static pods of its staticPodPath and staticPodURL through the container\n" +
			"runtime at its containerRuntimeEndpoint. It needs no init before it. Ending it ends no pod: started again, it adopts what runs.\n\n" +
			"The flags for manifests take the place of the file's fields, as a kubelet's do; with one of them the file may be missing.",
		Example: "  slipway supervise --config /var/lib/kubelet/config.yaml --node-name edge1\n" +
			"  slipway supervise --pod-manifest-path /srv/pods --cri-socket /run/containerd/containerd.sock\n" +
			"  slipway supervise --manifest-url https://pods.example.com/edge1 --manifest-url-header 'Authorization: Bearer TOKEN'",
		RunE: func(cmd *cobra.Command, _ []string) error { return runSupervise(cmd.Context(), std, g, f) },
	}
	cmd.Flags().StringVar(&f.config, "config", "", "KubeletConfiguration `FILE` (default /var/lib/kubelet/config.yaml)")
	f.sources.register(cmd.Flags())
	cmd.Flags().StringVar(&f.nodeName, "node-name", "", "`NAME` of this node, the suffix of its pods' names; default: the host name")
	cmd.Flags().StringVar(&f.criSocket, "cri-socket", "", "`SOCKET` of the container runtime, instead of the file's containerRuntimeEndpoint")
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of this node, system:node:NAME: also show the node and its pods in the Kubernetes API")
	cmd.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "also log what changes nothing")
	return cmd
}

func runSupervise(ctx context.Context, std Streams, g *global, f superviseFlags) error {
	debug.SetGCPercent(heapTarget)
	paths := g.paths()
	kubelet, err := superviseConfig(&f, paths)
	if err != nil {
		return err
	}
	facts, err := host.GatherFacts(host.FactSources{Environ: std.Environ})
	if err != nil {
		return err
	}
	if f.nodeName == "" {
		f.nodeName = strings.ToLower(facts.Hostname)
	}
	sources, err := manifestSources(kubelet, f.nodeName)
	if err != nil {
		return fmt.Errorf("%s: %w", f.config, err)
	}
	limits, err := limitsOf(kubelet)
	if err != nil {
		return fmt.Errorf("%s: %w", f.config, err)
	}
	// What is in force, so that others find the runtime through /configz.
	kubelet.ContainerRuntimeEndpoint = cmp.Or(f.criSocket, kubelet.ContainerRuntimeEndpoint, "unix://"+paths.ContainerdSocket)
	shown, err := shownConfig(kubelet)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", f.config, err)
	}
	release, err := lockSupervisor(paths)
	if err != nil {
		return err
	}
	defer release()

	level := slog.LevelInfo
	if f.verbose {
		level = slog.LevelDebug
	}
	s := &supervision{
		paths: paths, instance: g.instance, nodeName: f.nodeName, kubeconfig: f.kubeconfig,
		endpoint: kubelet.ContainerRuntimeEndpoint,
		kubelet:  kubelet, shown: shown, facts: facts, sources: sources, limits: limits,
		log:   slog.New(slog.NewTextHandler(std.Err, &slog.HandlerOptions{Level: level})),
		board: status.NewBoard(), events: event.NewLog(time.Now), health: status.NewHealth(time.Now),
	}
	err = s.run(ctx)
	notify(s.log, daemon.SdNotifyStopping)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// policyOf is what the configuration says about restarts.
func policyOf(c *kubeletv1beta1.KubeletConfiguration) lifecycle.Policy {
	if c.CrashLoopBackOff.MaxContainerRestartPeriod == nil {
		return lifecycle.Policy{}
	}
	return lifecycle.Policy{MaxRestartPeriod: c.CrashLoopBackOff.MaxContainerRestartPeriod.Duration}
}

// lockSupervisor makes sure that nobody else runs the same pods: no second supervisor, and no kubelet that was started
// with --lock-file at the usual place.
func lockSupervisor(paths config.Paths) (release func(), err error) {
	own, err := ledger.Lock("", paths.SupervisorLock)
	if err != nil {
		return nil, lockedBy(err, "another supervisor")
	}
	if paths != config.NewPaths("") {
		return own, nil // further instances have manifest directories of their own
	}
	kubelet, err := ledger.Lock("", kubeletLock)
	if err != nil {
		own()
		return nil, lockedBy(err, "a kubelet")
	}
	return func() { kubelet(); own() }, nil
}

func lockedBy(err error, who string) error {
	var locked *ledger.LockedError
	if !errors.As(err, &locked) {
		return err
	}
	return fmt.Errorf("%s, pid %d, runs this node's pods already (it holds %s)", who, locked.PID, locked.Path)
}

// awaitRuntime connects to the runtime, however long it takes to come up: after a boot containerd may be slower.
func awaitRuntime(ctx context.Context, endpoint string, log *slog.Logger) (*cri.Client, error) {
	pause := 50 * time.Millisecond
	for said := ""; ; {
		client, err := cri.Dial(ctx, endpoint)
		if err == nil || ctx.Err() != nil {
			return client, err
		}
		if said != err.Error() {
			said = err.Error()
			log.Warn("waiting for the container runtime", "reason", said)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
}

// hintsOf turns containerd's events into the supervisor's hints. It ends with ctx.
func hintsOf(ctx context.Context, events <-chan containerd.Hint) <-chan supervisor.Hint {
	hints := make(chan supervisor.Hint)
	go func() { // ends with ctx, which closes events
		defer close(hints)
		for e := range events {
			hint := supervisor.Hint{ID: e.ContainerID, Images: strings.HasPrefix(e.Topic, "/images/")}
			if e.Exit != nil {
				hint.Exit = &supervisor.Exit{Code: int32(e.Exit.Code), At: e.Exit.At}
			}
			select {
			case hints <- hint:
			case <-ctx.Done():
				return
			}
		}
	}()
	return hints
}

// execIn runs commands in containers, for probes and hooks.
func execIn(client *cri.Client) func(ctx context.Context, id string, cmd []string, timeout time.Duration) (string, int, error) {
	return func(ctx context.Context, id string, cmd []string, timeout time.Duration) (string, int, error) {
		r, err := client.ExecSync(ctx, id, cmd, timeout)
		if cri.IsTimeout(err) {
			return "", 0, fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		if err != nil {
			return "", 0, err
		}
		return string(r.GetStdout()) + string(r.GetStderr()), int(r.GetExitCode()), nil
	}
}

// notify tells systemd, where it listens.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("notifying systemd", "reason", err.Error())
	}
}

// watchdog tells systemd at half of its interval that this process is alive.
func watchdog(ctx context.Context, log *slog.Logger) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("reading the watchdog's interval: %w", err)
	}
	if every == 0 {
		return nil
	}
	ticker := time.NewTicker(every / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			notify(log, daemon.SdNotifyWatchdog)
		}
	}
}
