package pki_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// What is there and sound is left alone, whoever made it.
func TestSecondRunWritesNothing(t *testing.T) {
	for _, v := range variants() {
		c := cluster(v.change)
		if c.KeyAlgorithm == config.RSA2048 {
			continue // slow, and no different
		}
		m := newMemory()
		if _, err := run(t, c, m, now); err != nil {
			t.Fatal(err)
		}
		m.puts = nil
		notes, err := run(t, c, m, now.Add(day))
		if err != nil || len(m.puts) > 0 {
			t.Errorf("%s: second run wrote %v and said %v; error %v", v.name, m.puts, notes, err)
		}
	}
}

// A run that ends at any of its writes leaves files that the next run completes, and never one that it refuses.
func TestEveryInterruptionIsContinued(t *testing.T) {
	starts := []damage{
		{"nothing there", func(_ *testing.T, m *memory) { clear(m.files) }},
		{"expired", func(t *testing.T, m *memory) { reissued(cluster(), now.Add(-366*day))(t, m) }},
		{"key missing", without(key)},
		{"public key missing", without(dir + "sa.pub")},
		{"authority's certificate missing", without(caCert)},
	}
	for _, start := range starts {
		t.Run(start.name, func(t *testing.T) {
			before := made(t, now)
			start.do(t, before)
			for writes := 0; ; writes++ {
				m := before.clone()
				m.room = writes
				_, err := run(t, cluster(), m, now)
				if err == nil {
					return
				}
				if !errors.Is(err, errDiskFull) {
					t.Fatalf("after %d writes: %v", writes, err)
				}
				m.room = -1
				if _, err := run(t, cluster(), m, now); err != nil {
					t.Fatalf("continuing after %d writes, of %v: %v", writes, m.puts, err)
				}
				for name, d := range decide(m) {
					if d.Action != pki.Reuse {
						t.Errorf("after %d writes and another run: %s: %s", writes, name, describe(d))
					}
				}
			}
		})
	}
}

func TestRenewalKeepsTheKeyAndSaysWhy(t *testing.T) {
	m := made(t, now)
	old := m.clone()
	reissued(cluster(), now.Add(-366*day))(t, m)
	m.puts = nil
	notes, err := run(t, cluster(), m, now)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{crt}; !slices.Equal(m.puts, want) {
		t.Errorf("wrote %v, want %v", m.puts, want)
	}
	if !bytes.Equal(m.files[key].Data, old.files[key].Data) {
		t.Error("the key changed")
	}
	want := `note: certs/apiserver: renewed "/etc/kubernetes/pki/apiserver.crt": it expired on 2026-01-01 03:04:05 UTC`
	if len(notes) != 1 || notes[0] != want {
		t.Errorf("notes %q, want %q", notes, want)
	}
}

// Each step finds what it needs on disk, or says which step makes it.
func TestStepsRunAlone(t *testing.T) {
	m := newMemory()
	_, err := run(t, cluster(), m, now, "certs/etcd-peer")
	const want = "certificate authority \"/etc/kubernetes/pki/etcd/ca.crt\" is missing; run `slipway init phase certs etcd-ca` first"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	for _, step := range []string{"certs/etcd-ca", "certs/etcd-peer"} {
		if _, err := run(t, cluster(), m, now, step); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{dir + "etcd/ca.key", dir + "etcd/ca.crt", dir + "etcd/peer.key", dir + "etcd/peer.crt"}; !slices.Equal(m.puts, want) {
		t.Errorf("wrote %v, want %v", m.puts, want)
	}
}

func TestExternalEtcdIsNoted(t *testing.T) {
	m := newMemory()
	notes, err := run(t, cluster(func(c *config.Cluster) { c.Etcd = config.Etcd{External: &config.ExternalEtcd{}} }), m, now, "certs")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"note: certs/etcd-ca: etcd is external: its certificates are not made here"}; !slices.Equal(notes, want) {
		t.Errorf("notes %q, want %q", notes, want)
	}
	for path := range m.files {
		if strings.Contains(path, "etcd") {
			t.Errorf("made %s", path)
		}
	}
}

