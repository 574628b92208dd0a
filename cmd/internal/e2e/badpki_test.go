//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const pkiDirectory = "/etc/kubernetes/pki"

// pair is a certificate and its key, also as the files have them.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	crt, pem    []byte
}

// issue returns a certificate from one date to another, of a CA if by is nil.
func issue(t *testing.T, name string, by *pair, from, to time.Time) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(from.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, key
	if by == nil {
		template.IsCA, template.BasicConstraintsValid, template.ExtKeyUsage = true, true, nil
		template.KeyUsage |= x509.KeyUsageCertSign
	} else {
		parent, signer = by.certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})}
}

// place puts files into the certificates directory until the test ends.
func place(t *testing.T, files map[string][]byte) {
	t.Helper()
	mkdir(t, "/etc/kubernetes", pkiDirectory)
	for name, data := range files {
		path := filepath.Join(pkiDirectory, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s is not as the user left it, after reset: %v\n%s", name, err, got)
			}
			os.Remove(path)
		})
	}
}

// TestDamagedCertificates: what a user brings is used or refused, never overwritten. A leaf that has expired is renewed,
// and reset puts the user's own back.
func TestDamagedCertificates(t *testing.T) {
	before := take(t)
	now := time.Now()
	ca := issue(t, "kubernetes", nil, now.Add(-time.Hour), now.AddDate(5, 0, 0))
	other := issue(t, "kubernetes", nil, now.Add(-time.Hour), now.AddDate(5, 0, 0))
	old := issue(t, "kubernetes", nil, now.AddDate(-2, 0, 0), now.AddDate(0, 0, -3))
	leaf := issue(t, "kube-apiserver", ca, now.AddDate(-1, 0, 0), now.AddDate(0, 0, -3))

	for name, c := range map[string]struct {
		files map[string][]byte
		says  []string
	}{
		"truncated CA": {map[string][]byte{"ca.crt": ca.crt[:len(ca.crt)/2], "ca.key": ca.pem}, []string{"phase preflight: ", "[Certificates] ", pkiDirectory + "/ca.crt"}},
		"key of another": {map[string][]byte{"ca.crt": ca.crt, "ca.key": other.pem},
			[]string{"phase preflight: ", "[Certificates] ", pkiDirectory + "/ca.key", "do not belong together"}},
		"expired CA": {map[string][]byte{"ca.crt": old.crt, "ca.key": old.pem},
			[]string{"phase preflight: ", "[Certificates] ", pkiDirectory + "/ca.crt", "expired"}},
	} {
		t.Run(name, func(t *testing.T) {
			place(t, c.files)
			cleanUp(t) // runs before what place undoes
			r := slipway(t, "init", "--image-archives", archives())
			r.refuses(t, c.says...)
			t.Log(tail(r.stderr, 3))
			if _, err := os.Stat(manifests); err == nil {
				t.Error("manifests were written for a control plane that cannot work")
			}
		})
		same(t, before, take(t))
	}
	t.Run("expired leaf", func(t *testing.T) {
		place(t, map[string][]byte{"ca.crt": ca.crt, "ca.key": ca.pem, "apiserver.crt": leaf.crt, "apiserver.key": leaf.pem})
		cleanUp(t)
		r := slipway(t, "init", "phase", "certs", "all").must(t, "init phase certs all")
		if !strings.Contains(r.stderr, `renewed "`+pkiDirectory+`/apiserver.crt": `) || !strings.Contains(r.stderr, "expired") {
			t.Errorf("no line says that the certificate was renewed, and why:\n%s", r.stderr)
		}
		data, err := os.ReadFile(pkiDirectory + "/apiserver.crt")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(data)
		renewed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if err := renewed.CheckSignatureFrom(ca.certificate); err != nil || renewed.NotAfter.Before(now.AddDate(0, 11, 0)) {
			t.Errorf("the new certificate: signature %v, valid until %v", err, renewed.NotAfter)
		}
	})
	same(t, before, take(t))
}
