package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Action is what is to be done about one certificate.
type Action int

const (
	Reuse   Action = iota // it is on disk and good for what is wanted
	Issue                 // it is not there
	Reissue               // it is there, slipway can replace it, and must: Reason says why
	Refuse                // only a person can put it right: Err says what and how
)

func (a Action) String() string {
	return [...]string{"reuse", "issue", "reissue", "refuse"}[a]
}

// Pair is what is on disk of a certificate and its key. Contents are nil where there is no file.
type Pair struct {
	CertPath, KeyPath string
	Cert, Key         []byte
}

// Decision is what to do about one certificate, and why.
type Decision struct {
	Wanted
	Pair   Pair
	Action Action
	Reason string // for Reissue, and for Issue to a key that was there
	Err    error  // for Refuse

	key       crypto.Signer // on disk and to be kept; nil asks for a fresh one
	authority *Authority    // its own, or the one that signs it; nil when that is refused. Without Certs it is yet to be issued
}

// Decide judges what is on disk against what is wanted. disk has a Pair for every wanted certificate, by name; want
// holds each authority before what it signs. The result has the order of want.
//
//	files        authority                             leaf
//	none         issue; refuse if leaves are there     issue; refuse without the authority's key
//	key only     issue to that key                     issue to that key; refuse without the authority's key
//	cert only    reuse: the key is kept elsewhere      reissue; refuse without the authority's key
//	both         reuse; refuse what is not sound       reuse; reissue when expired or not covering what is wanted,
//	                                                   refuse what is not sound
//
// A certificate that replaces another keeps its key, so that one file changes: there is no moment at which a crash
// leaves a certificate and a key that do not belong together.
func Decide(want []Wanted, disk map[string]Pair, now time.Time) []Decision {
	authorities := map[string]Decision{}
	var decisions []Decision
	for _, w := range want {
		var d Decision
		if w.IsAuthority() {
			d = decideAuthority(w, want, disk, now)
			authorities[w.Name] = d
		} else {
			d = decideLeaf(w, disk[w.Name], authorities[w.CA], now)
		}
		decisions = append(decisions, d)
	}
	nameMissingFiles(decisions)
	return decisions
}

func decideAuthority(w Wanted, want []Wanted, disk map[string]Pair, now time.Time) Decision {
	p := disk[w.Name]
	d := Decision{Wanted: w, Pair: p}
	if p.Cert != nil {
		a, err := loadAuthority(p, now)
		if err != nil {
			return d.refuse(err)
		}
		d.authority = a
		return d
	}
	d.Action = Issue
	d.authority = &Authority{CertPath: p.CertPath, KeyPath: p.KeyPath}
	if p.Key != nil {
		key, err := ParseKey(p.Key)
		if err != nil {
			return d.refuse(fmt.Errorf("reading %q: %w; restore it from a backup, or remove it to have a new authority made", p.KeyPath, err))
		}
		d.Reason = fmt.Sprintf("%q was missing", p.CertPath)
		d.key, d.authority.Key = key, key
		return d
	}
	// A new authority would leave what the old one signed without anyone who trusts it.
	var orphans []string
	for _, l := range want {
		if l.CA == w.Name && disk[l.Name].Cert != nil {
			orphans = append(orphans, disk[l.Name].CertPath)
		}
	}
	if len(orphans) > 0 {
		return d.refuse(fmt.Errorf("certificate authority %q is missing, while certificates that it signed are there: %s; put it back, or remove them to start with a new one",
			p.CertPath, strings.Join(orphans, ", ")))
	}
	return d
}

