// Package supervisor starts what runs the control plane: containerd with its images, then the static-pod supervisor.
package supervisor

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// Deps are what the phases need of the program around them.
type Deps struct {
	// ContainerdConfig returns the configuration file of slipway's own containerd.
	ContainerdConfig func(*config.Cluster) ([]byte, error)
	// LookPath returns the absolute path of a program, as exec.LookPath does. Where there is none, the units name its
	// place in distributions' packages, so that they can be rendered on any machine.
	LookPath func(string) (string, error)
}

// configName is the full name of Config's phase, which may stand before the group's other phases.
const configName = "supervisor/config"

// New returns the group "supervisor". Where containerd must be up early, Config goes before it into the workflow: the
// group's first two phases then begin as soon as that is done.
//
//	supervisor/config ─► certs ─► … ─► control-plane ─► supervisor/containerd ─► images ─► supervise
//	                  └─ containerd starts, images are brought ─────────┘
func New(d Deps) phases.Phase {
	return phases.Phase{
		Name: "supervisor", Short: "Start containerd and the supervisor of static pods",
		Phases: []phases.Phase{
			{
				Name: "containerd", Short: "Start slipway's own containerd, or find the one that was named",
				After: []string{configName}, BeginAfter: []string{configName},
				Begin: func(ctx context.Context, env *phases.Env) error { return ensureRuntime(ctx, env, d) },
			},
			{
				Name: "images", Short: "Bring the images of the control plane into containerd's store",
				After: []string{configName}, BeginAfter: []string{configName},
				Begin: func(ctx context.Context, env *phases.Env) error { return ensureImages(ctx, env, d) },
			},
			{
				Name: "supervise", Short: "Start the supervisor of static pods",
				After: []string{"supervisor/containerd"},
				Run:   ensureSupervisor,
			},
		},
	}
}

// Config returns the phase "supervisor/config", which writes what the group's programs are started with. It stands in
// the workflow before New's, best right behind preflight.
func Config(d Deps) phases.Phase {
	return phases.Phase{
		Name: configName, Short: "Write the configuration of slipway's own containerd, and the units of systemd",
		Run: func(_ context.Context, env *phases.Env) error { return writeConfig(env, d) },
	}
}

// Images returns the references that must be in the runtime's store, the sandbox image among them.
func Images(cfg *config.Cluster) []string {
	refs := []string{cfg.Images.Pause, cfg.Images.APIServer, cfg.Images.ControllerManager, cfg.Images.Scheduler}
	if cfg.Etcd.Local != nil {
		refs = append(refs, cfg.Images.Etcd)
	}
	return refs
}

// socket is where the runtime answers.
func socket(cfg *config.Cluster) string {
	if cfg.CRISocket != "" {
		return host.SocketPath(cfg.CRISocket)
	}
	return cfg.Paths.ContainerdSocket
}

func ensureRuntime(ctx context.Context, env *phases.Env, d Deps) error {
	r := host.Runtime{Own: env.Config.CRISocket == "", Socket: socket(env.Config)}
	if r.Own {
		r.Program = d.containerd()
	}
	return env.Host.EnsureRuntime(ctx, r, progress(env))
}

// ensureImages starts the runtime by itself if need be: the phases of the group begin at the same time, and this one may
// be run alone.
func ensureImages(ctx context.Context, env *phases.Env, d Deps) error {
	quiet := *env
	quiet.Report = func(phases.Event) {} // the phase containerd tells
	if err := ensureRuntime(ctx, &quiet, d); err != nil {
		return err
	}
	cfg := env.Config
	return env.Host.EnsureImages(ctx, host.Images{
		Refs: Images(cfg), Archives: cfg.Paths.ImageArchives, Socket: socket(cfg),
		Pull: cfg.ImagePullPolicy != corev1.PullNever, Serial: cfg.ImagePullSerial,
	}, progress(env))
}

func ensureSupervisor(ctx context.Context, env *phases.Env) error {
	return env.Host.EnsureSupervisor(ctx, supervisor(env.Config), progress(env))
}

// supervisor leaves the runtime's endpoint to the KubeletConfiguration, which users may edit.
func supervisor(cfg *config.Cluster) host.Supervisor {
	return host.Supervisor{
		KubeletConfig: cfg.Paths.KubeletConfig, NodeName: cfg.NodeName, Instance: cfg.Instance,
		Kubeconfig: cfg.Paths.Kubeconfig("kubelet.conf"),
	}
}

// progress turns a host's progress into events: plain messages are notes.
func progress(env *phases.Env) func(host.Progress) {
	return func(p host.Progress) {
		kind := phases.Progress
		if p.Unit == "" {
			kind = phases.Note
		}
		env.Report(phases.Event{Kind: kind, Text: p.Text, Done: p.Done, Total: p.Total, Unit: p.Unit})
	}
}
