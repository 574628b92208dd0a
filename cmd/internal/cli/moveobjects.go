package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// objectsTimeout bounds what is asked of an API server that is ready.
const objectsTimeout = time.Minute

// moveObjects puts the new address into what the cluster tells of its API server, and removes the Node of a former name.
// It may be repeated.
func moveObjects(ctx context.Context, env *phases.Env, m plane.Move) error {
	ctx, cancel := context.WithTimeout(ctx, objectsTimeout)
	defer cancel()
	api := env.API.AsSuperAdmin()
	report := func(r kubeapi.Report) {
		kind := phases.Note
		if r.Warning {
			kind = phases.Warning
		}
		env.Report(phases.Event{Kind: kind, Text: r.Text})
	}
	if m.From != m.To {
		words := fmt.Sprintf("%s → %s", m.From, m.To)
		proxy := false
		for _, name := range []string{"kube-system/kubeadm-config", "kube-public/cluster-info", "kube-system/kube-proxy"} {
			namespace, name, _ := strings.Cut(name, "/")
			ref := kubeapi.Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: name}
			there, err := isThere(ctx, api, ref)
			if err != nil {
				return err
			}
			if !there {
				continue
			}
			if err := api.Edit(ctx, ref, words, func(o *unstructured.Unstructured) error { return moveData(o, m) }, report); err != nil {
				return err
			}
			proxy = proxy || name == "kube-proxy"
		}
		if proxy {
			if err := restartProxy(ctx, api, m, report); err != nil {
				return err
			}
		}
	}
	return moveNodes(ctx, api, m, report)
}

func isThere(ctx context.Context, api kubeapi.API, ref kubeapi.Ref) (bool, error) {
	_, err := api.Get(ctx, ref)
	if errors.Is(err, kubeapi.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// moveData replaces the address in a ConfigMap's data.
func moveData(o *unstructured.Unstructured, m plane.Move) error {
	data, _, err := unstructured.NestedStringMap(o.Object, "data")
	if err != nil {
		return err
	}
	for name, text := range data {
		data[name] = m.Text(text)
	}
	return unstructured.SetNestedStringMap(o.Object, data, "data")
}

// restartProxy has kube-proxy's pods start again, as kubectl rollout restart does: they read their kubeconfig once.
func restartProxy(ctx context.Context, api kubeapi.API, m plane.Move, report func(kubeapi.Report)) error {
	ref := kubeapi.Ref{APIVersion: "apps/v1", Kind: "DaemonSet", Namespace: "kube-system", Name: "kube-proxy"}
	there, err := isThere(ctx, api, ref)
	if err != nil || !there {
		return err
	}
	return api.Edit(ctx, ref, "its pods start again, for the new address", func(o *unstructured.Unstructured) error {
		return unstructured.SetNestedField(o.Object, m.To.String(), "spec", "template", "metadata", "annotations", "slipway.dev/apiserver-address")
	}, report)
}

// moveNodes removes the Node of a former name: its Lease and its pods, mirror pods among them, are then collected by the
// cluster itself. Other nodes cannot be told of a new address from here; that is said.
func moveNodes(ctx context.Context, api kubeapi.API, m plane.Move, report func(kubeapi.Report)) error {
	nodes, err := api.List(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "Node"}, "")
	if err != nil {
		return err
	}
	var others []string
	for _, n := range nodes {
		switch name := n.GetName(); {
		case name == m.ToName:
		case name == m.FromName:
			err := api.Delete(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "Node", Name: name}, report)
			if err != nil && !errors.Is(err, kubeapi.ErrNotFound) { // by now, or by an attempt whose answer was lost
				return err
			}
		default:
			others = append(others, name)
		}
	}
	if len(others) > 0 && m.From != m.To {
		report(kubeapi.Report{Warning: true, Text: fmt.Sprintf("other nodes still look for the API server at %s: %s; on each, put %s into /etc/kubernetes/kubelet.conf "+
			"and restart the kubelet, unless they reach it by a name that you move", m.From, strings.Join(others, ", "), m.To)})
	}
	return nil
}
