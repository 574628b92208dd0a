package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math"
	"math/big"
	"net"
	"slices"
	"time"
)

// Request is what a certificate is to say. Its times are in UTC.
type Request struct {
	CommonName   string
	Organization []string
	Usages       []x509.ExtKeyUsage // none asks for an authority
	Names        []string           // alternative names: DNS names and addresses
	Also         []string           // further alternative names, of which an existing certificate may lack any
	NotBefore    time.Time
	NotAfter     time.Time
}

// Authority is a certificate authority as it lies on disk.
type Authority struct {
	CertPath string
	KeyPath  string
	Certs    []*x509.Certificate // the first one signs; the others lead to its root, or belong to a rotation
	Key      crypto.Signer       // nil where the key is kept elsewhere
}

// CertPEM returns all of the authority's certificates, as a client needs them.
func (a *Authority) CertPEM() []byte {
	var out []byte
	for _, c := range a.Certs {
		out = append(out, encodeCertificate(c.Raw)...)
	}
	return out
}

// Issue returns a certificate over pub, PEM-encoded. It ends with the authority's own at the latest:
// beyond that nobody would accept it, and listings would promise days that it does not have.
func (a *Authority) Issue(r Request, pub crypto.PublicKey) ([]byte, error) {
	if a.Key == nil {
		return nil, fmt.Errorf("issuing %q: the authority's key %q is not here", r.CommonName, a.KeyPath)
	}
	if len(r.Usages) == 0 {
		return nil, fmt.Errorf("issuing %q: a leaf needs an extended key usage", r.CommonName)
	}
	signer := a.Certs[0]
	if r.NotAfter.After(signer.NotAfter) {
		r.NotAfter = signer.NotAfter
	}
	return sign(r, pub, signer, a.Key)
}

// issueAuthority returns a self-signed certificate over key, PEM-encoded.
func issueAuthority(r Request, key crypto.Signer) ([]byte, error) {
	return sign(r, key.Public(), nil, key)
}

// sign makes the certificate; a nil parent makes it an authority that signs itself. The fields are kubeadm's:
// v1.36.3 util/pkiutil/pki_helpers.go, NewSignedCert and NewSelfSignedCACert.
func sign(r Request, pub crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) ([]byte, error) {
	return signAs(r, pub, parent, key, parent == nil)
}

// signAs is sign for either: authority says which.
func signAs(r Request, pub crypto.PublicKey, parent *x509.Certificate, key crypto.Signer, authority bool) ([]byte, error) {
	// 63 bits, never zero: uniform in [1, MaxInt64).
	serial, err := rand.Int(rand.Reader, big.NewInt(math.MaxInt64-1))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number for %q: %w", r.CommonName, err)
	}
	names, addresses := splitNames(append(slices.Clone(r.Names), r.Also...))
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)),
		Subject:               pkix.Name{CommonName: r.CommonName, Organization: r.Organization},
		DNSNames:              names,
		NotBefore:             r.NotBefore,
		NotAfter:              r.NotAfter,
		KeyUsage:              x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           r.Usages,
		BasicConstraintsValid: true,
	}
	for _, addr := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	if authority {
		template.IsCA = true
		template.KeyUsage |= x509.KeyUsageCertSign
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %q: %w", r.CommonName, err)
	}
	return encodeCertificate(der), nil
}
