package pki_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// TestProfile pins, for each variant, all that is not random about the files below /etc/kubernetes.
func TestProfile(t *testing.T) {
	generate := threeKeys()
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			files := newMemory()
			if _, err := runWith(t, pki.NewKeys(generate, 0, 1), cluster(v.change), files, now); err != nil {
				t.Fatal(err)
			}
			golden(t, v.name+".txt", render(profile(t, files.files, now)))
		})
	}
}

// threeKeys saves the time that fresh RSA keys take: it hands out three per algorithm in turn.
func threeKeys() pki.Generate {
	var mu sync.Mutex
	keys := map[config.KeyAlgorithm][]crypto.Signer{}
	turn := 0
	return func(alg config.KeyAlgorithm) (crypto.Signer, error) {
		mu.Lock()
		defer mu.Unlock()
		for len(keys[alg]) < 3 {
			key, err := pki.GenerateKey(alg)
			if err != nil {
				return nil, err
			}
			keys[alg] = append(keys[alg], key)
		}
		turn++
		return keys[alg][turn%3], nil
	}
}

// field is one property of a file; a profile lists the fields of each file in a fixed order.
type field struct{ name, value string }

// profile describes files, whose certificates were made at the given time.
func profile(t *testing.T, files map[string]artifact.File, at time.Time) map[string][]field {
	t.Helper()
	out := map[string][]field{}
	for path, f := range files {
		fields := []field{{"mode", fmt.Sprintf("%#o", f.Mode.Perm())}}
		switch {
		case strings.HasSuffix(path, ".crt"):
			key := files[strings.TrimSuffix(path, ".crt")+".key"].Data
			fields = append(fields, certificateFields(t, f.Data, key, at)...)
		case strings.HasSuffix(path, ".conf"):
			fields = append(fields, kubeconfigFields(t, files, f, at)...)
		case strings.HasSuffix(path, ".pub"):
			b, _ := pem.Decode(f.Data)
			fields = append(fields, field{"pem", b.Type})
		default:
			b, _ := pem.Decode(f.Data)
			fields = append(fields, field{"pem", b.Type}, field{"key", describeKey(t, f.Data)})
		}
		out[path] = fields
	}
	return out
}

func certificateFields(t *testing.T, cert, key []byte, at time.Time) []field {
	t.Helper()
	chain, err := pki.ParseCertificates(cert)
	if err != nil {
		t.Fatal(err)
	}
	c := chain[0]
	var ips []string
	for _, ip := range c.IPAddresses {
		ips = append(ips, ip.String())
	}
	fields := []field{
		{"subject", c.Subject.String()}, {"issuer", c.Issuer.String()},
		{"dns", strings.Join(c.DNSNames, " ")}, {"ip", strings.Join(ips, " ")},
		{"authority", fmt.Sprint(c.IsCA)}, {"usage", keyUsage(c.KeyUsage)}, {"extended usage", extendedUsage(c.ExtKeyUsage)},
		{"valid from", c.NotBefore.Sub(at).Round(time.Minute).String()}, {"valid for", c.NotAfter.Sub(at).Round(time.Minute).String()},
		{"signature", c.SignatureAlgorithm.String()},
	}
	var out []field
	for _, f := range fields {
		if f.value != "" {
			out = append(out, f)
		}
	}
	signer, err := pki.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if !signer.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(c.PublicKey) {
		out = append(out, field{"key", "DOES NOT MATCH"})
	}
	if c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 63 {
		out = append(out, field{"serial", "NOT OF 1 TO 63 BITS"})
	}
	return out
}

func kubeconfigFields(t *testing.T, files map[string]artifact.File, f artifact.File, at time.Time) []field {
	t.Helper()
	c, err := document.Parse(f.Data)
	if err != nil {
		t.Fatal(err)
	}
	cluster, user, err := document.Load(f.Data, "", func(string) ([]byte, error) { panic("all is embedded") })
	if err != nil {
		t.Fatal(err)
	}
	ca := "DOES NOT MATCH"
	for path, f := range files {
		if string(f.Data) == string(cluster.CertificateAuthorityData) {
			ca = path
		}
	}
	fields := []field{{"context", c.CurrentContext}, {"cluster", c.Clusters[0].Name}, {"server", cluster.Server}, {"trusts", ca},
		{"key", describeKey(t, user.User.ClientKeyData)}}
	return append(fields, certificateFields(t, user.User.ClientCertificateData, user.User.ClientKeyData, at)...)
}

func render(p map[string][]field) string {
	var b strings.Builder
	for _, path := range sorted(p) {
		fmt.Fprintln(&b, path)
		for _, f := range p[path] {
			fmt.Fprintf(&b, "  %-14s %s\n", f.name, f.value)
		}
	}
	return b.String()
}

func describeKey(t *testing.T, data []byte) string {
	t.Helper()
	key, err := pki.ParseKey(data)
	if err != nil {
		t.Fatal(err)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PrivateKey:
		return "ECDSA " + k.Curve.Params().Name
	}
	return fmt.Sprintf("%T", key)
}

func keyUsage(u x509.KeyUsage) string {
	var names []string
	for _, n := range []struct {
		bit  x509.KeyUsage
		name string
	}{{x509.KeyUsageDigitalSignature, "digitalSignature"}, {x509.KeyUsageKeyEncipherment, "keyEncipherment"}, {x509.KeyUsageCertSign, "certSign"}} {
		if u&n.bit != 0 {
			names, u = append(names, n.name), u&^n.bit
		}
	}
	if u != 0 {
		names = append(names, fmt.Sprintf("%#x", int(u)))
	}
	return strings.Join(names, " ")
}

func extendedUsage(usages []x509.ExtKeyUsage) string {
	var names []string
	for _, u := range usages {
		names = append(names, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client"}[u])
	}
	return strings.Join(names, " ")
}
