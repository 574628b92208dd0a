package apply

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// Refusal is a change that cannot be made on a cluster that runs.
type Refusal struct {
	Field   string // of the configuration
	Was, Is string
	Why     string
	Instead string // the right way
}

func (r *Refusal) Error() string {
	was, is := cmp.Or(r.Was, "nothing"), cmp.Or(r.Is, "nothing")
	return fmt.Sprintf("%s: cannot be changed from %s to %s: %s; %s", r.Field, was, is, r.Why, r.Instead)
}

// rule is a fact of a node that a change of its configuration must keep.
type rule struct {
	field   string
	of      func(*Node) string
	allowed func(was, is string) bool // of two that differ; nil allows nothing
	why     string
	instead string
}

const anotherCluster = "make another cluster for it, and move what runs here"

// rules are about what is in the files, not about fields: what extraArgs and patches change is seen as well.
func rules() []rule {
	flag := func(component, name string) func(*Node) string {
		return func(n *Node) string { return n.flag(component, name) }
	}
	return []rule{
		{
			"nodeRegistration.name", func(n *Node) string { return n.Name }, unknown,
			"the Node object, its pods' names and its certificates have it",
			"make another node for it: slipway reset and slipway init, with a backup of the data in between",
		},
		{
			"localAPIEndpoint.advertiseAddress", flag("kube-apiserver", "advertise-address"), nil,
			"certificates, kubeconfigs and etcd's member have it",
			"use slipway readdress --apiserver-advertise-address",
		},
		{
			"localAPIEndpoint.bindPort", flag("kube-apiserver", "secure-port"), nil,
			"kubeconfigs, nodes that have joined and the ConfigMap cluster-info have it",
			"keep it, and put what listens on another port before it",
		},
		{
			"controlPlaneEndpoint", (*Node).endpoint, unknown,
			"kubeconfigs, nodes that have joined and the ConfigMap cluster-info have it",
			"name it in apiServer.certSANs, and move admin.conf and super-admin.conf away to have them written anew with it",
		},
		{
			"networking.serviceSubnet", flag("kube-apiserver", "service-cluster-ip-range"), nil,
			"Services keep their addresses, and certificates have the first",
			"add addresses with a ServiceCIDR object",
		},
		{
			"networking.podSubnet", flag("kube-controller-manager", "cluster-cidr"), func(was, _ string) bool { return was == "" },
			"Nodes keep the part of it that they were given",
			anotherCluster,
		},
		{
			"networking.dnsDomain", func(n *Node) string { return n.Kubelet.ClusterDomain }, nil,
			"pods have it in their resolv.conf, and tokens of ServiceAccounts name it as their issuer",
			anotherCluster,
		},
		{
			"etcd", func(n *Node) string { // whether it runs here
				if n.Pods["etcd"] != nil {
					return "etcd.local"
				}
				return "etcd.external"
			}, nil,
			"the cluster's objects would stay behind",
			"take a snapshot (slipway etcd snapshot save) and restore it into the other one",
		},
		{
			"etcd.local.dataDir", flag("etcd", "data-dir"), unknown,
			"the cluster's objects would stay behind",
			"take a snapshot (slipway etcd snapshot save), and restore it there",
		},
		{
			"etcd.local.imageTag", func(n *Node) string { return n.tag("etcd") }, notOlderMinor,
			"etcd does not read what a newer minor version has written",
			"take a snapshot (slipway etcd snapshot save), and restore it with the older version",
		},
		{
			"etcd.external.endpoints", func(n *Node) string {
				if n.Pods["etcd"] != nil {
					return "" // a local one's is a matter of etcd's own flags
				}
				return n.flag("kube-apiserver", "etcd-servers")
			}, inCommon,
			"no endpoint is left of those in use: it may be another etcd, without the cluster's objects",
			"go in two steps, the first with old and new endpoints",
		},
		{
			"certificatesDir", func(n *Node) string { return n.volume("kube-apiserver", "k8s-certs") }, nil,
			"certificates of other authorities would be made there",
			"keep it",
		},
		{
			"kubernetesVersion", func(n *Node) string { return n.tag("kube-apiserver") }, oneMinorUp,
			"objects may be stored as only the newer version reads them, and components may be one minor version apart",
			"go up one minor version at a time, and back with a backup of that version",
		},
		{
			"nodeRegistration.criSocket", func(n *Node) string { return n.Kubelet.ContainerRuntimeEndpoint }, nil,
			"what runs in the one runtime would run in the other a second time",
			"use slipway reset and slipway init, with a backup of the data in between",
		},
		{
			"KubeletConfiguration.staticPodPath", func(n *Node) string { return n.Manifests }, nil,
			"the pods of one directory would run beside those of the other",
			"keep it",
		},
		{
			"KubeletConfiguration.cgroupDriver", func(n *Node) string { return n.Kubelet.CgroupDriver }, unknown,
			"what runs stays where the other driver has put it",
			"use slipway reset and slipway init, with a backup of the data in between",
		},
		{
			"KubeletConfiguration.cgroupRoot", func(n *Node) string { return strings.TrimSuffix(n.Kubelet.CgroupRoot, "/") }, nil,
			"what runs stays below the other one",
			"use slipway reset and slipway init, with a backup of the data in between",
		},
	}
}

// endpoint is the URL by which administrators know the API server, unless it is the node's own.
func (n *Node) endpoint() string {
	own := "https://" + net.JoinHostPort(n.flag("kube-apiserver", "advertise-address"), n.flag("kube-apiserver", "secure-port"))
	if n.Server == own {
		return "the node's address"
	}
	return n.Server
}

// Refuse returns a *Refusal for each change from one node to another that apply does not make, joined, or nil.
func Refuse(was, is *Node) error {
	var refused []error
	for _, r := range rules() {
		from, to := r.of(was), r.of(is)
		if from == to || r.allowed != nil && r.allowed(from, to) {
			continue
		}
		refused = append(refused, &Refusal{Field: r.field, Was: from, Is: to, Why: r.why, Instead: r.instead})
	}
	return errors.Join(refused...)
}

// unknown allows what cannot be compared: one of the two is not told.
func unknown(was, is string) bool { return was == "" || is == "" }

// inCommon allows lists that share an element.
func inCommon(was, is string) bool {
	return unknown(was, is) || slices.ContainsFunc(strings.Split(was, ","), func(s string) bool { return slices.Contains(strings.Split(is, ","), s) })
}

// notOlderMinor allows tags that are not of an older minor version, and those that are no versions.
func notOlderMinor(was, is string) bool {
	from, to, ok := versions(was, is)
	return !ok || to.Major() > from.Major() || to.Major() == from.Major() && to.Minor() >= from.Minor()
}

// oneMinorUp allows tags that are not older, and at most one minor version newer, and those that are no versions.
func oneMinorUp(was, is string) bool {
	from, to, ok := versions(was, is)
	return !ok || !to.LessThan(from) && to.Major() == from.Major() && to.Minor() <= from.Minor()+1
}

// versions parses two tags, in which "_" stands for "+".
func versions(was, is string) (from, to *version.Version, ok bool) {
	from, err := version.ParseSemantic(strings.ReplaceAll(was, "_", "+"))
	if err != nil {
		return nil, nil, false
	}
	to, err = version.ParseSemantic(strings.ReplaceAll(is, "_", "+"))
	return from, to, err == nil
}
