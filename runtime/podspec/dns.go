package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What resolvers take. Kubernetes v1.36.3 pkg/apis/core/validation/validation.go, MaxDNS….
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048 // characters of all of them with spaces
	maxDomainLength = 253
)

// dnsConfig is the pod's resolver by its dnsPolicy. Kubernetes v1.36.3 pkg/kubelet/network/dns/dns.go:391; options
// are in the order they were given, where the kubelet's vary from call to call.
func dnsConfig(pod *corev1.Pod, n Node) *runtimeapi.DNSConfig {
	var dns DNS
	policy := pod.Spec.DNSPolicy
	cluster := policy == corev1.DNSClusterFirstWithHostNet || policy == corev1.DNSClusterFirst && !pod.Spec.HostNetwork
	switch {
	case policy == corev1.DNSNone:
	case cluster && len(n.ClusterDNS) > 0:
		dns.Servers = slices.Clone(n.ClusterDNS)
		dns.Options = []string{"ndots:5"}
		dns.Searches = slices.Clone(n.HostDNS.Searches)
		if d := n.ClusterDomain; d != "" {
			dns.Searches = append([]string{pod.Namespace + ".svc." + d, "svc." + d, d}, dns.Searches...)
		}
	default: // also for a cluster policy when the node knows no cluster DNS
		dns = DNS{slices.Clone(n.HostDNS.Servers), slices.Clone(n.HostDNS.Searches), slices.Clone(n.HostDNS.Options)}
	}
	if own := pod.Spec.DNSConfig; own != nil {
		dns.Servers = append(dns.Servers, own.Nameservers...)
		dns.Searches = append(dns.Searches, own.Searches...)
		for _, o := range own.Options {
			option := o.Name
			if o.Value != nil && *o.Value != "" {
				option += ":" + *o.Value
			}
			dns.Options = setOption(dns.Options, option)
		}
	}
	dns.Servers = unique(dns.Servers)
	return &runtimeapi.DNSConfig{
		Servers:  dns.Servers[:min(len(dns.Servers), maxNameservers)],
		Searches: fitSearches(unique(dns.Searches)),
		Options:  dns.Options,
	}
}

func fitSearches(searches []string) []string {
	var out []string
	length := 0
	for _, s := range searches[:min(len(searches), maxSearches)] {
		if len(s) > maxDomainLength {
			continue // some resolvers abort on one
		}
		if length += len(s); len(out) > 0 {
			length++
		}
		if length > maxSearchLength {
			break
		}
		out = append(out, s)
	}
	return out
}

func unique(in []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range in {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// setOption replaces the option of the same name, or appends it.
func setOption(options []string, option string) []string {
	name, _, _ := strings.Cut(option, ":")
	for i, o := range options {
		if have, _, _ := strings.Cut(o, ":"); have == name {
			options[i] = option
			return options
		}
	}
	return append(options, option)
}

// ParseResolvConf reads a resolv.conf. Lines that are not understood are skipped, as resolvers do.
func ParseResolvConf(data []byte) DNS {
	var dns DNS
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			dns.Servers = append(dns.Servers, words[1:min(len(words), 2)]...)
		case "search": // the last line counts
			dns.Searches = nil
			for _, s := range words[1:] {
				if s != "." {
					dns.Searches = append(dns.Searches, strings.TrimSuffix(s, "."))
				}
			}
		case "options":
			for _, o := range words[1:] {
				dns.Options = setOption(dns.Options, o)
			}
		}
	}
	return dns
}

// hostsFile is the /etc/hosts of a pod's containers. Kubernetes v1.36.3 pkg/kubelet/kubelet_pods.go:494.
func hostsFile(pod *corev1.Pod, n Node, podIPs []string) []byte {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.Write(n.HostsFile)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n" +
			"127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::0\tip6-localnet\n" +
			"fe00::0\tip6-mcastprefix\n" +
			"fe00::1\tip6-allnodes\n" +
			"fe00::2\tip6-allrouters\n")
		name, domain := hostname(pod, n)
		if domain != "" {
			name = name + "." + domain + "\t" + name
		}
		for _, ip := range podIPs {
			b.WriteString(ip + "\t" + name + "\n")
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
		}
	}
	return []byte(b.String())
}
