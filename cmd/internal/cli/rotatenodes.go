package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/nodes"
)

// nodeSteps are what makes a node do without the former authority.
const nodeSteps = `for each worker NAME, print a kubeconfig here; it is a secret:
  slipway kubeconfig user --client-name system:node:NAME --org system:nodes >NAME.conf
on the worker, put it in the place of /etc/kubernetes/kubelet.conf, and this node's ca.crt in that of /etc/kubernetes/pki/ca.crt, then:
  rm -f /var/lib/kubelet/pki/kubelet-client-*.pem && systemctl restart kubelet
and once /var/lib/kubelet/pki/kubelet-client-current.pem is there:
  sed -i -E 's#client-(certificate|key)-data:.*#client-\1: /var/lib/kubelet/pki/kubelet-client-current.pem#' /etc/kubernetes/kubelet.conf
on a control-plane node, carry the authority's files over and take it to the same stage with: slipway certs rotate-ca
a node that is gone for good: kubectl delete node NAME`

// tryIt is what else can be done about nodes of which nothing is known.
const tryIt = `
a certificate is seen for an hour after it was signed, and never that of a control-plane node without a kubelet
--force tries it, and brings the overlap back where a node that is alive falls silent`

// others returns the other nodes of the cluster, with regard to the authority that signs. Only the cluster's own authority
// concerns them.
func (r *rotator) others(ctx context.Context) ([]nodes.Node, error) {
	if r.CA != "ca" {
		return nil, nil
	}
	signer, err := r.Signer()
	if err != nil {
		return nil, err
	}
	var others []nodes.Node
	err = r.ask(ctx, func(ctx context.Context, api kubeapi.API, self string) (err error) {
		others, err = nodes.Others(ctx, api, self, signer, r.now())
		return err
	})
	if err != nil {
		return nil, withHint(fmt.Errorf("the other nodes cannot be looked at: %w", err),
			"slipway status"+r.suffix+" tells how the API server is\nto drop the former authority nevertheless: --force")
	}
	return others, nil
}

// unshown is an error where nodes cannot be shown to do without the former authority.
func unshown(others []nodes.Node) error {
	var workers, controlPlanes []string
	for _, n := range others {
		switch {
		case n.Certified:
		case n.ControlPlane:
			controlPlanes = append(controlPlanes, n.Name)
		default:
			workers = append(workers, n.Name)
		}
	}
	var parts []string
	if len(workers) > 0 {
		parts = append(parts, "workers "+strings.Join(workers, ", "))
	}
	if len(controlPlanes) > 0 {
		parts = append(parts, "control-plane nodes "+strings.Join(controlPlanes, ", "))
	}
	if len(parts) == 0 {
		return nil
	}
	return withHint(fmt.Errorf("these cannot be shown to have a certificate of the next authority: %s", strings.Join(parts, "; ")), nodeSteps+tryIt)
}

// silent returns those of the nodes that were alive and do not report now.
func (r *rotator) silent(ctx context.Context, others []nodes.Node) ([]string, error) {
	var alive, dead []string
	for _, n := range others {
		if n.Alive {
			alive = append(alive, n.Name)
		} else {
			dead = append(dead, n.Name)
		}
	}
	if len(dead) > 0 {
		r.progress("not waited for, as they did not report before either: " + strings.Join(dead, ", "))
	}
	if len(alive) == 0 {
		return nil, nil
	}
	r.progress(fmt.Sprintf("waiting up to %s until these nodes report: %s", r.patience, strings.Join(alive, ", ")))
	api, _, err := r.cluster()
	if err != nil {
		return nil, err
	}
	return nodes.Silent(ctx, api, alive, r.patience)
}

// shutOut is what is wrong with silent nodes.
func shutOut(silent []string) error {
	return fmt.Errorf("these nodes do not report when only one authority is trusted: %s", strings.Join(silent, ", "))
}
