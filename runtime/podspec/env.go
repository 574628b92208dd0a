package podspec

import (
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// env is a container's environment. A name that is declared twice has its last value, at its first place.
type env struct {
	names  []string
	values map[string]string
}

func environment(p *manifest.StaticPod, c *corev1.Container, a Attempt, n Node) (env, error) {
	e := env{values: map[string]string{}}
	for _, v := range c.Env {
		value, set := e.expand(v.Value), true
		if from := v.ValueFrom; v.Value == "" && from != nil {
			var err error
			switch {
			case from.FieldRef != nil:
				value, err = fieldValue(p, from.FieldRef.FieldPath, n, podIPs(p, a, n))
			case from.ResourceFieldRef != nil:
				value, err = resourceValue(p.Pod, c, from.ResourceFieldRef, n)
			case from.FileKeyRef != nil:
				value, set, err = fileValue(p, from.FileKeyRef, a, n)
			default:
				err = fmt.Errorf("its source is not supported")
			}
			if err != nil {
				return env{}, fmt.Errorf("variable %s: %w", v.Name, err)
			}
		}
		if !set {
			continue
		}
		if _, again := e.values[v.Name]; !again {
			e.names = append(e.names, v.Name)
		}
		e.values[v.Name] = value
	}
	return e, nil
}

func (e env) list() []*runtimeapi.KeyValue {
	var out []*runtimeapi.KeyValue
	for _, name := range e.names {
		out = append(out, &runtimeapi.KeyValue{Key: name, Value: []byte(e.values[name])})
	}
	return out
}

func (e env) expandAll(texts []string) []string {
	var out []string
	for _, s := range texts {
		out = append(out, e.expand(s))
	}
	return out
}

// expand replaces $(NAME) by the variable's value. An unknown or unclosed reference stays as it is, and $$ is one
// dollar, so that $$(NAME) is text.
func (e env) expand(s string) string {
	text, _ := e.expandStrict(s)
	return text
}

// expandStrict is expand, and names the references that are to no variable.
func (e env) expandStrict(s string) (text string, missing []string) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String(), missing
		}
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			s = after[1:]
		case strings.HasPrefix(after, "("):
			name, rest, closed := strings.Cut(after[1:], ")")
			if !closed {
				out.WriteString("$(")
				s = after[1:]
				continue
			}
			if value, known := e.values[name]; known {
				out.WriteString(value)
			} else {
				missing = append(missing, name)
				out.WriteString("$(" + name + ")")
			}
			s = rest
		default:
			out.WriteByte('$')
			s = after
		}
	}
}

// fieldValue is the value of a field of the pod that a variable or a file may show.
func fieldValue(p *manifest.StaticPod, path string, n Node, podIPs []string) (string, error) {
	if head, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch head {
		case "metadata.labels":
			return p.Pod.Labels[key], nil
		case "metadata.annotations":
			return p.Pod.Annotations[key], nil
		}
		return "", fmt.Errorf("field %q takes no key", path)
	}
	hostIPs := addresses(n.HostIPs)
	switch path {
	case "metadata.name":
		return p.Pod.Name, nil
	case "metadata.namespace":
		return p.Pod.Namespace, nil
	case "metadata.uid":
		return p.UID, nil
	case "metadata.labels":
		return keyValues(p.Pod.Labels), nil
	case "metadata.annotations":
		return keyValues(p.Pod.Annotations), nil
	case "spec.nodeName":
		return p.Pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Pod.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return first(hostIPs), nil
	case "status.hostIPs":
		return strings.Join(hostIPs, ","), nil
	case "status.podIP":
		return first(podIPs), nil
	case "status.podIPs":
		return strings.Join(podIPs, ","), nil
	}
	return "", fmt.Errorf("field %q cannot be referred to", path)
}

// keyValues prints a map as the downward API does: key="value" lines, sorted.
func keyValues(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, k+"="+strconv.Quote(m[k]))
	}
	return strings.Join(lines, "\n")
}

// resourceValue is a request or limit in units of the divisor, rounded up. A limit that is not set is the pod's, else
// what the host has.
func resourceValue(pod *corev1.Pod, c *corev1.Container, ref *corev1.ResourceFieldSelector, n Node) (string, error) {
	if ref.ContainerName != "" {
		var named *corev1.Container
		for other := range containers(pod) {
			if other.Name == ref.ContainerName {
				named = other
			}
		}
		if named == nil {
			return "", fmt.Errorf("resource %s: there is no container %q", ref.Resource, ref.ContainerName)
		}
		c = named
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	list := c.Resources.Requests
	if kind == "limits" {
		list = c.Resources.Limits
	}
	q := list[corev1.ResourceName(name)]
	if whole := podResources(pod).Limits[corev1.ResourceName(name)]; kind == "limits" && q.IsZero() {
		q = whole
	}
	if kind == "limits" && q.IsZero() {
		switch corev1.ResourceName(name) {
		case corev1.ResourceEphemeralStorage:
			q = *resource.NewQuantity(n.EphemeralStorage, resource.BinarySI)
		case corev1.ResourceCPU:
			q = *resource.NewQuantity(n.CPUs, resource.DecimalSI)
		case corev1.ResourceMemory:
			q = *resource.NewQuantity(n.MemoryCapacity, resource.BinarySI)
		}
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	value, unit := float64(q.Value()), float64(divisor.Value())
	if name == string(corev1.ResourceCPU) {
		value, unit = float64(q.MilliValue()), float64(divisor.MilliValue())
	}
	return strconv.FormatInt(int64(math.Ceil(value/unit)), 10), nil
}

func addresses(ips []netip.Addr) []string {
	var out []string
	for _, ip := range ips {
		out = append(out, ip.String())
	}
	return out
}

func first(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return s[0]
}
