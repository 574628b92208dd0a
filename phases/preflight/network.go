package preflight

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// checkRoutes only warns: the control plane uses the host's network and runs all the same. What lies behind the route
// is out of reach as soon as services or pods have its addresses.
func checkRoutes(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, subnets := range []struct {
		what, option string
		list         []netip.Prefix
	}{{"service", "--service-cidr", cfg.ServiceSubnets}, {"pod", "--pod-network-cidr", cfg.PodSubnets}} {
		for _, subnet := range subnets.list {
			if subnet.Contains(cfg.AdvertiseAddress) {
				problems = append(problems, warning("HostRoutes", "choose others with "+subnets.option,
					"the %s addresses %s contain this machine's own address %s", subnets.what, subnet, cfg.AdvertiseAddress))
				continue
			}
			for _, r := range seen.Routes {
				if r.Destination.Overlaps(subnet) && !ofPods(r.Interface) {
					problems = append(problems, warning("HostRoutes", "choose others with "+subnets.option,
						"the %s addresses %s overlap the network %s, which this machine reaches through %s", subnets.what, subnet, r.Destination, r.Interface))
				}
			}
		}
	}
	return problems
}

// ofPods tells the interfaces of pod networks: a route there leads to the pods themselves.
func ofPods(link string) bool {
	return slices.ContainsFunc([]string{"cni", "cali", "flannel", "vxlan.calico", "tunl", "cilium", "lxc", "veth", "weave", "kube-ipvs"}, func(prefix string) bool {
		return strings.HasPrefix(link, prefix)
	})
}

// endpointHost is the host of the control plane's endpoint, "" where it has none.
func endpointHost(cfg *config.Cluster) string {
	if cfg.ControlPlaneEndpoint == "" {
		return ""
	}
	name, _, err := net.SplitHostPort(cfg.ControlPlaneEndpoint)
	if err != nil {
		return cfg.ControlPlaneEndpoint
	}
	return name
}

// checkEndpoint only warns: a load balancer or a DNS record is often made after the first node.
func checkEndpoint(cfg *config.Cluster, seen *host.Inspection) []Problem {
	name := endpointHost(cfg)
	if name == "" {
		return nil
	}
	const check, fix = "ControlPlaneEndpoint", "kubeconfigs and other nodes use it: see that it leads here before they do"
	addresses := seen.Lookup.Addresses
	if a, err := netip.ParseAddr(name); err == nil {
		addresses = []netip.Addr{a}
	} else if seen.Lookup.Err != "" {
		return []Problem{warning(check, fmt.Sprintf("add it to DNS, or a line %q to /etc/hosts", cfg.AdvertiseAddress.String()+" "+name),
			"the control plane's endpoint %s does not resolve: %s", name, seen.Lookup.Err)}
	}
	for _, a := range addresses {
		if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return []Problem{warning(check, fix, "the control plane's endpoint %s is %s, which is another machine on each machine", name, a)}
		}
	}
	return nil
}

// endpointLookup is the name that has to be resolved, "" for an address.
func endpointLookup(cfg *config.Cluster) string {
	name := endpointHost(cfg)
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return name
}
