package config

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// The timeouts of kubeadm v1.36.3: constants.ControlPlaneComponentHealthCheckTimeout and KubernetesAPICallTimeout.
const (
	defaultHealthCheckTimeout = 4 * time.Minute
	defaultAPICallTimeout     = time.Minute
)

// DefaultEtcdAPICall is how long a call to etcd may take where no configuration is at hand that says otherwise. kubeadm
// v1.36.3 constants.EtcdAPICallTimeout.
const DefaultEtcdAPICall = 2 * time.Minute

// node settles the node's name and how its containers are run.
func (b *builder) node() {
	reg := b.docs.init.NodeRegistration
	b.out.NodeName = b.nodeName("nodeRegistration.name", reg.Name)
	b.out.CRISocket = b.socket("nodeRegistration.criSocket", reg.CRISocket)

	b.out.ImagePullPolicy = corev1.PullIfNotPresent
	if reg.ImagePullPolicy != "" {
		b.pullPolicy("nodeRegistration.imagePullPolicy", reg.ImagePullPolicy)
		b.out.ImagePullPolicy = reg.ImagePullPolicy
	}
	b.out.ImagePullSerial = reg.ImagePullSerial == nil || *reg.ImagePullSerial
	b.out.Taints = b.taints("nodeRegistration.taints", reg.Taints)
}

// nodeName returns the given name or the hostname, in lower case and trimmed as kubeadm and the kubelet name nodes.
func (b *builder) nodeName(field, given string) string {
	if name := strings.ToLower(strings.TrimSpace(given)); name != "" {
		b.dnsName(field, name)
		return name
	}
	name := strings.ToLower(strings.TrimSpace(b.facts.Hostname))
	if name == "" {
		b.problemf(field, "the host has no name to take; set --node-name")
	} else if reasons := validation.IsDNS1123Subdomain(name); len(reasons) > 0 {
		b.problemf(field, "the hostname %q cannot name a node: %s; set --node-name", name, reasons[0])
	}
	return name
}

// taints returns the taints of this node: that of every control-plane node unless others are named. An empty list is
// given by who wants none.
func (b *builder) taints(field string, given []corev1.Taint) []corev1.Taint {
	if given == nil {
		return []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
	}
	first := map[corev1.Taint]int{}
	for i, t := range given {
		at := element(field, i)
		if reasons := validation.IsQualifiedName(t.Key); len(reasons) > 0 {
			b.problemf(at+".key", "%s", quoted(t.Key, reasons[0]))
		}
		if reasons := validation.IsValidLabelValue(t.Value); len(reasons) > 0 {
			b.problemf(at+".value", "%s", quoted(t.Value, reasons[0]))
		}
		b.oneOf(at+".effect", string(t.Effect), string(corev1.TaintEffectNoSchedule), string(corev1.TaintEffectPreferNoSchedule), string(corev1.TaintEffectNoExecute))
		same := corev1.Taint{Key: t.Key, Effect: t.Effect} // a node has one of each key and effect
		if other, ok := first[same]; ok {
			b.problemf(at, "key and effect are those of %s too; keep one", element(field, other))
		}
		first[same] = i
	}
	return slices.Clone(given)
}

// socket returns the socket of a runtime that the user brings as "unix:///path", or "" for slipway's own.
func (b *builder) socket(field, socket string) string {
	if socket == "" {
		return ""
	}
	scheme, path, ok := strings.Cut(socket, "://")
	if !ok {
		path = strings.TrimPrefix(socket, "unix:")
		if strings.HasPrefix(path, "/") {
			b.warnf(field, "%q has no scheme; taken as %q", socket, "unix://"+path)
		}
	} else if scheme != "unix" {
		b.problemf(field, "%q: only unix sockets are supported; write unix:///path", socket)
		return ""
	}
	if path == "" {
		b.problemf(field, "%q names no socket; write unix:///path", socket)
		return ""
	}
	return "unix://" + b.absolute(field, path)
}

// ignoredChecks returns the names of preflight checks in lower case, each once. "all" stands alone, as in kubeadm.
func (b *builder) ignoredChecks(names []string) []string {
	var out []string
	for _, name := range names {
		if name = strings.ToLower(strings.TrimSpace(name)); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if len(out) > 1 && slices.Contains(out, "all") {
		b.problemf("nodeRegistration.ignorePreflightErrors", `"all" ignores every check: leave out the others, or "all"`)
	}
	return out
}
