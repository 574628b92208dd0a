package renewal

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Stage is how far the replacement of an authority has come.
//
//	Settled ──Prepare, Trust──► Trusted ──Sign──► Switched ──Settle──► Settled
//	   ▲──────────Settle───────────┘ ▲──────Sign─────┘
//
// Each step may be repeated: what was interrupted is completed by doing it again.
type Stage int

const (
	Settled  Stage = iota // → Trusted
	Trusted               // both authorities are trusted, the former signs → Switched, Settled with the former
	Switched              // both authorities are trusted, the next signs → Settled with the next, Trusted
)

func (s Stage) String() string {
	return [...]string{"settled", "both trusted, the former signs", "both trusted, the next signs"}[s]
}

// rotation are the files beside an authority's own while it is replaced, below the PKI directory.
type rotation struct {
	cert, key             string // the authority's own: first the one that signs, with its key
	nextCert, nextKey     string // the one to come
	formerCert, formerKey string // the one that goes
	cross                 string // the next one's name and key, signed by the former
}

func rotationFiles(ca string) rotation {
	s, _ := pki.LookUp(ca)
	b := s.Base
	return rotation{b + ".crt", b + ".key", b + "-next.crt", b + "-next.key", b + "-former.crt", b + "-former.key", b + "-cross.crt"}
}

// Rotation is the replacement of one authority.
type Rotation struct {
	CA    string
	Files artifact.Store
	Paths config.Paths

	at rotation
}

// NewRotation returns the one of the authority ca over files.
func NewRotation(ca string, files artifact.Store, paths config.Paths) *Rotation {
	return &Rotation{CA: ca, Files: files, Paths: paths, at: rotationFiles(ca)}
}

// Stage reads from the files how far it has come.
func (r *Rotation) Stage() (Stage, error) {
	next, err := r.certificate(r.at.nextCert)
	if errors.Is(err, fs.ErrNotExist) {
		return Settled, nil
	}
	if err != nil {
		return 0, err
	}
	own, err := r.certificates(r.at.cert)
	if err != nil {
		return 0, err
	}
	switch {
	case own[0].Equal(next):
		return Switched, nil
	case len(own) > 1 && own[1].Equal(next):
		return Trusted, nil
	}
	return Settled, nil // prepared, and not trusted yet
}

// Prepare makes the next authority, and keeps the present one as the former. Nothing uses either yet. It is for Settled.
func (r *Rotation) Prepare(now time.Time) error {
	a, err := pki.OpenAuthority(r.Files, r.Paths, r.CA, now)
	if err != nil {
		return err
	}
	if a.Key == nil {
		return fmt.Errorf("%q is not here: an authority whose key is kept elsewhere is replaced there; bring the key to have it done here", a.KeyPath)
	}
	if err := r.Forget(); err != nil { // of an earlier rotation
		return err
	}
	if _, err := r.certificate(r.at.nextCert); err == nil {
		if _, err = r.private(r.at.nextKey); err == nil {
			return r.keepFormer(a)
		}
	}
	cert, key, err := pki.NewAuthorityLike(a.Certs[0], now)
	if err != nil {
		return fmt.Errorf("making the next authority %s: %w", r.CA, err)
	}
	// The certificate says that there is a next authority: it comes last.
	return errors.Join(r.keepFormer(a), r.put(r.at.nextKey, key), r.put(r.at.nextCert, cert))
}

func (r *Rotation) keepFormer(a *pki.Authority) error {
	key, err := pki.EncodeKey(a.Key)
	if err != nil {
		return err
	}
	return errors.Join(r.put(r.at.formerKey, key), r.put(r.at.formerCert, pki.EncodeCertificates(a.Certs[0])))
}

// Trust has both authorities trusted while the former signs: from Settled, or back from Switched. On the way back Forget
// comes when all that follows from it is done.
func (r *Rotation) Trust(now time.Time) error {
	return r.sign(r.at.formerCert, r.at.formerKey, r.at.nextCert, now)
}

// Switch has the next authority sign, and both trusted. What it signs carries a certificate by which the former vouches
// for it, so that who does not know it yet accepts it.
func (r *Rotation) Switch(now time.Time) error {
	next, err := r.certificate(r.at.nextCert)
	if err != nil {
		return err
	}
	if known, err := r.certificate(r.at.cross); err != nil || !bytes.Equal(known.RawSubjectPublicKeyInfo, next.RawSubjectPublicKeyInfo) {
		former, err := r.certificate(r.at.formerCert)
		if err != nil {
			return err
		}
		key, err := r.private(r.at.formerKey)
		if err != nil {
			return err
		}
		cross, err := pki.CrossSign(next, former, key, now)
		if err != nil {
			return err
		}
		if err := r.put(r.at.cross, cross); err != nil {
			return err
		}
	}
	return r.sign(r.at.nextCert, r.at.nextKey, r.at.formerCert, now)
}

