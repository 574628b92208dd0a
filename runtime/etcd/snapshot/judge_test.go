package snapshot

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestBelongs(t *testing.T) {
	a, b := authority(t), authority(t)
	both := append(append([]byte(nil), b...), a...)
	for name, tc := range map[string]struct {
		info   Info
		target Target
		want   string
	}{
		"same UID":                               {Info{Cluster: "1"}, Target{Cluster: "1"}, ""},
		"same UID, authority rotated":            {Info{Cluster: "1", Trust: a}, Target{Cluster: "1", Trust: b}, ""},
		"another UID":                            {Info{Cluster: "1"}, Target{Cluster: "2"}, "UID 1, that of this cluster 2"},
		"another UID, same authority":            {Info{Cluster: "1", Trust: a}, Target{Cluster: "2", Trust: a}, "of another cluster"},
		"data lost, same authority":              {Info{Cluster: "1", Trust: a}, Target{Trust: a}, ""},
		"data lost, authority among several":     {Info{Cluster: "1", Trust: both}, Target{Trust: a}, ""},
		"data lost, another authority":           {Info{Cluster: "1", Trust: a}, Target{Trust: b}, "the certificate authority in it"},
		"data encrypted, another authority":      {Info{Trust: a}, Target{Cluster: "1", Trust: b}, "the certificate authority in it"},
		"nothing known":                          {Info{}, Target{}, ""},
		"an authority that cannot be read":       {Info{Trust: a}, Target{Trust: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})}, "on disk"},
		"a snapshot of a cluster without kube-*": {Info{}, Target{Cluster: "1", Trust: a}, ""},
	} {
		err := tc.info.Belongs(tc.target)
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
