package podspec

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// nodeLabels are the labels by which a pod may select this node.
func nodeLabels(n Node) map[string]string {
	labels := maps.Clone(n.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[corev1.LabelOSStable] = "linux"
	labels[corev1.LabelArchStable] = runtime.GOARCH
	if labels[corev1.LabelHostname] == "" {
		labels[corev1.LabelHostname] = n.Name
	}
	return labels
}

// nodeSelection refuses a pod that selects other nodes: a kubelet does so when it admits it. Preferences are for a
// scheduler, and pods' labels are not known here.
func (f *finder) nodeSelection() {
	s, labels := &f.pod.Spec, nodeLabels(f.node)
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		want, have := s.NodeSelector[key], "no such label"
		if value, ok := labels[key]; ok {
			have = strconv.Quote(value)
		}
		f.refuse(have != strconv.Quote(want), "spec.nodeSelector["+key+"]", fmt.Sprintf("this node has %s", have))
	}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil {
		return
	}
	required := s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil {
		return
	}
	matches := slices.ContainsFunc(required.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool { return matchTerm(t, labels, f.node.Name) })
	f.refuse(!matches, "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", "no term matches this node: "+describeLabels(labels))
}

// matchTerm tells whether all of a term hold; an empty one never does. Kubernetes v0.36.3
// component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go.
func matchTerm(t corev1.NodeSelectorTerm, labels map[string]string, name string) bool {
	for _, r := range t.MatchFields {
		if !matchExpression(r, map[string]string{"metadata.name": name}) {
			return false
		}
	}
	for _, r := range t.MatchExpressions {
		if !matchExpression(r, labels) {
			return false
		}
	}
	return len(t.MatchFields)+len(t.MatchExpressions) > 0
}

func matchExpression(r corev1.NodeSelectorRequirement, labels map[string]string) bool {
	value, ok := labels[r.Key]
	switch r.Operator {
	case corev1.NodeSelectorOpIn:
		return ok && slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpNotIn:
		return !ok || !slices.Contains(r.Values, value)
	case corev1.NodeSelectorOpExists:
		return ok
	case corev1.NodeSelectorOpDoesNotExist:
		return !ok
	}
	have, err := strconv.ParseInt(value, 10, 64)
	if err != nil || len(r.Values) != 1 {
		return false
	}
	bound, err := strconv.ParseInt(r.Values[0], 10, 64)
	if err != nil {
		return false
	}
	return r.Operator == corev1.NodeSelectorOpGt && have > bound || r.Operator == corev1.NodeSelectorOpLt && have < bound
}

func describeLabels(labels map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, ", ")
}