// sign makes one authority the one that signs, with the other trusted beside it, and issues anew what it has not signed.
func (r *Rotation) sign(signerCert, signerKey, otherCert string, now time.Time) error {
	signer, err := r.certificate(signerCert)
	if err != nil {
		return err
	}
	other, err := r.certificate(otherCert)
	if err != nil {
		return err
	}
	key, err := r.read(signerKey)
	if err != nil {
		return err
	}
	if err := errors.Join(r.put(r.at.cert, pki.EncodeCertificates(signer, other)), r.put(r.at.key, key)); err != nil {
		return err
	}
	return r.reissue(now)
}

// reissue renews what the authority has not signed itself, and completes the rest.
func (r *Rotation) reissue(now time.Time) error {
	a, err := pki.OpenAuthority(r.Files, r.Paths, r.CA, now)
	if err != nil {
		return err
	}
	chain, err := cross(r.Files, r.Paths, r.CA, a)
	if err != nil {
		return err
	}
	for _, it := range Survey(r.Files, r.Paths) {
		switch {
		case it.CA != r.CA || it.Missing:
			continue
		case it.Err != nil:
			return it.Err
		case it.Cert.CheckSignatureFrom(a.Certs[0]) != nil:
			err = Renew(r.Files, r.Paths, it, pki.RequestLike(it.Cert, now), a)
		default:
			err = r.complete(it, a, chain)
		}
		if err != nil {
			return fmt.Errorf("issuing %s: %w", it.Name, err)
		}
	}
	return nil
}

// complete has an item that the authority has signed be followed by the chain, and by nothing where that is nil: a Settle
// that was taken back has cut it off. A kubeconfig also gets the authority's certificates.
func (r *Rotation) complete(it Item, a *pki.Authority, chain []byte) error {
	cert := append(pki.EncodeCertificates(it.Cert), chain...)
	if it.KeyPath != "" {
		return r.Files.Put(artifact.File{Path: it.Path, Data: cert, Mode: 0o644})
	}
	f, err := r.Files.ReadFile(it.Path)
	if err != nil {
		return err
	}
	_, user, err := document.Load(f.Data, filepath.Dir(it.Path), contents(r.Files))
	if err != nil {
		return err
	}
	data, err := document.Renew(f.Data, a.CertPEM(), cert, user.User.ClientKeyData)
	if err != nil {
		return err
	}
	return r.Files.Put(artifact.File{Path: it.Path, Data: data, Mode: 0o600, Secret: true})
}

// Settle has only the authority that signs trusted. It refuses while something here is signed by the other. The files
// of the rotation stay for Clean.
func (r *Rotation) Settle(now time.Time) error {
	a, err := pki.OpenAuthority(r.Files, r.Paths, r.CA, now)
	if err != nil {
		return fmt.Errorf("%w; where it is a stage that was interrupted, slipway certs rotate-ca switch --authority %s completes it", err, r.CA)
	}
	items := Survey(r.Files, r.Paths)
	for _, it := range items {
		switch {
		case it.CA != r.CA || it.Missing:
		case it.Err != nil:
			return it.Err // it would be left trusting the other one
		case it.Cert.CheckSignatureFrom(a.Certs[0]) != nil:
			return fmt.Errorf("%q is still signed by the other authority: the stage before was interrupted; slipway certs rotate-ca --authority %s completes it", it.Path, r.CA)
		}
	}
	a.Certs = a.Certs[:1]
	if err := r.put(r.at.cert, a.CertPEM()); err != nil {
		return err
	}
	for _, it := range items {
		if it.CA != r.CA || it.Missing {
			continue
		}
		if err := r.complete(it, a, nil); err != nil {
			return fmt.Errorf("completing %s: %w", it.Name, err)
		}
	}
	return nil
}

// Begun reports whether files of a rotation are here. With Settled it is one that was interrupted: Prepare has not been
// followed by Trust, or Clean has not come to its end.
func (r *Rotation) Begun() (bool, error) {
	for _, name := range r.at.own() {
		if there, err := r.has(name); there || err != nil {
			return there, err
		}
	}
	return false, nil
}