// The key of an authority may stay away for good.
func TestAuthorityKeysMayBeKeptElsewhere(t *testing.T) {
	m := made(t, now)
	without(caKey, dir+"front-proxy-ca.key", dir+"etcd/ca.key")(t, m)
	m.puts = nil
	notes, err := run(t, cluster(), m, now)
	if err != nil || len(m.puts) > 0 {
		t.Errorf("wrote %v, error %v", m.puts, err)
	}
	if len(notes) != 3 || !strings.Contains(notes[0], "ca.key") {
		t.Errorf("notes %q, want one for each authority", notes)
	}
}

func TestPrivateKeysAreSecret(t *testing.T) {
	for path, f := range made(t, now).files {
		private := strings.HasSuffix(path, ".key") || strings.HasSuffix(path, ".conf")
		if f.Secret != private || private && f.Mode != 0o600 {
			t.Errorf("%s: mode %v, secret %v", path, f.Mode, f.Secret)
		}
	}
}

func TestServiceAccountKeys(t *testing.T) {
	const priv, pub = dir + "sa.key", dir + "sa.pub"
	other := made(t, now)
	for _, tt := range []struct {
		damage
		wrote []string
		err   string
	}{
		{damage: damage{"sound", nothing}},
		{damage: damage{"both missing", without(priv, pub)}, wrote: []string{priv, pub}},
		{damage: damage{"public key missing", without(pub)}, wrote: []string{pub}},
		{damage: damage{"private key missing", without(priv)}, err: "without its private key"},
		{damage: damage{"private key truncated", truncated(priv)}, err: "truncated"},
		{damage: damage{"public key truncated", truncated(pub)}, err: "truncated"},
		{damage: damage{"public key of another", func(_ *testing.T, m *memory) { m.copyFrom(other, pub) }}, err: "do not belong together"},
		{damage: damage{"public key is one of several", func(_ *testing.T, m *memory) {
			m.set(pub, append(slices.Clone(other.files[pub].Data), m.files[pub].Data...))
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := made(t, now)
			tt.do(t, m)
			m.puts = nil
			_, err := run(t, cluster(), m, now, "certs/sa")
			if !slices.Equal(m.puts, tt.wrote) {
				t.Errorf("wrote %v, want %v", m.puts, tt.wrote)
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// All that is refused is told at once, each reason once.
func TestCheckTellsEverything(t *testing.T) {
	m := made(t, now)
	if err := pki.Check(m, cluster(), now); err != nil {
		t.Errorf("sound files: %v", err)
	}
	if err := pki.Check(newMemory(), cluster(), now); err != nil {
		t.Errorf("no files: %v", err)
	}
	truncated(dir+"etcd/ca.crt")(t, m)
	truncated(key)(t, m)
	without(dir+"sa.key")(t, m)
	err := pki.Check(m, cluster(), now)
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three reasons, got: %v", err)
	}
	if len(m.puts) != len(made(t, now).puts) {
		t.Error("the check wrote something")
	}
}

// A certificate never outlives its authority.
func TestLeafEndsWithItsAuthority(t *testing.T) {
	c := cluster(func(c *config.Cluster) { c.CAValidity = day })
	m := newMemory()
	if _, err := run(t, c, m, now); err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(m.files[crt].Data)
	if err != nil {
		t.Fatal(err)
	}
	if want := now.Add(day); !certs[0].NotAfter.Equal(want) {
		t.Errorf("ends %v, want %v", certs[0].NotAfter, want)
	}
}

// BenchmarkAll makes everything from nothing.
func BenchmarkAll(b *testing.B) {
	for _, alg := range []config.KeyAlgorithm{config.ECDSAP256, config.RSA2048} {
		b.Run(string(alg), func(b *testing.B) {
			for b.Loop() {
				env := &phases.Env{Config: cluster(func(c *config.Cluster) { c.KeyAlgorithm = alg }), Files: newMemory(),
					Now: func() time.Time { return now }, Report: func(phases.Event) {}}
				for _, group := range []phases.Phase{pki.New(), kubeconfig.New()} {
					for _, p := range group.Phases {
						if err := p.Run(b.Context(), env); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
	}
}
