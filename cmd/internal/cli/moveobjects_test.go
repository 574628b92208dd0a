package cli

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// A cluster need not have kube-proxy, nor cluster-info.
func TestAMoveChangesTheObjectsThatAreThere(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	object := func(kind, namespace, name string) *unstructured.Unstructured {
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"name": name}}}
		o.SetNamespace(namespace)
		return o
	}
	configuration := object("ConfigMap", "kube-system", "kubeadm-config")
	configuration.Object["data"] = map[string]any{"ClusterConfiguration": "apiServer: {certSANs: [192.0.2.1, 192.0.2.10]}"}
	for _, o := range []*unstructured.Unstructured{configuration, object("Node", "", "edge1"), object("Node", "", "edge2"), object("Node", "", "worker")} {
		if err := api.Create(t.Context(), o, func(kubeapi.Report) {}); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	env := &phases.Env{API: api, Report: func(e phases.Event) { told = append(told, e.Text) }}
	move := plane.Move{From: netip.MustParseAddr("192.0.2.1"), To: netip.MustParseAddr("192.0.2.2"), FromName: "edge1", ToName: "edge2"}
	for range 2 { // it may be repeated
		if err := moveObjects(t.Context(), env, move); err != nil {
			t.Fatal(err)
		}
	}
	data, _, _ := unstructured.NestedString(s.Object("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").Object, "data", "ClusterConfiguration")
	if data != "apiServer: {certSANs: [192.0.2.2, 192.0.2.10]}" {
		t.Errorf("kubeadm-config: %s", data)
	}
	if s.Object("/api/v1/nodes/edge1") != nil || s.Object("/api/v1/nodes/edge2") == nil {
		t.Errorf("nodes: %q", s.Paths())
	}
	s.Refuse = func(r *http.Request) error {
		if r.Method == http.MethodDelete {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "edge2")
		}
		return nil
	}
	gone := plane.Move{From: move.To, To: move.To, FromName: "edge2", ToName: "edge3"}
	if err := moveObjects(t.Context(), env, gone); err != nil {
		t.Errorf("a Node that goes meanwhile: %v", err)
	}
	if text := strings.Join(told, "\n"); !strings.Contains(text, "still look for the API server at 192.0.2.1: worker") {
		t.Errorf("told:\n%s", text)
	}
}