// loadAuthority returns the authority of a pair whose certificate is there, or says why it cannot be used.
func loadAuthority(p Pair, now time.Time) (*Authority, error) {
	const restore = "restore it from a backup, or remove it together with its key and all that it signed to start with a new one"
	certs, err := ParseCertificates(p.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authority %q: %w; %s", p.CertPath, err, restore)
	}
	c := certs[0]
	switch {
	case !c.IsCA || c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, fmt.Errorf("certificate %q of %q may not sign others: it is no certificate authority; %s", p.CertPath, c.Subject.CommonName, restore)
	case now.Before(c.NotBefore):
		return nil, notYetValid(p.CertPath, c, now)
	case now.After(c.NotAfter):
		return nil, fmt.Errorf("certificate authority %q expired on %s; put a renewed certificate for the same key in its place, "+
			"or remove it together with its key and all that it signed to start with a new one", p.CertPath, date(c.NotAfter))
	}
	a := &Authority{CertPath: p.CertPath, KeyPath: p.KeyPath, Certs: certs}
	if p.Key == nil {
		return a, nil
	}
	if a.Key, err = ParseKey(p.Key); err != nil {
		return nil, fmt.Errorf("reading %q: %w; restore it from a backup, or remove it if the key is kept elsewhere", p.KeyPath, err)
	}
	if !samePublicKey(a.Key, c.PublicKey) {
		return nil, fmt.Errorf("certificate authority %q and key %q do not belong together; bring the key that does, or remove it if the key is kept elsewhere",
			p.CertPath, p.KeyPath)
	}
	return a, nil
}

func decideLeaf(w Wanted, p Pair, ca Decision, now time.Time) Decision {
	d := Decision{Wanted: w, Pair: p}
	if ca.Action == Refuse {
		return d.refuse(ca.Err)
	}
	d.authority = ca.authority
	anew := fmt.Sprintf("bring sound files, or remove %q and %q to have them made anew", p.CertPath, p.KeyPath)
	if d.authority.external() {
		anew = fmt.Sprintf("bring sound files: %q is not here, so they cannot be made", d.authority.KeyPath)
	}
	key, renew, err := d.authority.judge(w.Request, p, anew, now)
	d.key = key
	switch {
	case err != nil:
		return d.refuse(err)
	case p.Cert == nil && p.Key == nil:
		return d.issue(Issue, "")
	case p.Cert == nil:
		return d.issue(Issue, fmt.Sprintf("%q was missing", p.CertPath))
	case renew != "":
		return d.issue(Reissue, renew)
	}
	return d
}

func (d Decision) refuse(err error) Decision {
	d.Action, d.Err = Refuse, err
	return d
}

// issue turns to Refuse where the authority's key is kept elsewhere.
func (d Decision) issue(action Action, reason string) Decision {
	if !d.authority.external() {
		d.Action, d.Reason = action, reason
		return d
	}
	if d.Pair.Cert == nil || d.Pair.Key == nil {
		return d.refuse(missingFilesError{authority: d.authority.CertPath, authorityKey: d.authority.KeyPath})
	}
	return d.refuse(fmt.Errorf("certificate %q cannot be used: %s, and %q to sign another is not here; sign it anew where that key is kept",
		d.Pair.CertPath, reason, d.authority.KeyPath))
}

// missingFilesError is about all files that a person has to bring because the authority's key is elsewhere.
type missingFilesError struct {
	authority, authorityKey string
	files                   []string
}

func (e missingFilesError) Error() string {
	return fmt.Sprintf("%q is not here, so what it signs must be: missing %s; sign them where that key is kept and bring them, "+
		"bring the key, or remove %q if nothing needs it, to have a new authority made",
		e.authorityKey, strings.Join(e.files, ", "), e.authority)
}

// nameMissingFiles completes each missingFilesError with the files of all decisions under the same authority.
func nameMissingFiles(decisions []Decision) {
	files := map[string][]string{} // by authority key
	for _, d := range decisions {
		if e, ok := errors.AsType[missingFilesError](d.Err); ok {
			if d.Pair.Cert == nil {
				files[e.authorityKey] = append(files[e.authorityKey], d.Pair.CertPath)
			}
			if d.Pair.Key == nil {
				files[e.authorityKey] = append(files[e.authorityKey], d.Pair.KeyPath)
			}
		}
	}
	for i, d := range decisions {
		if e, ok := errors.AsType[missingFilesError](d.Err); ok {
			e.files = files[e.authorityKey]
			decisions[i].Err = e
		}
	}
}
