package pki_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

const (
	day    = 24 * time.Hour
	dir    = "/etc/kubernetes/pki/"
	caCert = dir + "ca.crt"
	caKey  = dir + "ca.key"
	crt    = dir + "apiserver.crt"
	key    = dir + "apiserver.key"
)

// damage is one way in which files differ from what init leaves.
type damage struct {
	name string
	do   func(t *testing.T, m *memory)
}

func authorityStates() []damage {
	return []damage{
		{"sound", nothing},
		{"key kept elsewhere", without(caKey)},
		{"certificate missing", without(caCert)},
		{"both missing", without(caCert, caKey)},
		{"expired", func(t *testing.T, m *memory) { m.copyFrom(made(t, now.Add(-20*365*day)), caCert, caKey) }},
		{"expired, key kept elsewhere", func(t *testing.T, m *memory) {
			m.copyFrom(made(t, now.Add(-20*365*day)), caCert)
			without(caKey)(t, m)
		}},
		{"not yet valid", func(t *testing.T, m *memory) { m.copyFrom(made(t, now.Add(day)), caCert, caKey) }},
		{"certificate truncated", truncated(caCert)},
		{"certificate empty", contents(caCert, "")},
		{"certificate is a leaf", func(_ *testing.T, m *memory) { m.set(caCert, m.files[crt].Data) }},
		{"certificate is a key", func(_ *testing.T, m *memory) { m.set(caCert, m.files[caKey].Data) }},
		{"key truncated", truncated(caKey)},
		{"key of another", func(t *testing.T, m *memory) { m.copyFrom(made(t, now), caKey) }},
		{"certificate missing, key truncated", func(t *testing.T, m *memory) { without(caCert)(t, m); truncated(caKey)(t, m) }},
	}
}

