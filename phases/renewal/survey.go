// Package renewal renews certificates and kubeconfig files by what those on disk say of themselves.
package renewal

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Item is one certificate that can be renewed: a file of its own, or a kubeconfig's.
type Item struct {
	Name    string            // kubeadm's: "apiserver", "admin.conf"
	Path    string            // of the file that changes
	KeyPath string            // of its key; "" for a kubeconfig, which holds its own
	CA      string            // name of the authority that signs it
	Pods    []string          // static pods that read it when they start, by the names of their manifests
	Cert    *x509.Certificate // nil with Missing or Err
	Missing bool
	Err     error // why the file tells nothing
}

// users are the static pods that read a file, by the name of the item.
func users(name string) []string {
	switch name {
	case "apiserver", "apiserver-kubelet-client", "front-proxy-client", "apiserver-etcd-client":
		return []string{"kube-apiserver"}
	case "etcd-server", "etcd-peer":
		return []string{"etcd"}
	case "controller-manager.conf":
		return []string{"kube-controller-manager"}
	case "scheduler.conf":
		return []string{"kube-scheduler"}
	}
	return nil // administrators, and who checks etcd's health
}

// Names are those of all items, in the order of listings.
func Names() []string {
	var names []string
	for _, s := range pki.Table() {
		if !s.IsAuthority() {
			names = append(names, s.Name)
		}
	}
	for _, s := range kubeconfig.Table() {
		names = append(names, s.File)
	}
	return names
}

// Survey looks at every item on disk, in the order of Names. Etcd's are left out where none is there: etcd is external.
func Survey(files artifact.Store, paths config.Paths) []Item {
	var items []Item
	local := false
	for _, s := range pki.Table() {
		if s.IsAuthority() {
			continue
		}
		it := Item{Name: s.Name, Path: s.CertPath(paths.PKI), KeyPath: s.KeyPath(paths.PKI), CA: s.CA, Pods: users(s.Name)}
		it.look(files, pki.ParseCertificates)
		local = local || s.NeedsLocalEtcd() && !it.Missing
		items = append(items, it)
	}
	if !local {
		var kept []Item
		for _, it := range items {
			if s, _ := pki.LookUp(it.Name); !s.NeedsLocalEtcd() {
				kept = append(kept, it)
			}
		}
		items = kept
	}
	for _, s := range kubeconfig.Table() {
		it := Item{Name: s.File, Path: paths.Kubeconfig(s.File), CA: "ca", Pods: users(s.File)}
		it.look(files, func(data []byte) ([]*x509.Certificate, error) {
			_, user, err := document.Load(data, filepath.Dir(it.Path), contents(files))
			if err != nil {
				return nil, err
			}
			if len(user.User.ClientCertificateData) == 0 {
				return nil, fmt.Errorf("its user %q has no client certificate", user.Name)
			}
			return pki.ParseCertificates(user.User.ClientCertificateData)
		})
		items = append(items, it)
	}
	return items
}

// contents returns how a kubeconfig's reader gets at the files that it names.
func contents(files artifact.Store) func(path string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		f, err := files.ReadFile(path)
		return f.Data, err
	}
}

func (it *Item) look(files artifact.Store, parse func([]byte) ([]*x509.Certificate, error)) {
	f, err := files.ReadFile(it.Path)
	if errors.Is(err, fs.ErrNotExist) {
		it.Missing = true
		return
	}
	if err == nil {
		var certs []*x509.Certificate
		if certs, err = parse(f.Data); err == nil {
			it.Cert = certs[0]
			return
		}
		err = fmt.Errorf("reading %q: %w", it.Path, err)
	}
	it.Err = err
}

// DueAt is when a certificate is to be renewed: at two thirds of its life.
func DueAt(c *x509.Certificate) time.Time {
	issued := pki.IssuedAt(c)
	return issued.Add(pki.Life(c) / 3 * 2)
}

// Due says why an item is to be renewed now; "" where it is not. One that begins in the future was made while the clock
// was ahead, and is good for nothing until that day.
func Due(it Item, now time.Time) string {
	switch c := it.Cert; {
	case c == nil:
		return ""
	case now.Before(c.NotBefore):
		return "it is not valid before " + date(c.NotBefore)
	case now.After(c.NotAfter):
		return "it expired on " + date(c.NotAfter)
	case !now.Before(DueAt(c)):
		return "two thirds of its life are over, it ends on " + date(c.NotAfter)
	}
	return ""
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }
