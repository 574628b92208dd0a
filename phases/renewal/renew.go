package renewal

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Authorities opens the authorities that the items need. Those whose keys are kept elsewhere are told in one error, with
// all files that a person has to bring instead.
func Authorities(files artifact.Store, paths config.Paths, items []Item, now time.Time) (map[string]*pki.Authority, error) {
	open := map[string]*pki.Authority{}
	external := map[string][]string{} // paths of items, by the authority's name
	var errs []error
	for _, it := range items {
		a, done := open[it.CA]
		if !done {
			var err error
			if a, err = pki.OpenAuthority(files, paths, it.CA, now); err != nil {
				errs = append(errs, err)
			}
			open[it.CA] = a
		}
		if a != nil && a.Key == nil {
			external[it.CA] = append(external[it.CA], it.Path)
		}
	}
	for _, s := range pki.Table() {
		if missing := external[s.Name]; len(missing) > 0 {
			errs = append(errs, fmt.Errorf("%q is not here, so these cannot be renewed here: %s; sign them where that key is kept "+
				"(slipway certs generate-csr writes the requests) and bring them, or bring the key", s.KeyPath(paths.PKI), strings.Join(missing, ", ")))
		}
	}
	return open, errors.Join(errs...)
}

// Requests are what the configuration wants of every item, by name.
func Requests(c *config.Cluster, now time.Time) map[string]pki.Request {
	requests := map[string]pki.Request{}
	for _, w := range pki.Want(c, now) {
		requests[w.Name] = w.Request
	}
	for _, w := range kubeconfig.Want(c, now) {
		requests[w.File] = w.Request
	}
	return requests
}

// Renew puts a new certificate in place of the item's own. The request says what for; its key stays what it is, so that
// one file changes and no crash leaves a pair that does not belong together. A kubeconfig, which holds its key, gets a
// fresh one of the same algorithm.
func Renew(files artifact.Store, paths config.Paths, it Item, r pki.Request, a *pki.Authority) error {
	chain, err := cross(files, paths, it.CA, a)
	if err != nil {
		return err
	}
	if it.KeyPath == "" {
		return renewKubeconfig(files, it, r, a, chain)
	}
	key, fresh, err := keyOf(files, it)
	if err != nil {
		return err
	}
	cert, err := a.Issue(r, key.Public())
	if err != nil {
		return err
	}
	if err := files.Put(artifact.File{Path: it.Path, Data: append(cert, chain...), Mode: 0o644}); err != nil || !fresh {
		return err
	}
	data, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	return files.Put(artifact.File{Path: it.KeyPath, Data: data, Mode: 0o600, Secret: true})
}

// keyOf returns the item's key, or a fresh one like it where there is none.
func keyOf(files artifact.Store, it Item) (key crypto.Signer, fresh bool, err error) {
	f, err := files.ReadFile(it.KeyPath)
	if errors.Is(err, fs.ErrNotExist) && it.Cert != nil {
		key, err = keyLike(it)
		return key, true, err
	}
	if err != nil {
		return nil, false, err
	}
	if key, err = pki.ParseKey(f.Data); err != nil {
		return nil, false, fmt.Errorf("reading %q: %w; bring a sound key, or remove it and %q to have both made anew by slipway init phase certs", it.KeyPath, err, it.Path)
	}
	return key, false, nil
}

func keyLike(it Item) (crypto.Signer, error) {
	alg, err := pki.AlgorithmOf(it.Cert.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("making a key for %q: %w", it.Path, err)
	}
	return pki.GenerateKey(alg)
}

func renewKubeconfig(files artifact.Store, it Item, r pki.Request, a *pki.Authority, chain []byte) error {
	f, err := files.ReadFile(it.Path)
	if err != nil {
		return err
	}
	key, err := keyLike(it)
	if err != nil {
		return err
	}
	cert, err := a.Issue(r, key.Public())
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	data, err := document.Renew(f.Data, a.CertPEM(), append(cert, chain...), keyPEM)
	if err != nil {
		return fmt.Errorf("kubeconfig %q: %w", it.Path, err)
	}
	return files.Put(artifact.File{Path: it.Path, Data: data, Mode: 0o600, Secret: true})
}

// cross returns the certificate by which the former authority vouches for the one that signs, while the two overlap, as
// PEM; nil at other times. One that cannot be read is an error: without it, who knows only the former would be shut out.
func cross(files artifact.Store, paths config.Paths, ca string, a *pki.Authority) ([]byte, error) {
	path := filepath.Join(paths.PKI, rotationFiles(ca).cross)
	f, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	certs, err := pki.ParseCertificates(f.Data)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w; remove it, and in a rotation slipway certs rotate-ca switch --authority %s makes it anew", path, err, ca)
	}
	if !pki.Same(a.Key, certs[0]) {
		return nil, nil // of a rotation that is over, or of the authority that does not sign yet
	}
	return f.Data, nil
}