func leafStates() []damage {
	return []damage{
		{"sound", nothing},
		{"both missing", without(crt, key)},
		{"certificate missing", without(crt)},
		{"key missing", without(key)},
		{"expired", reissued(cluster(), now.Add(-366*day))},
		{"not yet valid", reissued(cluster(), now.Add(day))},
		{"another node", reissued(cluster(func(c *config.Cluster) { c.NodeName = "node-b" }), now)},
		{"more names than wanted", reissued(cluster(func(c *config.Cluster) { c.CertSANs = []string{"more.example.com"} }), now)},
		{"without the names that only slipway adds", reissuedAs(cluster(), now, func(r *pki.Request) { r.Also = nil })},
		{"a client's", func(_ *testing.T, m *memory) {
			m.set(crt, m.files[dir+"apiserver-kubelet-client.crt"].Data)
			m.set(key, m.files[dir+"apiserver-kubelet-client.key"].Data)
		}},
		{"of another authority", func(t *testing.T, m *memory) { m.copyFrom(made(t, now), crt, key) }},
		{"key of another", func(_ *testing.T, m *memory) { m.set(key, m.files[dir+"apiserver-kubelet-client.key"].Data) }},
		{"certificate truncated", truncated(crt)},
		{"certificate empty", contents(crt, "")},
		{"certificate not PEM", contents(crt, "hello\n")},
		{"certificate with a damaged line", func(_ *testing.T, m *memory) {
			m.set(crt, []byte(strings.Replace(string(m.files[crt].Data), "\nMII", "\n***", 1)))
		}},
		{"certificate of wrong bytes", contents(crt, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")},
		{"key truncated", truncated(key)},
		{"key encrypted", contents(key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")},
		{"key of another kind", func(t *testing.T, m *memory) {
			_, k, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			m.set(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		}},
		{"key as PKCS #8", func(t *testing.T, m *memory) {
			k, err := pki.ParseKey(m.files[key].Data)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKCS8PrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			m.set(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		}},
	}
}

// TestDecide pins what is decided for the authority "ca" in all its states, and for its leaf "apiserver" in all of its
// own under the authority's states that are usable.
func TestDecide(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "# authority")
	for _, ca := range authorityStates() {
		m := made(t, now)
		ca.do(t, m)
		d := decide(m)["ca"]
		fmt.Fprintf(&b, "%s\n    %s\n", ca.name, describe(d))
	}
	for _, ca := range authorityStates()[:3] {
		fmt.Fprintf(&b, "\n# leaf, authority: %s\n", ca.name)
		for _, leaf := range leafStates() {
			m := made(t, now)
			leaf.do(t, m)
			ca.do(t, m)
			fmt.Fprintf(&b, "%s\n    %s\n", leaf.name, describe(decide(m)["apiserver"]))
		}
	}
	golden(t, "decisions.txt", b.String())
}

// Where an authority is refused, so are all its leaves, for the same reason.
func TestLeavesOfRefusedAuthorityAreRefused(t *testing.T) {
	m := made(t, now)
	truncated(caCert)(t, m)
	for name, d := range decide(m) {
		if under := d.CA == "ca" || name == "ca"; under != (d.Action == pki.Refuse) {
			t.Errorf("%s: %s", name, describe(d))
		}
	}
}

// Everything that has to be brought is named at once.
func TestMissingFilesAreNamedTogether(t *testing.T) {
	m := made(t, now)
	without(caKey, crt, key, dir+"apiserver-kubelet-client.key")(t, m)
	for _, name := range []string{"apiserver", "apiserver-kubelet-client"} {
		err := fmt.Sprint(decide(m)[name].Err)
		for _, want := range []string{caKey, crt, key, dir + "apiserver-kubelet-client.key"} {
			if !strings.Contains(err, want) {
				t.Errorf("%s: %q is not named in: %s", name, want, err)
			}
		}
	}
	_, err := run(t, cluster(), m, now, "certs/apiserver")
	if err == nil || !strings.Contains(err.Error(), dir+"apiserver-kubelet-client.key") {
		t.Errorf("the step names only its own files: %v", err)
	}
}

func describe(d pki.Decision) string {
	s := d.Action.String()
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	if d.Err != nil {
		s += ": " + d.Err.Error()
	}
	return s
}

func decide(m *memory) map[string]pki.Decision {
	want := pki.Want(cluster(), now)
	disk := map[string]pki.Pair{}
	for _, w := range want {
		p := pki.Pair{CertPath: w.CertPath(strings.TrimSuffix(dir, "/")), KeyPath: w.KeyPath(strings.TrimSuffix(dir, "/"))}
		p.Cert, p.Key = m.files[p.CertPath].Data, m.files[p.KeyPath].Data
		disk[w.Name] = p
	}
	out := map[string]pki.Decision{}
	for _, d := range pki.Decide(want, disk, now) {
		out[d.Name] = d
	}
	return out
}

// made returns what init leaves when it runs at the given time.
func made(t *testing.T, at time.Time) *memory {
	t.Helper()
	m := newMemory()
	if _, err := run(t, cluster(), m, at); err != nil {
		t.Fatal(err)
	}
	return m
}

func nothing(*testing.T, *memory) {}

func without(paths ...string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) {
		for _, p := range paths {
			delete(m.files, p)
		}
	}
}

func contents(path, data string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) { m.set(path, []byte(data)) }
}

func truncated(path string) func(*testing.T, *memory) {
	return func(_ *testing.T, m *memory) {
		data := m.files[path].Data
		m.set(path, data[:len(data)/2])
	}
}

// reissued replaces the API server's certificate by one made for another cluster configuration or at another time.
func reissued(c *config.Cluster, at time.Time) func(*testing.T, *memory) {
	return reissuedAs(c, at, func(*pki.Request) {})
}

func reissuedAs(c *config.Cluster, at time.Time, change func(*pki.Request)) func(*testing.T, *memory) {
	return func(t *testing.T, m *memory) {
		a := newMemory()
		a.copyFrom(m, caCert, caKey)
		ca, err := pki.LoadAuthority(a, c.Paths, now)
		if err != nil {
			t.Fatal(err)
		}
		k, err := pki.ParseKey(m.files[key].Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range pki.Want(c, at) {
			if w.Name != "apiserver" {
				continue
			}
			change(&w.Request)
			cert, err := ca.Issue(w.Request, k.Public())
			if err != nil {
				t.Fatal(err)
			}
			m.set(crt, cert)
		}
	}
}

func (m *memory) copyFrom(other *memory, paths ...string) {
	for _, p := range paths {
		m.files[p] = other.files[p]
	}
}
