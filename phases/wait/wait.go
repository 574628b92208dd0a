// Package wait holds init back until the control plane is ready.
package wait

import (
	"context"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// New returns the phase. Its deadline is timeouts.controlPlaneComponentHealthCheck.
func New() phases.Phase {
	return phases.Phase{
		Name:  "wait-control-plane",
		Short: "Wait until every component is ready, and say why one is not",
		Run: func(ctx context.Context, env *phases.Env) error {
			return env.Host.WaitReady(ctx, wanted(env.Config), func(p host.Progress) {
				kind := phases.Progress
				if p.Unit == "" {
					kind = phases.Note
				}
				env.Report(phases.Event{Kind: kind, Text: p.Text, Done: p.Done, Total: p.Total, Unit: p.Unit})
			})
		},
	}
}

// wanted lists the components in the order in which they come up.
func wanted(cfg *config.Cluster) host.Wait {
	const etcd, apiServer, controllerManager, scheduler = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
	w := host.Wait{
		Namespace: "kube-system", NodeName: cfg.NodeName, Deadline: cfg.Timeouts.ControlPlaneComponentHealthCheck,
		Pods:  []string{apiServer, controllerManager, scheduler},
		Needs: map[string][]string{controllerManager: {apiServer}, scheduler: {apiServer}},
	}
	if cfg.Etcd.Local != nil {
		w.Pods = append([]string{etcd}, w.Pods...)
		w.Needs[apiServer] = []string{etcd}
	}
	return w
}