// Ended reports whether the rotation is over but for files that Clean has left: the next authority is removed first.
func (r *Rotation) Ended() (bool, error) {
	begun, err := r.Begun()
	if err != nil || !begun {
		return false, err
	}
	next, err := r.has(r.at.nextCert)
	return !next && err == nil, err
}

// Returning reports whether the way back from Switched to Trusted was begun and is not over: Forget ends it.
func (r *Rotation) Returning() (bool, error) {
	stage, err := r.Stage()
	if err != nil || stage != Trusted {
		return false, err
	}
	return r.has(r.at.cross)
}

// Forget removes the certificate by which the former authority vouches for the next. In Trusted nothing uses it: that it
// is there means that the way back is not over.
func (r *Rotation) Forget() error { return r.remove(r.at.cross) }

// Clean removes the files of a rotation that is over.
func (r *Rotation) Clean() error {
	for _, name := range r.at.own() {
		if err := r.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// own are the files that are there only during a rotation.
func (at rotation) own() []string {
	return []string{at.cross, at.formerKey, at.formerCert, at.nextKey, at.nextCert}
}

func (r *Rotation) has(name string) (bool, error) {
	_, err := r.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (r *Rotation) remove(name string) error {
	if err := r.Files.Remove(filepath.Join(r.Paths.PKI, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Pods are the static pods that read the authority or what it signs, in the order of their restart.
func (r *Rotation) Pods() []string {
	switch r.CA {
	case "etcd-ca":
		return []string{"etcd", "kube-apiserver"}
	case "front-proxy-ca":
		return []string{"kube-apiserver", "kube-controller-manager"}
	}
	return []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"}
}

var (
	signingCert = regexp.MustCompile(`--cluster-signing-cert-file=[^\s"']+`)
	signingKey  = regexp.MustCompile(`--cluster-signing-key-file=[^\s"']+`)
)

// SigningManifest returns the controller manager's manifest with the files from which it signs at a stage. Its signer
// wants exactly one certificate in a file, while ca.crt holds two. v1.36.3 pkg/controller/certificates/signer.
func (r *Rotation) SigningManifest(manifest []byte, s Stage) []byte {
	if r.CA != "ca" {
		return manifest
	}
	cert, key := r.at.cert, r.at.key
	switch s {
	case Trusted:
		cert, key = r.at.formerCert, r.at.formerKey
	case Switched:
		cert, key = r.at.nextCert, r.at.nextKey
	}
	text := signingCert.ReplaceAllLiteralString(string(manifest), "--cluster-signing-cert-file="+filepath.Join(r.Paths.PKI, cert))
	return []byte(signingKey.ReplaceAllLiteralString(text, "--cluster-signing-key-file="+filepath.Join(r.Paths.PKI, key)))
}

func (r *Rotation) put(name string, data []byte) error {
	f := artifact.File{Path: filepath.Join(r.Paths.PKI, name), Data: data, Mode: 0o644}
	if strings.HasSuffix(name, ".key") {
		f.Mode, f.Secret = 0o600, true
	}
	return r.Files.Put(f)
}

func (r *Rotation) read(name string) ([]byte, error) {
	f, err := r.Files.ReadFile(filepath.Join(r.Paths.PKI, name))
	return f.Data, err
}

func (r *Rotation) certificates(name string) ([]*x509.Certificate, error) {
	data, err := r.read(name)
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", filepath.Join(r.Paths.PKI, name), err)
	}
	return certs, nil
}

func (r *Rotation) certificate(name string) (*x509.Certificate, error) {
	certs, err := r.certificates(name)
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

func (r *Rotation) private(name string) (crypto.Signer, error) {
	data, err := r.read(name)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(data)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", filepath.Join(r.Paths.PKI, name), err)
	}
	return key, nil
}

// Signer returns the certificate of the authority that signs.
func (r *Rotation) Signer() (*x509.Certificate, error) { return r.certificate(r.at.cert) }

// Bundle returns what is trusted now, as PEM: the contents of the authority's own file.
func (r *Rotation) Bundle() ([]byte, error) {
	certs, err := r.certificates(r.at.cert)
	if err != nil {
		return nil, err
	}
	return pki.EncodeCertificates(certs...), nil
}

// OwnPath is the authority's own file.
func (r *Rotation) OwnPath() string { return filepath.Join(r.Paths.PKI, r.at.cert) }
