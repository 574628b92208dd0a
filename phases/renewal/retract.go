package renewal

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// trustRef names the ConfigMap by which the API server tells others, aggregated API servers and the scheduler among them,
// whose client certificates to accept.
func trustRef() kubeapi.Ref {
	return kubeapi.Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "extension-apiserver-authentication"}
}

// trustKey is the authority's key in that ConfigMap; "" where it has none.
func (r *Rotation) trustKey() string {
	switch r.CA {
	case "ca":
		return "client-ca-file"
	case "front-proxy-ca":
		return "requestheader-client-ca-file"
	}
	return ""
}

// Retract takes the authority that Settle has dropped out of what the API server tells others to trust, once it runs with
// what Settle wrote. The API server itself only ever adds to that, and leaves out what has expired: v1.36.3
// pkg/controlplane/controller/clusterauthenticationtrust. What somebody else has added stays. ctx needs a deadline.
func (r *Rotation) Retract(ctx context.Context, api kubeapi.API, report func(kubeapi.Report)) error {
	key := r.trustKey()
	if key == "" {
		return nil
	}
	dropped, err := r.dropped()
	if err != nil || len(dropped) == 0 {
		return err
	}
	if _, err := api.Get(ctx, trustRef()); errors.Is(err, kubeapi.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return api.Edit(ctx, trustRef(), "the dropped authority is not in "+key, func(o *unstructured.Unstructured) error {
		text, _, err := unstructured.NestedString(o.Object, "data", key)
		if err != nil || text == "" {
			return err
		}
		certs, err := pki.ParseCertificates([]byte(text))
		if err != nil {
			return fmt.Errorf("reading its %s: %w", key, err)
		}
		kept := slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return slices.ContainsFunc(dropped, c.Equal) })
		if len(kept) == len(certs) {
			return nil
		}
		return unstructured.SetNestedField(o.Object, string(pki.EncodeCertificates(kept...)), "data", key)
	}, report)
}

// dropped are the authorities of the rotation that are not trusted now.
func (r *Rotation) dropped() ([]*x509.Certificate, error) {
	trusted, err := r.certificates(r.at.cert)
	if err != nil {
		return nil, err
	}
	var dropped []*x509.Certificate
	for _, name := range []string{r.at.formerCert, r.at.nextCert} {
		c, err := r.certificate(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(trusted, c.Equal) {
			dropped = append(dropped, c)
		}
	}
	return dropped, nil
}
