// Package objects makes objects of the Kubernetes API from templates, for the phases that write them.
package objects

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
)

// Render returns the objects of a stream of YAML documents. It is a template for values, in which every scalar passes
// the function json, so that no value can become structure. A field that the kind does not have is an error.
func Render(stream string, values any) ([]*unstructured.Unstructured, error) {
	t, err := template.New("").Funcs(template.FuncMap{"json": toJSON}).Option("missingkey=error").Parse(stream)
	if err != nil {
		return nil, fmt.Errorf("parsing a template: %w", err)
	}
	var text bytes.Buffer
	if err := t.Execute(&text, values); err != nil {
		return nil, fmt.Errorf("filling in a template: %w", err)
	}
	var list []*unstructured.Unstructured
	for _, document := range strings.Split("\n"+text.String(), "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		o, err := decode([]byte(document))
		if err != nil {
			return nil, fmt.Errorf("decoding an object: %w", err)
		}
		list = append(list, o)
	}
	return list, nil
}

func toJSON(v any) (string, error) {
	data, err := json.Marshal(v)
	return string(data), err
}

func decode(document []byte) (*unstructured.Unstructured, error) {
	data, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(data); err != nil { // integers become int64, as the API's client wants them
		return nil, err
	}
	r := kubeapi.RefOf(o)
	typed := typeOf(r.Kind)
	if typed == nil {
		return nil, fmt.Errorf("%s: not a kind that slipway writes", r)
	}
	if err := yaml.UnmarshalStrict(data, typed); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return o, nil
}

func typeOf(kind string) any {
	switch kind {
	case "ConfigMap":
		return &corev1.ConfigMap{}
	case "Secret":
		return &corev1.Secret{}
	case "Service":
		return &corev1.Service{}
	case "ServiceAccount":
		return &corev1.ServiceAccount{}
	case "Role":
		return &rbacv1.Role{}
	case "RoleBinding":
		return &rbacv1.RoleBinding{}
	case "ClusterRole":
		return &rbacv1.ClusterRole{}
	case "ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{}
	case "Deployment":
		return &appsv1.Deployment{}
	case "DaemonSet":
		return &appsv1.DaemonSet{}
	}
	return nil
}

// Applying returns what a phase runs to apply the objects that the configuration asks for.
func Applying(plan func(*config.Cluster) ([]*unstructured.Unstructured, error)) func(context.Context, *phases.Env) error {
	return func(ctx context.Context, env *phases.Env) error {
		list, err := plan(env.Config)
		if err != nil {
			return err
		}
		return Apply(ctx, env, list...)
	}
}

// Apply applies the objects, all at once, within the time that the configuration gives to the API.
func Apply(ctx context.Context, env *phases.Env, list ...*unstructured.Unstructured) error {
	return ApplyAs(ctx, env, env.API, list...)
}

// ApplyAs is Apply through another API than the Env's.
func ApplyAs(ctx context.Context, env *phases.Env, api kubeapi.API, list ...*unstructured.Unstructured) error {
	ctx, cancel := Within(ctx, env)
	defer cancel()
	reports := make([][]kubeapi.Report, len(list)) // told in the order of the list
	errs := make([]error, len(list))
	var group errgroup.Group
	for i, o := range list {
		group.Go(func() error {
			errs[i] = api.Apply(ctx, o, func(r kubeapi.Report) { reports[i] = append(reports[i], r) })
			return nil
		})
	}
	group.Wait() // the errors are in errs
	for _, list := range reports {
		for _, r := range list {
			Tell(env)(r)
		}
	}
	return errors.Join(errs...)
}

// Within returns a context that ends when the API has had the time that the configuration gives it.
func Within(ctx context.Context, env *phases.Env) (context.Context, context.CancelFunc) {
	limit := env.Config.Timeouts.KubernetesAPICall
	if limit == 0 {
		limit = time.Minute // kubeadm's
	}
	return context.WithTimeoutCause(ctx, limit, fmt.Errorf("gave up after %s (timeouts.kubernetesAPICall)", limit))
}

// Tell returns the function that makes events of what the API reports.
func Tell(env *phases.Env) func(kubeapi.Report) {
	return func(r kubeapi.Report) {
		kind := phases.Note
		if r.Warning {
			kind = phases.Warning
		}
		env.Report(phases.Event{Kind: kind, Text: r.Text})
	}
}

// ConfigMap returns a ConfigMap, whose contents no template could hold.
func ConfigMap(namespace, name string, data, annotations map[string]string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
	o.SetNamespace(namespace)
	o.SetName(name)
	if len(annotations) > 0 {
		o.SetAnnotations(annotations)
	}
	contents := map[string]any{}
	for key, value := range data {
		contents[key] = value
	}
	o.Object["data"] = contents
	return o
}
