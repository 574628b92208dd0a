package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// LookUp returns the Spec of that name.
func LookUp(name string) (Spec, bool) {
	for _, s := range Table() {
		if s.Name == name {
			return s, true
		}
	}
	return Spec{}, false
}

// OpenAuthority returns the authority of that name as it lies on disk. Its Key is nil where the key is kept elsewhere.
// One that is missing, expired or damaged is an error.
func OpenAuthority(files artifact.Store, paths config.Paths, name string, now time.Time) (*Authority, error) {
	s, known := LookUp(name)
	if !known || !s.IsAuthority() {
		return nil, fmt.Errorf("%q is no certificate authority of a control plane", name)
	}
	p, err := readPair(files.ReadFile, s, paths.PKI)
	if err != nil {
		return nil, err
	}
	if p.Cert == nil {
		return nil, missingAuthority(p.CertPath, s.Name)
	}
	return loadAuthority(p, now)
}

// Life is how long a certificate was made to last: from its issue, which is a little after its beginning, to its end.
func Life(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(IssuedAt(c)) }

// IssuedAt is when slipway issued a certificate, to the second.
func IssuedAt(c *x509.Certificate) time.Time { return c.NotBefore.Add(backdate) }

// RequestLike asks for what a certificate says, for as long as that was made to last, from now.
func RequestLike(c *x509.Certificate, now time.Time) Request {
	r := Request{CommonName: c.Subject.CommonName, Organization: c.Subject.Organization, Usages: c.ExtKeyUsage, Names: c.DNSNames}
	for _, ip := range c.IPAddresses {
		r.Names = append(r.Names[:len(r.Names):len(r.Names)], ip.String())
	}
	return r.validFor(now, Life(c))
}

// AlgorithmOf names the algorithm of a public key; one that slipway does not make is an error.
func AlgorithmOf(key crypto.PublicKey) (config.KeyAlgorithm, error) {
	var alg config.KeyAlgorithm
	switch k := key.(type) {
	case *rsa.PublicKey:
		alg = config.KeyAlgorithm(fmt.Sprintf("RSA-%d", k.N.BitLen()))
	case *ecdsa.PublicKey:
		alg = config.KeyAlgorithm(fmt.Sprintf("ECDSA-P%d", k.Curve.Params().BitSize))
	}
	switch alg {
	case config.RSA2048, config.RSA3072, config.RSA4096, config.ECDSAP256, config.ECDSAP384:
		return alg, nil
	}
	return "", fmt.Errorf("a key of kind %T and algorithm %q is none that is made here", key, alg)
}

// NewAuthorityLike makes the successor of an authority: a fresh key of the same algorithm, the same subject and the same
// life, from now. Both results are PEM.
func NewAuthorityLike(c *x509.Certificate, now time.Time) (cert, key []byte, err error) {
	alg, err := AlgorithmOf(c.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	signer, err := GenerateKey(alg)
	if err != nil {
		return nil, nil, err
	}
	r := RequestLike(c, now)
	if cert, err = issueAuthority(r, signer); err != nil {
		return nil, nil, err
	}
	key, err = EncodeKey(signer)
	return cert, key, err
}

// CrossSign returns a certificate over the next authority's key and name that the former one signed: who trusts only the
// former accepts with it what the next one signs.
func CrossSign(next *x509.Certificate, former *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	r := RequestLike(next, now)
	r.NotAfter = next.NotAfter
	if r.NotAfter.After(former.NotAfter) {
		r.NotAfter = former.NotAfter
	}
	return signAs(r, next.PublicKey, former, key, true)
}

// EncodeCertificates returns certificates as PEM.
func EncodeCertificates(certs ...*x509.Certificate) []byte {
	return (&Authority{Certs: certs}).CertPEM()
}

// Same reports whether a private key belongs to a certificate.
func Same(key crypto.Signer, c *x509.Certificate) bool { return samePublicKey(key, c.PublicKey) }
