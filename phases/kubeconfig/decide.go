package kubeconfig

import (
	"fmt"
	"slices"
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

	user string // for Reissue: the user in the file whose certificate is renewed
}

// Existing is a kubeconfig on disk: its current context, with all files that it names read in.
type Existing struct {
	Cluster document.Cluster
	User    document.NamedUser
	Err     error // why the file cannot be read as a kubeconfig
}

// Decide judges the kubeconfig on disk, nil for none, against what is wanted under the cluster's authority.
//
// A client certificate that expired, or is another user's, is renewed. Another server or another authority is refused:
// such a file belongs to another cluster or to another plan, and may be its only copy.
func Decide(w Wanted, have *Existing, a *pki.Authority, now time.Time) Decision {
	d := Decision{Wanted: w}
	external := a.Key == nil
	anew := "remove it to have it written anew"
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
	if !slices.ContainsFunc(a.Certs, trusted[0].Equal) {
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
	switch {
	case err != nil:
		return refuse("%w", err)
	case renew == "":
		return d
	case external:
		return refuse("its client certificate cannot be used: %s, and %q to sign another is not here; bring one that is signed anew", renew, a.KeyPath)
	}
	d.Action, d.Reason, d.user = pki.Reissue, renew, have.User.Name
	return d
}
