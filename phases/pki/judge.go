package pki

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Judge looks at a client's or server's certificate and key against what is wanted. It returns "" where they are good,
// else why the certificate is to be renewed. The error is for what nobody but a person can put right; it ends with the
// next step, anew. The paths of p are only named.
func (a *Authority) Judge(r Request, p Pair, anew string, now time.Time) (renew string, err error) {
	_, renew, err = a.judge(r, p, anew, now)
	return renew, err
}

// judge returns the key as well, where there is one. It passes over files that are not there.
func (a *Authority) judge(r Request, p Pair, anew string, now time.Time) (key crypto.Signer, renew string, err error) {
	if p.Key != nil {
		if key, err = ParseKey(p.Key); err != nil {
			return nil, "", fmt.Errorf("reading %q: %w; %s", p.KeyPath, err, anew)
		}
	}
	if p.Cert == nil {
		return key, "", nil
	}
	chain, err := ParseCertificates(p.Cert)
	if err != nil {
		return key, "", fmt.Errorf("reading %q: %w; %s", p.CertPath, err, anew)
	}
	c := chain[0]
	switch {
	case key != nil && !samePublicKey(key, c.PublicKey):
		return key, "", fmt.Errorf("certificate %q and key %q do not belong together; %s", p.CertPath, p.KeyPath, anew)
	case !a.signed(chain):
		return key, "", fmt.Errorf("certificate %q is not signed by %q: its issuer calls itself %q; %s", p.CertPath, a.CertPath, c.Issuer.CommonName, anew)
	case now.Before(c.NotBefore):
		return key, "", notYetValid(p.CertPath, c, now)
	case key == nil:
		return nil, fmt.Sprintf("its key %q is missing", p.KeyPath), nil
	case now.After(c.NotAfter):
		return key, "it expired on " + date(c.NotAfter), nil
	}
	return key, r.missingIn(c), nil
}

// external reports whether the authority's key is kept elsewhere. Without a certificate either, it is yet to be made.
func (a *Authority) external() bool { return a.Key == nil && len(a.Certs) > 0 }

// signed reports whether the chain's first certificate leads to the authority, through the chain's others if need be.
// It looks at signatures only: times are judged, with better words, by the caller.
func (a *Authority) signed(chain []*x509.Certificate) bool {
	roots := a.Certs
	if len(roots) == 0 && a.Key != nil { // whatever the key signed will be under the certificate to come
		roots = []*x509.Certificate{{Version: 3, BasicConstraintsValid: true, IsCA: true, PublicKey: a.Key.Public(), PublicKeyAlgorithm: publicKeyAlgorithm(a.Key)}}
	}
	leaf := chain[0]
	for range chain {
		if slices.ContainsFunc(roots, func(r *x509.Certificate) bool { return leaf.CheckSignatureFrom(r) == nil }) {
			return true
		}
		i := slices.IndexFunc(chain[1:], func(c *x509.Certificate) bool { return leaf.CheckSignatureFrom(c) == nil })
		if i < 0 {
			return false
		}
		leaf = chain[1+i]
	}
	return false
}

func publicKeyAlgorithm(key crypto.Signer) x509.PublicKeyAlgorithm {
	if _, ok := key.(*rsa.PrivateKey); ok {
		return x509.RSA
	}
	return x509.ECDSA
}

// missingIn returns "" where the certificate is good for what the request asks, else what it lacks. More than was asked
// for is no fault. The common name counts only for clients: servers are known by their alternative names.
func (r Request) missingIn(c *x509.Certificate) string {
	for _, u := range r.Usages {
		if !slices.Contains(c.ExtKeyUsage, u) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
			return "it may not be used for " + usageName(u)
		}
	}
	if slices.Contains(r.Usages, x509.ExtKeyUsageClientAuth) && c.Subject.CommonName != r.CommonName {
		return fmt.Sprintf("its name is %q instead of %q", c.Subject.CommonName, r.CommonName)
	}
	for _, o := range r.Organization {
		if !slices.Contains(c.Subject.Organization, o) {
			return fmt.Sprintf("it lacks the organization %q", o)
		}
	}
	var lacking []string
	for _, name := range r.Names {
		if c.VerifyHostname(name) != nil {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) > 0 {
		return "it does not cover " + strings.Join(lacking, ", ")
	}
	return ""
}

func usageName(u x509.ExtKeyUsage) string {
	switch u {
	case x509.ExtKeyUsageClientAuth:
		return "clients"
	case x509.ExtKeyUsageServerAuth:
		return "servers"
	}
	return fmt.Sprintf("usage %d", int(u))
}

func notYetValid(path string, c *x509.Certificate, now time.Time) error {
	return fmt.Errorf("certificate %q is not valid before %s, but this machine's clock says %s; set the clock, or bring a certificate that is valid",
		path, date(c.NotBefore), date(now))
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
