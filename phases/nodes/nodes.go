// Package nodes tells what the API shows of a cluster's other nodes while an authority is replaced.
package nodes

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Node is a node as the API shows it. What its kubelet trusts is on its disk, where no API looks.
type Node struct {
	Name string
	// ControlPlane: it has files of the authority itself.
	ControlPlane bool
	// Alive: the controller manager does not miss its reports.
	Alive bool
	// Certified: its kubelet was given a client certificate that the authority signed. That is known for an hour: then the
	// controller manager removes the request with the certificate. It does not tell what the kubelet trusts: one that
	// renewed by itself, while both authorities were trusted, may know the former one only. See Silent.
	Certified bool
}

// kubeletSigner is who signs client certificates of kubelets. k8s.io/api v0.36.3 certificates/v1.
const kubeletSigner = "kubernetes.io/kube-apiserver-client-kubelet"

// controlPlaneLabel is kubeadm's, see phases/markcontrolplane.
const controlPlaneLabel = "node-role.kubernetes.io/control-plane"

// Others returns the cluster's nodes but the one named self, by name, as they are with regard to an authority. ctx needs
// a deadline.
func Others(ctx context.Context, api kubeapi.API, self string, authority *x509.Certificate, now time.Time) ([]Node, error) {
	objects, err := api.List(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "Node"}, "")
	if err != nil {
		return nil, err
	}
	requests, err := api.List(ctx, kubeapi.Ref{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"}, "")
	if err != nil {
		return nil, err
	}
	certified := map[string]bool{}
	for _, r := range requests {
		if node, ok := certifiedNode(r, authority, now); ok {
			certified[node] = true
		}
	}
	var others []Node
	for _, o := range objects {
		if name := o.GetName(); name != self {
			_, controlPlane := o.GetLabels()[controlPlaneLabel]
			others = append(others, Node{Name: name, ControlPlane: controlPlane, Alive: alive(o), Certified: certified[name]})
		}
	}
	slices.SortFunc(others, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return others, nil
}

// certifiedNode returns the node for whose kubelet a request was answered with a certificate of the authority.
func certifiedNode(request unstructured.Unstructured, authority *x509.Certificate, now time.Time) (string, bool) {
	if signer, _, _ := unstructured.NestedString(request.Object, "spec", "signerName"); signer != kubeletSigner {
		return "", false
	}
	text, _, _ := unstructured.NestedString(request.Object, "status", "certificate")
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", false
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil || certs[0].CheckSignatureFrom(authority) != nil || now.After(certs[0].NotAfter) {
		return "", false
	}
	return strings.CutPrefix(certs[0].Subject.CommonName, "system:node:")
}

// alive reads the condition Ready. False is alive: a kubelet says so itself. Unknown is the controller manager's.
func alive(node unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(node.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, ok := c.(map[string]any)
		return ok && m["type"] == "Ready" && m["status"] != "Unknown"
	})
}

// Patience is how long nodes are given to report: three of a kubelet's times, which renews its Lease every 10 s, and less
// than the 40 s and more after which the controller manager misses a node.
const Patience = 30 * time.Second

// Silent returns those of the named nodes that do not report within the patience, in the order of the names. A node
// reports by renewing its Lease. The times in it are of the node's own clock, and only compared with each other.
func Silent(ctx context.Context, api kubeapi.API, names []string, patience time.Duration) ([]string, error) {
	limited, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("gave up after %s", patience))
	defer cancel()
	missed, errs := make([]bool, len(names)), make([]error, len(names))
	var group errgroup.Group
	for i, name := range names {
		group.Go(func() error {
			lease := kubeapi.Ref{APIVersion: "coordination.k8s.io/v1", Kind: "Lease", Namespace: "kube-node-lease", Name: name}
			if err := api.Await(limited, lease, "is renewed", renewed(), func(kubeapi.Report) {}); err != nil {
				if missed[i] = limited.Err() != nil; !missed[i] {
					errs[i] = err
				}
			}
			return nil
		})
	}
	group.Wait() //nolint:errcheck // the errors are in errs
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("waiting for the reports of %s: %w", strings.Join(names, ", "), err)
	}
	var silent []string
	for i, name := range names {
		if missed[i] {
			silent = append(silent, name)
		}
	}
	return silent, errors.Join(errs...)
}

// renewed returns a condition that holds from the second renewal on that it is shown.
func renewed() func(*unstructured.Unstructured) bool {
	first, seen := "", false
	return func(lease *unstructured.Unstructured) bool {
		at, _, _ := unstructured.NestedString(lease.Object, "spec", "renewTime")
		if !seen {
			first, seen = at, true
		}
		return at != first
	}
}
