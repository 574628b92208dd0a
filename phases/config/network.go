package config

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

const (
	defaultServiceSubnet = "10.96.0.0/12"
	defaultDNSDomain     = "cluster.local"
	defaultBindPort      = 6443

	// What kubeadm v1.36.3 asks of subnets (constants.go): room for the addresses that it takes itself, and no more
	// service addresses than etcd's bitmap of them, or nodes than the controller manager's, can hold.
	minServiceAddresses = 10
	minPodAddresses     = 14
	maxServiceHostBits  = 20
	maxNodeMaskBits     = 16
)

// network settles the subnets and the DNS domain.
func (b *builder) network() {
	const services, pods = "networking.serviceSubnet", "networking.podSubnet"
	given := b.docs.cluster.Networking

	b.out.ServiceSubnets = b.subnets(services, withDefault(given.ServiceSubnet, defaultServiceSubnet), minServiceAddresses)
	for _, p := range b.out.ServiceSubnets {
		if p.Addr().BitLen()-p.Bits() > maxServiceHostBits {
			b.problemf(services, "%q is too large; the longest allowed is /%d", p, p.Addr().BitLen()-maxServiceHostBits)
		}
	}
	b.out.PodSubnets = b.subnets(pods, given.PodSubnet, minPodAddresses)
	b.nodeMasks(pods)
	b.overlap(services, pods)

	b.out.DNSDomain = withDefault(given.DNSDomain, defaultDNSDomain)
	b.dnsName("networking.dnsDomain", b.out.DNSDomain)
}

// subnets parses one subnet, or two of different families for dual stack, separated by a comma.
func (b *builder) subnets(field, list string, minAddresses int) []netip.Prefix {
	if list == "" {
		return nil
	}
	var out []netip.Prefix
	for _, s := range strings.Split(list, ",") {
		p, ok := b.subnet(field, s)
		if !ok {
			continue
		}
		if bits := p.Addr().BitLen() - p.Bits(); bits < 31 && 1<<bits < minAddresses {
			b.problemf(field, "%q has %d addresses; at least %d are needed", s, 1<<bits, minAddresses)
		}
		out = append(out, p)
	}
	switch {
	case len(out) > 2:
		b.problemf(field, "%q: wanted one subnet, or one IPv4 and one IPv6 subnet, found %d", list, len(out))
	case len(out) == 2 && out[0].Addr().Is4() == out[1].Addr().Is4():
		b.problemf(field, "%q: both subnets are %s; dual stack has one IPv4 and one IPv6 subnet", list, family(out[0].Addr()))
	}
	return out
}

func (b *builder) subnet(field, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		hint := "write it as 10.96.0.0/12 or fd00::/108"
		if trimmed := strings.TrimSpace(s); trimmed != s {
			hint = "leave out the space"
		} else if addr, err := netip.ParseAddr(s); err == nil {
			hint = "its length is missing, as in " + netip.PrefixFrom(addr, addr.BitLen()/2).String()
		}
		b.problemf(field, "%q is not a subnet; %s", s, hint)
		return netip.Prefix{}, false
	}
	if p.Addr().Is4In6() {
		b.problemf(field, "%q is an IPv4 subnet in IPv6 form; write it as IPv4", s)
		return netip.Prefix{}, false
	}
	if p != p.Masked() {
		b.problemf(field, "%q has bits set behind its length; did you mean %q?", s, p.Masked())
		return netip.Prefix{}, false
	}
	return p, true
}

// overlap reports service and pod subnets that share addresses, or families that never meet.
func (b *builder) overlap(services, pods string) {
	shared := len(b.out.PodSubnets) == 0
	for _, s := range b.out.ServiceSubnets {
		for _, p := range b.out.PodSubnets {
			if s.Overlaps(p) {
				b.problemf(pods, "%q overlaps %s %q; give pods and services different addresses", p, services, s)
			}
			shared = shared || s.Addr().Is4() == p.Addr().Is4()
		}
	}
	if !shared && len(b.out.ServiceSubnets) > 0 {
		b.warnf(pods, "the pods are %s and the services %s: no service reaches a pod", family(b.out.PodSubnets[0].Addr()), family(b.out.ServiceSubnets[0].Addr()))
	}
}

