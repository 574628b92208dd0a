package renewal

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// SigningRequests writes a request for each certificate below the authorities, NAME.csr, for an authority whose key is
// kept elsewhere. Keys that are there are used, and missing ones made. A kubeconfig that is missing is written with its
// key and waits for the certificate. The paths that were put are returned.
func SigningRequests(files artifact.Store, c *config.Cluster, now time.Time) ([]string, error) {
	var written []string
	put := func(f artifact.File) error {
		written = append(written, f.Path)
		return files.Put(f)
	}
	for _, w := range pki.Want(c, now) {
		if w.IsAuthority() {
			continue
		}
		key, fresh, err := keyAt(files, w.KeyPath(c.Paths.PKI), c.KeyAlgorithm)
		if err != nil {
			return nil, err
		}
		if fresh != nil {
			if err := put(artifact.File{Path: w.KeyPath(c.Paths.PKI), Data: fresh, Mode: 0o600, Secret: true}); err != nil {
				return nil, err
			}
		}
		if err := putRequest(put, filepath.Join(c.Paths.PKI, w.Base+".csr"), w.Request, key); err != nil {
			return nil, err
		}
	}
	for _, w := range kubeconfig.Want(c, now) {
		key, err := kubeconfigKey(files, put, w, c)
		if err != nil {
			return nil, err
		}
		if err := putRequest(put, w.Path+".csr", w.Request, key); err != nil {
			return nil, err
		}
	}
	return written, nil
}

// keyAt returns the key of a file and, where there is no file, a new one with its bytes.
func keyAt(files artifact.Store, path string, alg config.KeyAlgorithm) (key crypto.Signer, fresh []byte, err error) {
	f, err := files.ReadFile(path)
	switch {
	case err == nil:
		if key, err = pki.ParseKey(f.Data); err != nil {
			return nil, nil, fmt.Errorf("reading %q: %w", path, err)
		}
		return key, nil, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	if key, err = pki.GenerateKey(alg); err != nil {
		return nil, nil, err
	}
	fresh, err = pki.EncodeKey(key)
	return key, fresh, err
}

// kubeconfigKey returns the key in a kubeconfig. One that is missing is written, with a new key and no certificate.
func kubeconfigKey(files artifact.Store, put func(artifact.File) error, w kubeconfig.Wanted, c *config.Cluster) (crypto.Signer, error) {
	f, err := files.ReadFile(w.Path)
	if err == nil {
		_, user, err := document.Load(f.Data, filepath.Dir(w.Path), contents(files))
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %q: %w", w.Path, err)
		}
		key, err := pki.ParseKey(user.User.ClientKeyData)
		if err != nil {
			return nil, fmt.Errorf("kubeconfig %q: reading its client key: %w", w.Path, err)
		}
		return key, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := pki.GenerateKey(c.KeyAlgorithm)
	if err != nil {
		return nil, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	authority, err := files.ReadFile(filepath.Join(c.Paths.PKI, "ca.crt"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err := document.New(w.Cluster, w.Server, w.Request.CommonName, authority.Data, nil, keyPEM).Marshal()
	if err != nil {
		return nil, err
	}
	return key, put(artifact.File{Path: w.Path, Data: data, Mode: 0o600, Secret: true})
}

func putRequest(put func(artifact.File) error, path string, r pki.Request, key crypto.Signer) error {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.CommonName, Organization: r.Organization}}
	for _, name := range append(r.Names[:len(r.Names):len(r.Names)], r.Also...) {
		if addr, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return fmt.Errorf("making the request %q: %w", path, err)
	}
	return put(artifact.File{Path: path, Data: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), Mode: 0o644})
}

// UserKubeconfig returns a kubeconfig for a user of the cluster c: with a client certificate of the cluster's authority,
// or with a token where that is not "".
func UserKubeconfig(files artifact.Store, c *config.Cluster, name string, groups []string, token string, validity time.Duration, now time.Time) ([]byte, error) {
	a, err := pki.OpenAuthority(files, c.Paths, "ca", now)
	if err != nil {
		return nil, err
	}
	server := ""
	for _, w := range kubeconfig.Want(c, now) {
		if w.Shared {
			server = w.Server
		}
	}
	if token != "" {
		config := document.New(c.ClusterName, server, name, a.CertPEM(), nil, nil)
		config.Users[0].User = document.User{Token: token}
		return config.Marshal()
	}
	if a.Key == nil {
		return nil, fmt.Errorf("%q is not here, so no certificate can be signed: use a token, or do this where that key is kept", a.KeyPath)
	}
	key, err := pki.GenerateKey(c.KeyAlgorithm)
	if err != nil {
		return nil, err
	}
	cert, err := a.Issue(pki.ClientRequest(name, groups, now, validity), key.Public())
	if err != nil {
		return nil, err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	return document.New(c.ClusterName, server, name, a.CertPEM(), cert, keyPEM).Marshal()
}

// ClusterOf reads from admin.conf what the cluster calls itself and where its API is, as host:port, and from the
// authority which algorithm its keys have.
func ClusterOf(files artifact.Store, paths config.Paths) (name, endpoint string, alg config.KeyAlgorithm, err error) {
	path := paths.Kubeconfig("admin.conf")
	f, err := files.ReadFile(path)
	if err != nil {
		return "", "", "", err
	}
	c, err := document.Parse(f.Data)
	if err == nil && len(c.Clusters) != 1 {
		err = fmt.Errorf("it has %d clusters, not one", len(c.Clusters))
	}
	if err != nil {
		return "", "", "", fmt.Errorf("kubeconfig %q: %w", path, err)
	}
	server, err := url.Parse(c.Clusters[0].Cluster.Server)
	if err != nil {
		return "", "", "", fmt.Errorf("kubeconfig %q: its server: %w", path, err)
	}
	ca, err := files.ReadFile(filepath.Join(paths.PKI, "ca.crt"))
	if err != nil {
		return "", "", "", err
	}
	certs, err := pki.ParseCertificates(ca.Data)
	if err != nil {
		return "", "", "", fmt.Errorf("reading %q: %w", filepath.Join(paths.PKI, "ca.crt"), err)
	}
	alg, err = pki.AlgorithmOf(certs[0].PublicKey)
	return c.Clusters[0].Name, server.Host, alg, err
}
