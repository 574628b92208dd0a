// Package markcontrolplane holds the phase that marks this node as one of the control plane.
package markcontrolplane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/objects"
)

// labels are those of every control-plane node, with empty values. kubeadm v1.36.3
// cmd/kubeadm/app/phases/markcontrolplane/markcontrolplane.go.
func labels() []string {
	return []string{"node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers"}
}

// New returns the phase.
func New() phases.Phase {
	return phases.Phase{
		Name:  "mark-control-plane",
		Short: "Mark the Node as one of the control plane, by labels and taints",
		Long: "Labels the Node that the supervisor has registered, and adds the taints of the configuration. What keeps pods off a node\n" +
			"without a kubelet stays: the taint slipway.dev/static-pods-only, and that the node is unschedulable.",
		Run: run,
	}
}

func run(ctx context.Context, env *phases.Env) error {
	ctx, cancel := objects.Within(ctx, env)
	defer cancel()
	taints := env.Config.Taints
	words := "labels " + strings.Join(labels(), ", ")
	for _, t := range taints {
		words += ", taint " + t.ToString()
	}
	r := kubeapi.Ref{APIVersion: "v1", Kind: "Node", Name: env.Config.NodeName}
	if err := env.API.Edit(ctx, r, words, func(o *unstructured.Unstructured) error { return mark(o, taints) }, objects.Tell(env)); err != nil {
		return fmt.Errorf("%w\nthe supervisor registers the node: slipway status", err)
	}
	return nil
}

// mark adds the labels and the taints that the Node lacks. Others stay as they are.
func mark(o *unstructured.Unstructured, taints []corev1.Taint) error {
	have := o.GetLabels()
	if have == nil {
		have = map[string]string{}
	}
	for _, label := range labels() {
		if _, there := have[label]; !there {
			have[label] = ""
		}
	}
	o.SetLabels(have)
	list, _, err := unstructured.NestedSlice(o.Object, "spec", "taints")
	if err != nil {
		return fmt.Errorf("reading its taints: %w", err)
	}
	for _, t := range taints {
		same := func(item any) bool {
			m, ok := item.(map[string]any)
			return ok && m["key"] == t.Key && m["effect"] == string(t.Effect)
		}
		if slices.ContainsFunc(list, same) {
			continue // with whatever value it has by now
		}
		item, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&t)
		if err != nil {
			return fmt.Errorf("taint %s: %w", t.ToString(), err)
		}
		list = append(list, item)
	}
	if len(list) == 0 {
		return nil
	}
	return unstructured.SetNestedSlice(o.Object, list, "spec", "taints")
}
