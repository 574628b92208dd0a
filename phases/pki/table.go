// Package pki decides which certificates and keys a control plane needs, judges those on disk and issues the rest.
package pki

import (
	"crypto/x509"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
)

// Spec describes one certificate of a control plane. The table of all of them drives everything that is done with
// certificates: issuing, judging, renewing, listing.
type Spec struct {
	Name         string // the phase's name, as kubeadm's
	Base         string // path below the PKI directory, without extension
	CA           string // Name of the Spec that signs it; "" for an authority
	Long         string // what it is for, as a noun
	CommonName   string // "" stands for the node's name
	Organization []string
	Usages       []x509.ExtKeyUsage // none for an authority

	names func(*config.Cluster) []string // alternative names that it must have; nil for none
	also  func(*config.Cluster) []string // names that a new one gets, and an existing one may lack
}

// serviceAccount is the base name of the service account key pair, which is no certificate and has no Spec.
const serviceAccount = "sa"

// etcdCA is the authority whose certificates are needed only with a local etcd.
const etcdCA = "etcd-ca"

// Table returns the certificates in the order of their phases: each authority directly before what it signs. Names,
// files and subjects are kubeadm's: v1.36.3 cmd/kubeadm/app/phases/certs/certlist.go.
func Table() []Spec {
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	// etcd dials itself with its serving certificate, so it must be good for clients too: etcd issue 9785.
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return []Spec{
		{Name: "ca", Base: "ca", CommonName: "kubernetes", Long: "certificate authority of the cluster"},
		{Name: "apiserver", Base: "apiserver", CA: "ca", CommonName: "kube-apiserver", Usages: server,
			Long: "certificate that serves the Kubernetes API", names: apiServerNames, also: loopbackNames},
		{Name: "apiserver-kubelet-client", Base: "apiserver-kubelet-client", CA: "ca", CommonName: "kube-apiserver-kubelet-client", Usages: client,
			Long: "certificate with which the API server connects to kubelets"},
		{Name: "front-proxy-ca", Base: "front-proxy-ca", CommonName: "front-proxy-ca", Long: "certificate authority of the front proxy"},
		{Name: "front-proxy-client", Base: "front-proxy-client", CA: "front-proxy-ca", CommonName: "front-proxy-client", Usages: client,
			Long: "certificate with which the API server connects to aggregated API servers"},
		{Name: etcdCA, Base: "etcd/ca", CommonName: "etcd-ca", Long: "certificate authority of etcd"},
		{Name: "etcd-server", Base: "etcd/server", CA: etcdCA, Usages: both, Long: "certificate that serves etcd", names: etcdServerNames},
		{Name: "etcd-peer", Base: "etcd/peer", CA: etcdCA, Usages: both, Long: "certificate with which etcd members talk to each other", names: etcdPeerNames},
		{Name: "etcd-healthcheck-client", Base: "etcd/healthcheck-client", CA: etcdCA, CommonName: "kube-etcd-healthcheck-client", Usages: client,
			Long: "certificate with which etcd's health is checked"},
		{Name: "apiserver-etcd-client", Base: "apiserver-etcd-client", CA: etcdCA, CommonName: "kube-apiserver-etcd-client", Usages: client,
			Long: "certificate with which the API server connects to etcd"},
	}
}

// IsAuthority reports whether the certificate signs others.
func (s Spec) IsAuthority() bool { return s.CA == "" }

// NeedsLocalEtcd reports whether the certificate is of use only where etcd runs on this node.
func (s Spec) NeedsLocalEtcd() bool { return s.Name == etcdCA || s.CA == etcdCA }

// CertPath returns where the certificate lies below the PKI directory dir.
func (s Spec) CertPath(dir string) string { return filepath.Join(dir, s.Base+".crt") }

// KeyPath returns where the certificate's private key lies below the PKI directory dir.
func (s Spec) KeyPath(dir string) string { return filepath.Join(dir, s.Base+".key") }

// backdate is how far before now a certificate begins, so that machines whose clocks differ a little accept it at
// once. kubeadm v1.36.3 constants.CertificateBackdate.
const backdate = 5 * time.Minute

// Wanted is a certificate together with what it must say in this cluster.
type Wanted struct {
	Spec
	Request Request
}

// Want returns what the cluster c needs, in the table's order. With an external etcd that is without etcd's part.
func Want(c *config.Cluster, now time.Time) []Wanted {
	var want []Wanted
	for _, s := range Table() {
		if s.NeedsLocalEtcd() && c.Etcd.Local == nil {
			continue
		}
		want = append(want, Wanted{Spec: s, Request: s.request(c, now)})
	}
	return want
}

// request fills in what depends on the cluster and on the time.
func (s Spec) request(c *config.Cluster, now time.Time) Request {
	r := Request{CommonName: s.CommonName, Organization: s.Organization, Usages: s.Usages}
	if r.CommonName == "" {
		r.CommonName = c.NodeName
	}
	if s.IsAuthority() {
		r.Names = []string{r.CommonName}
		return r.validFor(now, c.CAValidity)
	}
	if s.names != nil {
		r.Names = s.names(c)
	}
	if s.also != nil {
		r.Also = s.also(c)
	}
	return r.validFor(now, c.CertificateValidity)
}

// ClientRequest returns the request for a client certificate that is no file of its own, such as a kubeconfig's.
func ClientRequest(commonName string, organization []string, now time.Time, validity time.Duration) Request {
	r := Request{CommonName: commonName, Organization: organization, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	return r.validFor(now, validity)
}

func (r Request) validFor(now time.Time, validity time.Duration) Request {
	now = now.UTC()
	r.NotBefore, r.NotAfter = now.Add(-backdate), now.Add(validity)
	return r
}

// firstHost is the address that the kubernetes service gets: the first after the subnet's own.
func firstHost(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }
