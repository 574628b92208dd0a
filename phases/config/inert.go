package config

import (
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inert is a field that slipway does not act on yet. Set to what kubeadm prints or does anyway it only earns a warning,
// so that the output of `kubeadm config print init-defaults` loads; anything else is refused, never ignored.
type inert struct {
	field   string
	refused bool
	reason  string
}

// inertFields returns the fields without effect, judged by their values.
func inertFields(docs documents) []inert {
	var (
		init    = docs.init
		node    = init.NodeRegistration
		dns     = docs.cluster.DNS
		noDNS   = "no DNS add-on is installed yet"
		timeout = func(name string, d *metav1.Duration, kubeadms time.Duration, reason string) inert {
			return inert{"timeouts." + name, d != nil && d.Duration != 0 && d.Duration != kubeadms, reason}
		}
	)
	return []inert{
		{"bootstrapTokens", !kubeadmsTokens(init.BootstrapTokens), "bootstrap tokens are not made yet"},
		{"certificateKey", init.CertificateKey != "", "certificates are not uploaded to the cluster yet"},
		{"nodeRegistration.taints", !kubeadmsTaints(node.Taints), "the Node is registered by the supervisor, which knows one taint of its own"},
		{"nodeRegistration.kubeletExtraArgs", len(node.KubeletExtraArgs) > 0, "no kubelet is started; use a KubeletConfiguration document"},
		timeout("kubeletHealthCheck", init.Timeouts.KubeletHealthCheck, 4*time.Minute, "no kubelet is started"),
		timeout("kubernetesAPICall", init.Timeouts.KubernetesAPICall, time.Minute, "init makes no calls that it would limit yet"),
		timeout("etcdAPICall", init.Timeouts.EtcdAPICall, 2*time.Minute, "init makes no calls that it would limit yet"),
		timeout("tlsBootstrap", init.Timeouts.TLSBootstrap, 5*time.Minute, "it is for join, which does not exist yet"),
		timeout("discovery", init.Timeouts.Discovery, 5*time.Minute, "it is for join, which does not exist yet"),
		timeout("upgradeManifests", init.Timeouts.UpgradeManifests, 5*time.Minute, "it is for upgrade, which does not exist yet"),
		{"dns.imageRepository", dns.ImageRepository != "", noDNS},
		{"dns.imageTag", dns.ImageTag != "", noDNS},
	}
}

// checkInert warns about the inert fields that the user gave, or refuses them.
func checkInert(r *report, docs documents) {
	for _, f := range inertFields(docs) {
		switch {
		case f.refused:
			r.problemf(f.field, "has no effect: %s; remove the field", f.reason)
		case r.given(f.field):
			r.warnf(f.field, "has no effect: %s", f.reason)
		}
	}
	// True asks for what is the case anyway.
	if r.given("dns.disabled") && !docs.cluster.DNS.Disabled {
		r.warnf("dns.disabled", "has no effect: no DNS add-on is installed yet")
	}
	if r.given("proxy.disabled") && !docs.cluster.Proxy.Disabled {
		r.warnf("proxy.disabled", "has no effect: no kube-proxy is installed yet")
	}
	checkKubeProxy(r, docs.kubeProxy)
}

// kubeadmsTokens says whether the tokens are none, or the placeholder that kubeadm prints.
func kubeadmsTokens(tokens []bootstrapToken) bool {
	if len(tokens) != 1 {
		return len(tokens) == 0
	}
	t := tokens[0]
	return (t.Token == "" || t.Token == "abcdef.0123456789abcdef") && t.Description == "" && t.Expires == nil &&
		(t.TTL == nil || t.TTL.Duration == 24*time.Hour) &&
		(len(t.Usages) == 0 || slices.Equal(t.Usages, []string{"signing", "authentication"})) &&
		(len(t.Groups) == 0 || slices.Equal(t.Groups, []string{"system:bootstrappers:kubeadm:default-node-token"}))
}

// kubeadmsTaints says whether the taints are none, or the one of every control-plane node.
func kubeadmsTaints(taints []corev1.Taint) bool {
	return len(taints) == 0 ||
		len(taints) == 1 && taints[0] == corev1.Taint{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}
}

// checkKubeProxy warns about a KubeProxyConfiguration that holds nothing but what kubeadm prints, and refuses each
// other value by name.
func checkKubeProxy(r *report, root *yaml.Node) {
	if root == nil {
		return
	}
	const kind = "KubeProxyConfiguration"
	r.warnings = append(r.warnings, &Problem{r.file, root.Line, kind, "has no effect: no kube-proxy is installed yet"})
	printed := map[string][]string{
		kind + ".apiVersion":                  {kubeProxyVersion},
		kind + ".kind":                        {kind},
		kind + ".bindAddress":                 {"0.0.0.0", "::"},
		kind + ".clientConnection.kubeconfig": {"/var/lib/kube-proxy/kubeconfig.conf"},
	}
	zero := []string{"", "0", "0s", "false", "null", "~"}
	var walk func(n *yaml.Node, field string)
	walk = func(n *yaml.Node, field string) {
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				path := join(field, n.Content[i].Value)
				r.lines[path] = n.Content[i].Line
				walk(n.Content[i+1], path)
			}
		case yaml.SequenceNode:
			if len(n.Content) > 0 {
				r.problemf(field, "has no effect: no kube-proxy is installed yet; remove the field")
			}
		default:
			if !slices.Contains(zero, strings.ToLower(n.Value)) && !slices.Contains(printed[field], n.Value) {
				r.problemf(field, "has no effect: no kube-proxy is installed yet; remove the field")
			}
		}
	}
	walk(root, kind)
}
