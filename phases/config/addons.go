package config

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/util/version"
)

// coreDNSTags are those of each minor version of Kubernetes: CoreDNSVersion in cmd/kubeadm/app/constants/constants.go
// of v1.34.0, v1.35.0 and v1.36.3.
var coreDNSTags = map[uint]string{34: "v1.12.1", 35: "v1.13.1", 36: "v1.14.2"}

// addons settles what runs on the nodes that join.
func (b *builder) addons() {
	dns, proxy := b.docs.cluster.DNS, b.docs.cluster.Proxy
	b.out.DNSDisabled, b.out.ProxyDisabled = dns.Disabled, proxy.Disabled
	if dns.Disabled {
		for _, field := range []string{"dns.imageRepository", "dns.imageTag"} {
			if b.given(field) {
				b.warnf(field, "has no effect: dns.disabled is true")
			}
		}
	}
	if b.docs.kubeProxyJSON == nil {
		return
	}
	b.out.KubeProxy = b.docs.kubeProxyJSON
	if proxy.Disabled {
		b.warnf("KubeProxyConfiguration", "has no effect: proxy.disabled is true")
	}
	b.kubeProxy()
}

// kubeProxy checks what would have every kube-proxy of the cluster end at its start.
func (b *builder) kubeProxy() {
	const kind = "KubeProxyConfiguration"
	given := b.docs.kubeProxy
	if given.Mode != "" {
		b.oneOf(kind+".mode", string(given.Mode), "iptables", "ipvs", "nftables")
	}
	if a := given.BindAddress; a != "" {
		if _, err := netip.ParseAddr(a); err != nil {
			b.problemf(kind+".bindAddress", "%q is not an IP address", a)
		}
	}
	if given.ClusterCIDR != "" {
		b.subnets(kind+".clusterCIDR", given.ClusterCIDR, minPodAddresses)
	}
}

// coreDNSImage returns the image of CoreDNS. In registry.k8s.io it has a directory of its own, elsewhere it has not:
// kubeadm v1.36.3 images.GetDNSImage.
func (b *builder) coreDNSImage(repository string) string {
	given := b.docs.cluster.DNS
	if given.Disabled {
		return ""
	}
	if given.ImageRepository != "" {
		repository = given.ImageRepository
		b.repository("dns.imageRepository", repository)
	}
	if repository == defaultRepository {
		repository += "/coredns"
	}
	b.tag("dns.imageTag", given.ImageTag)
	return repository + "/coredns:" + withDefault(given.ImageTag, coreDNSTag(b.out.KubernetesVersion))
}

// coreDNSTag returns the tag that goes with a version of Kubernetes, or "" where it is none that is supported.
func coreDNSTag(kubernetes string) string {
	v, err := version.ParseSemantic(kubernetes)
	if err != nil {
		return ""
	}
	return coreDNSTags[v.Minor()]
}
