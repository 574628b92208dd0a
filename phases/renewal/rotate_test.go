package renewal_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// certificatesIn returns those of a file.
func certificatesIn(t *testing.T, files artifact.Store, path string) []*x509.Certificate {
	t.Helper()
	f, err := files.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(f.Data)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

// accepts tells whether someone who trusts roots accepts a chain.
func accepts(roots []*x509.Certificate, chain []*x509.Certificate, now time.Time) bool {
	pool, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// trustedBy returns what a kubeconfig trusts.
func trustedBy(t *testing.T, files artifact.Store, path string) []*x509.Certificate {
	t.Helper()
	f, err := files.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cluster, _, err := document.Load(f.Data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(cluster.CertificateAuthorityData)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

// step is one of a rotation's.
type step struct {
	name string
	do   func(*renewal.Rotation) error
}

var later = birth.Add(year / 2)

func steps() []step {
	return []step{
		{"begin", func(r *renewal.Rotation) error { return errors.Join(r.Prepare(later), r.Trust(later)) }},
		{"switch", func(r *renewal.Rotation) error { return r.Switch(later) }},
		{"finish", func(r *renewal.Rotation) error { return r.Settle(later) }},
		{"clean", func(r *renewal.Rotation) error { return r.Clean() }},
	}
}

// TestRotation follows each authority through its stages: who knows only the former one goes on until the end, and
// every stage is one that init finds nothing wrong with.
func TestRotation(t *testing.T) {
	c := cluster()
	leaf := map[string]string{"ca": "apiserver", "etcd-ca": "etcd/server", "front-proxy-ca": "front-proxy-client"}
	for _, ca := range []string{"ca", "etcd-ca", "front-proxy-ca"} {
		t.Run(ca, func(t *testing.T) {
			files := made(t, c, birth)
			r := renewal.NewRotation(ca, files, c.Paths)
			path := filepath.Join(c.Paths.PKI, leaf[ca]+".crt")
			former, formerLeaf := certificatesIn(t, files, r.OwnPath()), certificatesIn(t, files, path)
			for i, s := range steps() {
				if err := s.do(r); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				want := []renewal.Stage{renewal.Trusted, renewal.Switched, renewal.Switched, renewal.Settled}[i]
				if got, err := r.Stage(); got != want || err != nil {
					t.Errorf("after %s: %s, %v; want %s", s.name, got, err, want)
				}
				own, served := certificatesIn(t, files, r.OwnPath()), certificatesIn(t, files, path)
				overlap := i < 2
				for who, ok := range map[string]bool{
					"who knows only the former authority accepts what is served": accepts(former, served, later) == overlap,
					"what the former authority signed is accepted":               accepts(own, formerLeaf, later) == overlap,
					"who has the authority's file accepts what is served":        accepts(own, served, later),
					"one authority is trusted when it is over":                   len(own) == 1 != overlap,
				} {
					if !ok {
						t.Errorf("after %s it does not hold: %s", s.name, who)
					}
				}
				if got := trustedBy(t, files, "/etc/kubernetes/scheduler.conf"); ca == "ca" && len(got) != len(own) {
					t.Errorf("after %s a kubeconfig trusts %d authorities, not %d", s.name, len(got), len(own))
				}
				for _, check := range []func(artifact.Store, *config.Cluster, time.Time) error{pki.Check, kubeconfig.Check} {
					if err := check(files, c, later); err != nil {
						t.Errorf("after %s: %v", s.name, err)
					}
				}
			}
			if left, _ := files.ReadFile(filepath.Join(c.Paths.PKI, "ca-next.crt")); left.Data != nil {
				t.Error("a file of the rotation is left")
			}
		})
	}
}

// TestSettleIsTakenBack: who knows only the former authority accepts again what is served, and is accepted.
func TestSettleIsTakenBack(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	r := renewal.NewRotation("ca", files, c.Paths)
	path := "/etc/kubernetes/pki/apiserver.crt"
	former, formerLeaf := certificatesIn(t, files, r.OwnPath()), certificatesIn(t, files, path)
	for _, s := range []step{steps()[0], steps()[1], steps()[2], steps()[1]} {
		if err := s.do(r); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if !accepts(former, certificatesIn(t, files, path), later) || !accepts(certificatesIn(t, files, r.OwnPath()), formerLeaf, later) {
		t.Error("it is shut out")
	}
	f, err := files.ReadFile("/etc/kubernetes/scheduler.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, user, err := document.Load(f.Data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := pki.ParseCertificates(user.User.ClientCertificateData)
	if err != nil || !accepts(former, shown, later) {
		t.Errorf("an API server that knows only the former authority does not accept the scheduler: %v", err)
	}
}

// TestRotationIsUndone: back from any stage, the authority is byte for byte what it was.
func TestRotationIsUndone(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	r := renewal.NewRotation("ca", files, c.Paths)
	read := func() string {
		cert, err := files.ReadFile("/etc/kubernetes/pki/ca.crt")
		key, keyErr := files.ReadFile("/etc/kubernetes/pki/ca.key")
		if err := errors.Join(err, keyErr); err != nil {
			t.Fatal(err)
		}
		return string(cert.Data) + string(key.Data)
	}
	before := read()
	for _, s := range []step{steps()[0], steps()[1], {"back", func(r *renewal.Rotation) error { return r.Trust(later) }},
		{"settle", func(r *renewal.Rotation) error { return r.Settle(later) }}, steps()[3]} {
		if err := s.do(r); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	if read() != before {
		t.Error("the authority is another one")
	}
	if err := errors.Join(pki.Check(files, c, later), kubeconfig.Check(files, c, later)); err != nil {
		t.Error(err)
	}
}

// weak is a store that takes so many more writes.
type weak struct {
	artifact.Store
	left *int
}

var errBroken = errors.New("the machine went down")

func (w weak) Put(f artifact.File) error {
	if *w.left--; *w.left < 0 {
		return errBroken
	}
	return w.Store.Put(f)
}

func (w weak) Remove(path string) error {
	if *w.left--; *w.left < 0 {
		return errBroken
	}
	return w.Store.Remove(path)
}

// TestRotationGoesOnAfterACrash ends each step after each of its writes, and does it again.
func TestRotationGoesOnAfterACrash(t *testing.T) {
	c := cluster()
	broken := 0
	for at := 0; ; at++ {
		disk := artifact.Disk{Root: t.TempDir()}
		base := made(t, c, birth)
		if _, err := copyTo(t, base, disk); err != nil {
			t.Fatal(err)
		}
		left := at
		crashed := false
		for _, s := range steps() {
			run := func(files artifact.Store) error {
				overlay := artifact.NewOverlay(files)
				if err := s.do(renewal.NewRotation("ca", overlay, c.Paths)); err != nil {
					return err
				}
				_, err := overlay.Commit(t.Context())
				return err
			}
			err := run(weak{disk, &left})
			if errors.Is(err, errBroken) {
				crashed = true
				broken++
				left = 1 << 20
				err = run(disk)
			}
			if err != nil {
				t.Fatalf("after %d writes, %s: %v", at, s.name, err)
			}
		}
		if err := errors.Join(pki.Check(disk, c, later), kubeconfig.Check(disk, c, later)); err != nil {
			t.Fatalf("after %d writes: %v", at, err)
		}
		if names, _ := disk.ReadDir("/etc/kubernetes/pki"); strings.Contains(fmt.Sprint(names), "-former") || strings.Contains(fmt.Sprint(names), "-next") {
			t.Errorf("after %d writes these are left: %s", at, names)
		}
		if !crashed {
			break
		}
	}
	if broken < 25 {
		t.Errorf("it was broken %d times only", broken)
	}
}

// copyTo writes what an overlay holds below another root.
func copyTo(t *testing.T, from *artifact.Overlay, to artifact.Disk) (int, error) {
	t.Helper()
	changes, err := from.Preview(t.Context())
	if err != nil {
		return 0, err
	}
	for _, ch := range changes {
		f := ch.File()
		for _, dir := range []string{"/etc", "/etc/kubernetes", "/etc/kubernetes/pki", "/etc/kubernetes/pki/etcd"} {
			if err := to.Put(artifact.File{Path: dir, Mode: fs.ModeDir | 0o755}); err != nil {
				return 0, err
			}
		}
		if err := to.Put(f); err != nil {
			return 0, err
		}
	}
	return len(changes), nil
}

// What cannot be read would go on trusting, or being signed by, the authority that goes.
func TestRotationStopsAtWhatIsDamaged(t *testing.T) {
	c := cluster()
	files := made(t, c, birth)
	r := renewal.NewRotation("ca", files, c.Paths)
	for _, s := range steps()[:2] {
		if err := s.do(r); err != nil {
			t.Fatal(err)
		}
	}
	damage := func(path string) (mend func()) {
		f, err := files.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damaged := f
		damaged.Data = []byte("damaged")
		if err := files.Put(damaged); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := files.Put(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	mend := damage("/etc/kubernetes/scheduler.conf")
	if err := r.Settle(later); err == nil || !strings.Contains(err.Error(), `reading "/etc/kubernetes/scheduler.conf"`) {
		t.Errorf("settling with a damaged kubeconfig: %v", err)
	}
	mend()
	key, err := files.ReadFile("/etc/kubernetes/pki/ca-former.key")
	if err != nil {
		t.Fatal(err)
	}
	own, err := files.ReadFile("/etc/kubernetes/pki/ca.key")
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Put(artifact.File{Path: own.Path, Data: key.Data, Mode: 0o600, Secret: true}); err != nil { // as when switch ends between two files
		t.Fatal(err)
	}
	if err := r.Settle(later); err == nil || !strings.Contains(err.Error(), "slipway certs rotate-ca switch --authority ca completes it") {
		t.Errorf("settling half of a stage: %v", err)
	}
	if err := r.Switch(later); err != nil {
		t.Errorf("completing it: %v", err)
	}
	mend = damage("/etc/kubernetes/pki/ca-cross.crt")
	a, err := pki.OpenAuthority(files, c.Paths, "ca", later)
	if err != nil {
		t.Fatal(err)
	}
	it := renewal.Survey(files, c.Paths)[0]
	if err := renewal.Renew(files, c.Paths, it, pki.RequestLike(it.Cert, later), a); err == nil || !strings.Contains(err.Error(), `reading "/etc/kubernetes/pki/ca-cross.crt"`) {
		t.Errorf("renewing without the certificate by which the former authority vouches: %v", err)
	}
	mend()
	if err := r.Settle(later); err != nil {
		t.Error(err)
	}
}

func TestSigningManifest(t *testing.T) {
	const manifest = "    - --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt\n    - --cluster-signing-key-file=/etc/kubernetes/pki/ca.key\n"
	r := renewal.NewRotation("ca", nil, config.NewPaths(""))
	text := []byte(manifest)
	for _, s := range []struct {
		stage renewal.Stage
		want  string
	}{{renewal.Trusted, "ca-former"}, {renewal.Switched, "ca-next"}, {renewal.Settled, "ca"}} {
		text = r.SigningManifest(text, s.stage)
		if want := strings.ReplaceAll(manifest, "pki/ca.", "pki/"+s.want+"."); string(text) != want {
			t.Errorf("%s:\n%s", s.stage, text)
		}
	}
	if got := renewal.NewRotation("etcd-ca", nil, config.NewPaths("")).SigningManifest([]byte(manifest), renewal.Switched); string(got) != manifest {
		t.Errorf("etcd's authority signs for the controller manager:\n%s", got)
	}
}
