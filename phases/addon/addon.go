// Package addon installs what every cluster needs beside its control plane: CoreDNS and kube-proxy.
package addon

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/objects"
	"github.com/slipway-k8s/slipway/phases/patch"
	"github.com/slipway-k8s/slipway/phases/uploadconfig"
)

var (
	//go:embed coredns.yaml
	coreDNSManifests string
	//go:embed Corefile
	corefile string
	//go:embed kube-proxy.yaml
	kubeProxyManifests string
)

// New returns the phase "addon".
func New() phases.Phase {
	return phases.Phase{
		Name:  "addon",
		Short: "Install CoreDNS and kube-proxy; they run on the nodes that join",
		Phases: []phases.Phase{
			{Name: "coredns", Short: "CoreDNS, the cluster's DNS service", Begin: objects.Applying(CoreDNS), BeginAfter: []string{clusteradmins.Name},
				Long: "Installs CoreDNS: two pods, which wait for a node that can run them, and the Service kube-dns. Left out with dns.disabled."},
			{Name: "kube-proxy", Short: "kube-proxy, which makes Services reachable on each node", Begin: objects.Applying(KubeProxy), BeginAfter: []string{clusteradmins.Name},
				Long: "Installs kube-proxy as a DaemonSet on all nodes that have a kubelet: not on those that slipway runs static pods for, which have\n" +
					"the label slipway.dev/static-pods-only. Left out with proxy.disabled."},
		},
	}
}

// CoreDNS returns the objects of CoreDNS, none where the configuration disables it.
func CoreDNS(c *config.Cluster) ([]*unstructured.Unstructured, error) {
	if c.DNSDisabled {
		return nil, nil
	}
	address, err := kubelet.DNSAddress(c)
	if err != nil {
		return nil, err
	}
	list, err := objects.Render(coreDNSManifests, struct{ Corefile, Image, ServiceIP string }{
		strings.ReplaceAll(corefile, "DOMAIN", c.DNSDomain), c.Images.CoreDNS, address.String(),
	})
	if err != nil {
		return nil, err
	}
	for i, o := range list {
		if o.GetKind() != "Deployment" {
			continue
		}
		if list[i], err = patch.Deployment(o, c.Patches); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// KubeProxy returns the objects of kube-proxy, none where the configuration disables it.
func KubeProxy(c *config.Cluster) ([]*unstructured.Unstructured, error) {
	if c.ProxyDisabled {
		return nil, nil
	}
	conf, err := proxyConfiguration(c)
	if err != nil {
		return nil, err
	}
	access, err := proxyKubeconfig(kubeconfig.SharedServer(c))
	if err != nil {
		return nil, err
	}
	env := []corev1.EnvVar{}
	for _, name := range slices.Sorted(maps.Keys(c.Facts.ProxyEnv)) {
		env = append(env, corev1.EnvVar{Name: name, Value: c.Facts.ProxyEnv[name]})
	}
	signature := uploadconfig.Signature(c.KubeProxy, slices.Concat(conf, access)) // in the order of their keys
	return objects.Render(kubeProxyManifests, struct {
		Image, Config, Kubeconfig string
		Signature                 map[string]string
		Env                       []corev1.EnvVar
	}{c.Images.KubeProxy, string(conf), string(access), signature, env})
}

// proxyConfiguration returns the KubeProxyConfiguration: the user's, with what the cluster determines where that says
// nothing. As with kubeadm an empty string says nothing. kubeadm v1.36.3 componentconfigs/kubeproxy.go.
func proxyConfiguration(c *config.Cluster) ([]byte, error) {
	doc := map[string]any{}
	if c.KubeProxy != nil {
		if err := json.Unmarshal(c.KubeProxy, &doc); err != nil {
			return nil, fmt.Errorf("reading the user's KubeProxyConfiguration: %w", err)
		}
	}
	doc["apiVersion"], doc["kind"] = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
	bind := "0.0.0.0"
	if c.AdvertiseAddress.Is6() {
		bind = "::"
	}
	setDefault(doc, "bindAddress", bind)
	var pods []string
	for _, s := range c.PodSubnets {
		pods = append(pods, s.String())
	}
	if len(pods) > 0 {
		setDefault(doc, "clusterCIDR", strings.Join(pods, ","))
	}
	connection, ok := doc["clientConnection"].(map[string]any)
	if !ok {
		connection = map[string]any{}
	}
	setDefault(connection, "kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf")
	doc["clientConnection"] = connection
	return yaml.Marshal(doc)
}

func setDefault(doc map[string]any, field, value string) {
	if have, _ := doc[field].(string); have == "" {
		doc[field] = value
	}
}

// proxyKubeconfig is how kube-proxy reaches the API server: as its service account.
func proxyKubeconfig(server string) ([]byte, error) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	type named = map[string]any
	return yaml.Marshal(named{
		"apiVersion": "v1", "kind": "Config", "current-context": "default",
		"clusters": []named{{"name": "default", "cluster": named{"server": server, "certificate-authority": account + "ca.crt"}}},
		"contexts": []named{{"name": "default", "context": named{"cluster": "default", "namespace": "default", "user": "default"}}},
		"users":    []named{{"name": "default", "user": named{"tokenFile": account + "token"}}},
	})
}
