package renewal_test

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// birth is when the files of these tests were made.
var birth = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const year = 365 * 24 * time.Hour

func cluster() *config.Cluster {
	return &config.Cluster{
		Paths: config.NewPaths(""), NodeName: "node-a", ClusterName: "kubernetes", AdvertiseAddress: netip.MustParseAddr("10.0.0.5"), BindPort: 6443,
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, DNSDomain: "cluster.local",
		Etcd: config.Etcd{Local: &config.LocalEtcd{}}, KeyAlgorithm: config.ECDSAP256, CertificateValidity: year, CAValidity: 10 * year,
	}
}

// made returns what init leaves.
func made(t *testing.T, c *config.Cluster, at time.Time) *artifact.Overlay {
	t.Helper()
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	for _, group := range []phases.Phase{pki.New(), kubeconfig.New()} {
		for _, p := range group.Phases {
			env := &phases.Env{Config: c, Files: files, Now: func() time.Time { return at }, Report: func(phases.Event) {}}
			if err := p.Run(t.Context(), env); err != nil {
				t.Fatal(err)
			}
		}
	}
	return files
}

func item(t *testing.T, files artifact.Store, name string) renewal.Item {
	t.Helper()
	for _, it := range renewal.Survey(files, config.NewPaths("")) {
		if it.Name == name {
			return it
		}
	}
	t.Fatalf("there is no item %q", name)
	return renewal.Item{}
}

// says is what a certificate says, without its key, serial and times.
func says(c *x509.Certificate) string {
	names := slices.Sorted(slices.Values(c.DNSNames))
	return fmt.Sprint(c.Subject, c.Issuer, names, c.IPAddresses, c.KeyUsage, c.ExtKeyUsage, c.IsCA, c.NotAfter.Sub(c.NotBefore))
}

// TestRenewSaysTheSame: a renewed certificate differs from the one before in its serial and times alone, and keeps its
// key; a kubeconfig's has another key.
func TestRenewSaysTheSame(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	later := birth.Add(year / 2)
	before := renewal.Survey(files, c.Paths)
	if got := len(before); got != 12 {
		t.Fatalf("%d items", got)
	}
	authorities, err := renewal.Authorities(files, c.Paths, before, later)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range before {
		if err := renewal.Renew(files, c.Paths, it, pki.RequestLike(it.Cert, later), authorities[it.CA]); err != nil {
			t.Fatal(err)
		}
		after := item(t, files, it.Name)
		if diff := cmp.Diff(says(it.Cert), says(after.Cert)); diff != "" {
			t.Errorf("%s says something else (-before +after):\n%s", it.Name, diff)
		}
		if after.Cert.SerialNumber.Cmp(it.Cert.SerialNumber) == 0 || !pki.IssuedAt(after.Cert).Equal(later) {
			t.Errorf("%s is the one from before", it.Name)
		}
		same := after.Cert.PublicKey.(interface{ Equal(x crypto.PublicKey) bool }).Equal(it.Cert.PublicKey)
		if want := it.KeyPath != ""; same != want {
			t.Errorf("%s: it is the same key: %v, want %v", it.Name, same, want)
		}
	}
	// What init would do now shows whether all of it is sound: nothing.
	for _, check := range []func(artifact.Store, *config.Cluster, time.Time) error{pki.Check, kubeconfig.Check} {
		if err := check(files, c, later.Add(year/2)); err != nil {
			t.Error(err)
		}
	}
}

// TestRenewByConfiguration issues what the configuration wants, where one is given.
func TestRenewByConfiguration(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	c.CertSANs = []string{"api.example.com"}
	it := item(t, files, "apiserver")
	a, err := renewal.Authorities(files, c.Paths, []renewal.Item{it}, birth)
	if err != nil {
		t.Fatal(err)
	}
	if err := renewal.Renew(files, c.Paths, it, renewal.Requests(c, birth)["apiserver"], a["ca"]); err != nil {
		t.Fatal(err)
	}
	if got := item(t, files, "apiserver").Cert.DNSNames; !slices.Contains(got, "api.example.com") {
		t.Errorf("it covers %q", got)
	}
}

// TestRenewWithoutTheAuthoritysKey names all that a person has to bring.
func TestRenewWithoutTheAuthoritysKey(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	for _, path := range []string{"ca.key", "etcd/ca.key"} {
		if err := files.Remove(c.Paths.PKI + "/" + path); err != nil {
			t.Fatal(err)
		}
	}
	_, err := renewal.Authorities(files, c.Paths, renewal.Survey(files, c.Paths), birth)
	for _, want := range []string{"pki/ca.key", "pki/etcd/ca.key", "apiserver.crt", "etcd/peer.crt", "kubelet.conf", "generate-csr"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "front-proxy") {
		t.Errorf("what can be renewed is named: %v", err)
	}
}

func TestDue(t *testing.T) {
	files := made(t, cluster(), birth)
	it := item(t, files, "apiserver")
	for _, tc := range []struct {
		at   time.Duration
		want string
	}{
		{-6 * time.Minute, "it is not valid before 2026-01-02 02:59:05 UTC"},
		{0, ""},
		{year/3*2 - time.Second, ""},
		{year / 3 * 2, "two thirds of its life are over, it ends on 2027-01-02 03:04:05 UTC"},
		{year, "two thirds of its life are over, it ends on 2027-01-02 03:04:05 UTC"},
		{year + time.Second, "it expired on 2027-01-02 03:04:05 UTC"},
		{5 * year, "it expired on 2027-01-02 03:04:05 UTC"},
	} {
		if got := renewal.Due(it, birth.Add(tc.at)); got != tc.want {
			t.Errorf("after %s: %q, want %q", tc.at, got, tc.want)
		}
	}
	if got := renewal.Due(renewal.Item{Missing: true}, birth); got != "" {
		t.Errorf("one that is missing is due: %s", got)
	}
}

func TestNames(t *testing.T) {
	want := "apiserver apiserver-kubelet-client front-proxy-client etcd-server etcd-peer etcd-healthcheck-client apiserver-etcd-client " +
		"admin.conf super-admin.conf kubelet.conf controller-manager.conf scheduler.conf"
	if got := strings.Join(renewal.Names(), " "); got != want {
		t.Errorf("got %s", got)
	}
}

// TestSigningRequests: a request is for the key beside it, and what it asks is what init would issue.
func TestSigningRequests(t *testing.T) {
	c := cluster()
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	written, err := renewal.SigningRequests(files, c, birth)
	if err != nil || len(written) != 24 {
		t.Fatalf("wrote %q, %v", written, err)
	}
	again, err := renewal.SigningRequests(files, c, birth)
	if err != nil || len(again) != 12 {
		t.Errorf("a second run wrote %q, %v", again, err)
	}
	f, err := files.ReadFile("/etc/kubernetes/scheduler.conf")
	if err != nil || !f.Secret || f.Mode != 0o600 {
		t.Fatalf("%v, %v", f.Mode, err)
	}
	if conf, err := document.Parse(f.Data); err != nil || len(conf.Users[0].User.ClientKeyData) == 0 {
		t.Errorf("the kubeconfig has no key: %v", err)
	}
}
