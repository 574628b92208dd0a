package kubeconfig

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Decision is what to do about one kubeconfig, and why.
type Decision struct {
	Wanted
	Action pki.Action
	Reason string // for Reissue
	Err    error  // for Refuse
}

// Existing is a kubeconfig on disk: its current context, with all files that it names read in.
type Existing struct {
	Cluster document.Cluster
	User    document.NamedUser
	Err     error // why the file cannot be read as a kubeconfig
}

// Decide judges the kubeconfig on disk, nil for none, against what is wanted under the cluster's authority.
//
// A client certificate that expired, or is another user's, is renewed; so is the copy of an authority that was renewed. Another server or another authority is refused:
// such a file belongs to another cluster or to another plan, and may be its only copy.
func Decide(w Wanted, have *Existing, a *pki.Authority, now time.Time) Decision {
	d := Decision{Wanted: w}
	external := a.Key == nil
	anew := "remove it to have it written anew" // the next step
	if external {
		anew = fmt.Sprintf("bring one that is sound: %q is not here, so it cannot be written", a.KeyPath)
	}
	refuse := func(format string, args ...any) Decision {
		d.Action, d.Err = pki.Refuse, fmt.Errorf("kubeconfig %q: "+format, append([]any{w.Path}, args...)...)
		return d
	}
	if have == nil {
		if external {
			return refuse("it is missing, and %q to write it is not here; make it where that key is kept and bring it", a.KeyPath)
		}
		d.Action = pki.Issue
		return d
	}
	if have.Err != nil {
		return refuse("%w; %s", have.Err, anew)
	}
	trusted, err := pki.ParseCertificates(have.Cluster.CertificateAuthorityData)
	if err != nil {
		return refuse("reading its certificate authority: %w; %s", err, anew)
	}
	same, sameKey := shared(trusted, a.Certs)
	if !sameKey {
		return refuse("the certificate authority in it is not %q; %s, or put back the authority that it belongs to", a.CertPath, anew)
	}
	if got := strings.TrimSuffix(have.Cluster.Server, "/"); got != w.Server {
		return refuse("it points at %q, not at %q; %s, or configure the address that it points at", got, w.Server, anew)
	}
	u := have.User.User
	if len(u.ClientCertificateData) == 0 {
		if u.HasOtherCredentials() {
			return d // whoever put them there knows what they are good for
		}
		return refuse("its user %q has no credentials; %s", have.User.Name, anew)
	}
	pair := pki.Pair{CertPath: "client-certificate", KeyPath: "client-key", Cert: u.ClientCertificateData, Key: u.ClientKeyData}
	if len(pair.Key) == 0 {
		pair.Key = nil
	}
	renew, err := a.Judge(w.Request, pair, anew, now)
	if renew == "" && !same {
		renew = fmt.Sprintf("it has an older certificate of the authority %q", a.CertPath)
	}
	switch {
	case err != nil:
		return refuse("%w", err)
	case renew == "":
		return d
	case external:
		return refuse("it cannot be used: %s, and %q to renew it is not here; make it anew where that key is kept and bring it", renew, a.KeyPath)
	}
	d.Action, d.Reason = pki.Reissue, renew
	return d
}

// shared reports whether the two lists share a certificate, and whether they share an authority, known by its name and
// its key: an authority that was renewed has another certificate for the same.
func shared(trusted, authority []*x509.Certificate) (same, sameKey bool) {
	for _, t := range trusted {
		for _, a := range authority {
			same = same || t.Equal(a)
			sameKey = sameKey || bytes.Equal(t.RawSubject, a.RawSubject) && bytes.Equal(t.RawSubjectPublicKeyInfo, a.RawSubjectPublicKeyInfo)
		}
	}
	return same, sameKey
}
