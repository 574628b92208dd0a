// Package kubeconfig writes the files with which an administrator, the kubelet, the controller manager or the scheduler
// reach the API server.
package kubeconfig

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Spec describes one kubeconfig file.
type Spec struct {
	Name         string // the phase's name, as kubeadm's
	File         string // below the Kubernetes directory
	Long         string // whom it is for
	User         string // with a trailing colon, the node's name follows
	Organization []string
	Shared       bool // points at the control plane endpoint, where there is one, instead of at this node
}

// Table returns the files in the order of their phases. Users and groups are kubeadm's: v1.36.3
// cmd/kubeadm/app/phases/kubeconfig/kubeconfig.go, getKubeConfigSpecsBase.
func Table() []Spec {
	return []Spec{
		{Name: "admin", File: "admin.conf", Long: "administrator, whose rights come from a role binding",
			User: "kubernetes-admin", Organization: []string{"kubeadm:cluster-admins"}, Shared: true},
		{Name: "super-admin", File: "super-admin.conf", Long: "administrator of last resort, whose rights no role binding can take away",
			User: "kubernetes-super-admin", Organization: []string{"system:masters"}, Shared: true},
		{Name: "kubelet", File: "kubelet.conf", Long: "node itself",
			User: "system:node:", Organization: []string{"system:nodes"}},
		{Name: "controller-manager", File: "controller-manager.conf", Long: "controller manager", User: "system:kube-controller-manager"},
		{Name: "scheduler", File: "scheduler.conf", Long: "scheduler", User: "system:kube-scheduler"},
	}
}

// Wanted is a kubeconfig together with what it must say in this cluster.
type Wanted struct {
	Spec
	Path    string
	Cluster string
	Server  string // URL
	Request pki.Request
}

// Want returns what the cluster c needs, in the table's order.
func Want(c *config.Cluster, now time.Time) []Wanted {
	var want []Wanted
	for _, s := range Table() {
		user := s.User
		if strings.HasSuffix(user, ":") {
			user += c.NodeName
		}
		server := LocalServer(c)
		if s.Shared {
			server = SharedServer(c)
		}
		want = append(want, Wanted{Spec: s, Path: c.Paths.Kubeconfig(s.File), Cluster: c.ClusterName, Server: server,
			Request: pki.ClientRequest(user, s.Organization, now, c.CertificateValidity)})
	}
	return want
}

// LocalServer returns the URL of this node's API server.
func LocalServer(c *config.Cluster) string {
	return server(c.AdvertiseAddress.String(), strconv.Itoa(int(c.BindPort)))
}

// SharedServer returns the URL that the cluster is known by: the control plane endpoint where there is one. It takes the
// node's own port where the endpoint has none, as kubeadm does.
func SharedServer(c *config.Cluster) string {
	if c.ControlPlaneEndpoint == "" {
		return LocalServer(c)
	}
	host, port, err := net.SplitHostPort(c.ControlPlaneEndpoint)
	if err != nil {
		host = strings.Trim(c.ControlPlaneEndpoint, "[]")
	}
	if port == "" {
		port = strconv.Itoa(int(c.BindPort))
	}
	return server(host, port)
}

func server(host, port string) string {
	return (&url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}).String()
}
