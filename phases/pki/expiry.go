package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
)

// Expiry tells until when one certificate is good.
type Expiry struct {
	Name     string // "apiserver", "admin.conf"
	Path     string
	CA       string // name of the authority that signs it; "" for an authority
	NotAfter time.Time
	Life     time.Duration // how long it was made to last; 0 where NotAfter is zero
	External bool          // the signing key is not on this machine, so slipway cannot renew it
	Missing  bool          // there is no such file; NotAfter is zero
	Err      error         // why NotAfter is zero although there is a file
}

// kubeconfigs are the files with a client certificate, in the order of listings.
func kubeconfigs() []string {
	return []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"}
}

// Expirations lists the certificates below the paths: what the authorities sign, then the kubeconfigs' client
// certificates, then the authorities. It needs no configuration; where none of etcd's certificates is there, etcd is
// taken to be external and left out. read returns an error that is fs.ErrNotExist for a file that is not there.
func Expirations(read func(path string) ([]byte, error), paths config.Paths) []Expiry {
	external := map[string]bool{}
	etcd := false
	var leaves, authorities []Expiry
	for _, s := range Table() {
		e := Expiry{Name: s.Name, Path: s.CertPath(paths.PKI), CA: s.CA}
		e.judge(read, ParseCertificates)
		etcd = etcd || s.NeedsLocalEtcd() && !e.Missing
		if s.IsAuthority() {
			_, err := read(s.KeyPath(paths.PKI))
			external[s.Name] = !e.Missing && errors.Is(err, fs.ErrNotExist)
			e.External = external[s.Name]
			authorities = append(authorities, e)
			continue
		}
		e.External = external[s.CA]
		leaves = append(leaves, e)
	}
	for _, name := range kubeconfigs() {
		e := Expiry{Name: name, Path: paths.Kubeconfig(name), CA: "ca", External: external["ca"]}
		e.judge(read, func(data []byte) ([]*x509.Certificate, error) {
			return clientCertificates(data, filepath.Dir(e.Path), read)
		})
		leaves = append(leaves, e)
	}
	var all []Expiry
	for _, e := range append(leaves, authorities...) {
		if !etcd && (e.Name == etcdCA || e.CA == etcdCA) {
			continue
		}
		all = append(all, e)
	}
	return all
}

// judge fills in what the file says.
func (e *Expiry) judge(read func(string) ([]byte, error), parse func([]byte) ([]*x509.Certificate, error)) {
	data, err := read(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		e.Missing = true
		return
	}
	if err == nil {
		var certs []*x509.Certificate
		if certs, err = parse(data); err == nil {
			e.NotAfter, e.Life = certs[0].NotAfter, Life(certs[0])
			return
		}
	}
	e.Err = fmt.Errorf("reading %q: %w", e.Path, err)
}

// clientCertificates returns those of the current context's user.
func clientCertificates(data []byte, dir string, read func(string) ([]byte, error)) ([]*x509.Certificate, error) {
	_, user, err := document.Load(data, dir, read)
	if err != nil {
		return nil, err
	}
	if len(user.User.ClientCertificateData) == 0 {
		return nil, fmt.Errorf("its user %q has no client certificate", user.Name)
	}
	return ParseCertificates(user.User.ClientCertificateData)
}
