package kubelet

import (
	"context"

	"github.com/slipway-k8s/slipway/phases"
)

// Finalize returns kubeadm's phase "kubelet-finalize", which has nothing to do here: there, it has the kubelet of this
// node use the client certificate that it rotates. It is kept so that --skip-phases lists that are written for kubeadm
// hold.
func Finalize() phases.Phase {
	nothing := func(context.Context, *phases.Env) error { return nil }
	return phases.Phase{
		Name:  "kubelet-finalize",
		Short: "Nothing on a node without a kubelet; here because kubeadm has it",
		Phases: []phases.Phase{
			{Name: "enable-client-cert-rotation", Short: "Nothing: the supervisor's client certificate is not rotated by a kubelet", Run: nothing},
		},
	}
}
