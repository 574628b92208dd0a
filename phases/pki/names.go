package pki

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases/config"
)

// apiServerNames are kubeadm's: v1.36.3 util/pkiutil/pki_helpers.go, GetAPIServerAltNames.
func apiServerNames(c *config.Cluster) []string {
	names := []string{c.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc"}
	if c.DNSDomain != "" {
		names = append(names, "kubernetes.default.svc."+c.DNSDomain)
	}
	// Only the first subnet: the kubernetes service has one address, of the cluster's first family.
	if len(c.ServiceSubnets) > 0 {
		names = append(names, firstHost(c.ServiceSubnets[0]).String())
	}
	names = append(names, c.AdvertiseAddress.String())
	if host := endpointHost(c.ControlPlaneEndpoint); host != "" {
		names = append(names, host)
	}
	return append(names, c.CertSANs...)
}

// loopbackNames are slipway's addition: what runs on the node can reach the API server without knowing the node's
// address, and goes on doing so when that address changes. Certificates that kubeadm made do without.
func loopbackNames(c *config.Cluster) []string {
	names := []string{"localhost", "127.0.0.1"}
	if usesIPv6(c) {
		names = append(names, "::1")
	}
	return names
}

func etcdServerNames(c *config.Cluster) []string {
	return append(etcdNames(c), c.Etcd.Local.ServerCertSANs...)
}

func etcdPeerNames(c *config.Cluster) []string {
	return append(etcdNames(c), c.Etcd.Local.PeerCertSANs...)
}

func etcdNames(c *config.Cluster) []string {
	return []string{c.NodeName, "localhost", c.AdvertiseAddress.String(), "127.0.0.1", "::1"}
}

func usesIPv6(c *config.Cluster) bool {
	return c.AdvertiseAddress.Is6() || slices.ContainsFunc(c.ServiceSubnets, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// endpointHost returns the host of "host", "host:port" or "[host]:port".
func endpointHost(endpoint string) string {
	if host, _, err := net.SplitHostPort(endpoint); err == nil {
		return host
	}
	return strings.Trim(endpoint, "[]")
}

// splitNames parts DNS names, sorted, from addresses, in the order given; each once.
func splitNames(names []string) ([]string, []netip.Addr) {
	var dns []string
	var addrs []netip.Addr
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		switch {
		case err != nil:
			dns = append(dns, name)
		case !slices.Contains(addrs, addr.Unmap()):
			addrs = append(addrs, addr.Unmap())
		}
	}
	slices.Sort(dns)
	return slices.Compact(dns), addrs
}