// nodeMasks checks that the controller manager can cut the pod subnets into one for each node.
func (b *builder) nodeMasks(field string) {
	if value, _ := lastArg(b.docs.cluster.ControllerManager.ExtraArgs, "allocate-node-cidrs"); value == "false" {
		return
	}
	for _, p := range b.out.PodSubnets {
		mask, name := 24, "node-cidr-mask-size-ipv4"
		if p.Addr().Is6() {
			mask, name = 64, "node-cidr-mask-size-ipv6"
		}
		if value, i := lastArg(b.docs.cluster.ControllerManager.ExtraArgs, name); i >= 0 {
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > p.Addr().BitLen() {
				b.problemf(element("controllerManager.extraArgs", i), "%s=%q is not a length between 1 and %d", name, value, p.Addr().BitLen())
				continue
			}
			mask = n
		}
		switch {
		case p.Bits() > mask:
			b.problemf(field, "%q is smaller than the /%d of one node; set %s of the controller manager, or a larger subnet", p, mask, name)
		case mask-p.Bits() > maxNodeMaskBits:
			b.problemf(field, "%q is too large: at a /%d for each node it may be /%d at most; set %s of the controller manager, or a smaller subnet", p, mask, mask-maxNodeMaskBits, name)
		}
	}
}

// endpoint settles where the API server listens, and by what name its clients know it.
func (b *builder) endpoint() {
	const field = "localAPIEndpoint.bindPort"
	port := b.docs.init.LocalAPIEndpoint.BindPort
	if port == 0 && b.flags[field] == "" {
		port = defaultBindPort
	}
	if port < 1 || port > 65535 {
		b.problemf(field, "%d is not a port between 1 and 65535", port)
		port = defaultBindPort
	}
	b.out.BindPort = uint16(port)
	b.out.AdvertiseAddress = b.advertiseAddress()
	b.out.ControlPlaneEndpoint = b.controlPlaneEndpoint(b.docs.cluster.ControlPlaneEndpoint)
}

// advertiseAddress returns the address that other hosts reach the API server at: the given one, or the host's default
// of the family of the services.
func (b *builder) advertiseAddress() netip.Addr {
	const field = "localAPIEndpoint.advertiseAddress"
	v4 := len(b.out.ServiceSubnets) == 0 || b.out.ServiceSubnets[0].Addr().Is4()
	if given := b.docs.init.LocalAPIEndpoint.AdvertiseAddress; given != "" {
		addr, err := netip.ParseAddr(given)
		addr = addr.Unmap()
		switch {
		case err != nil:
			b.problemf(field, "%q is not an IP address", given)
			return netip.Addr{}
		case addr.IsUnspecified():
			v4 = addr.Is4() // as kubeadm: the host's default address is meant
		case addr.IsLoopback():
			b.problemf(field, "%q is a loopback address, which other hosts cannot reach; name an address of this host", given)
			return netip.Addr{}
		case !addr.IsGlobalUnicast() || addr.Zone() != "":
			b.problemf(field, "%q is not an address that other hosts can reach", given)
			return netip.Addr{}
		default:
			b.besideServices(field, addr)
			return addr
		}
	}
	for _, addr := range b.facts.DefaultAddresses {
		if addr = addr.Unmap(); addr.Is4() == v4 {
			b.besideServices(field, addr)
			return addr
		}
	}
	wanted := "IPv6"
	if v4 {
		wanted = "IPv4"
	}
	b.problemf(field, "this host has no default %s address; set --apiserver-advertise-address", wanted)
	return netip.Addr{}
}

// besideServices reports an advertise address that the API server refuses at its start beside the service subnet, and
// one that a service may take.
func (b *builder) besideServices(field string, addr netip.Addr) {
	if s := b.out.ServiceSubnets; len(s) > 0 && s[0].Addr().Is4() != addr.Is4() {
		b.problemf(field, "%q is %s, but the first of networking.serviceSubnet, %q, is %s; the API server wants one family for both", addr, family(addr), s[0], family(s[0].Addr()))
	}
	for _, s := range b.out.ServiceSubnets {
		if s.Contains(addr) {
			// Not an error: 10.96.0.0/12 covers private networks in use, and most of its addresses never get taken.
			b.warnf(field, "%q lies within networking.serviceSubnet %q: a service may take a host's address; set --service-cidr", addr, s)
		}
	}
}

// controlPlaneEndpoint completes a host or host:port with the port of this API server.
func (b *builder) controlPlaneEndpoint(endpoint string) string {
	const field = "controlPlaneEndpoint"
	if endpoint == "" {
		return ""
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(endpoint, "["), "]"), ""
	}
	if port == "" {
		port = strconv.Itoa(int(b.out.BindPort))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		b.problemf(field, "%q: %q is not a port between 1 and 65535", endpoint, port)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return net.JoinHostPort(addr.String(), port)
	}
	if strings.Contains(host, "/") {
		b.problemf(field, "%q is not host or host:port; leave out scheme and path", endpoint)
		return ""
	}
	b.dnsName(field, host)
	return net.JoinHostPort(host, port)
}

// family names the family of an address.
func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

func withDefault(value, byDefault string) string {
	if value == "" {
		return byDefault
	}
	return value
}
