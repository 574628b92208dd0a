// Package kubeapi is the seam between the phases and the Kubernetes API.
package kubeapi

import (
	"context"
	"errors"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// FieldManager is by what name the API server knows the fields that slipway has set.
const FieldManager = "slipway"

// ErrNotFound is what Get and Delete wrap when there is no such object.
var ErrNotFound = errors.New("not found")

// ErrExists is what Create wraps when the object is there already.
var ErrExists = errors.New("it exists already")

// API reads and changes objects. Live does; Narrator only tells what Live would do, over a cluster that has no objects.
//
// Calls may be made at the same time. Each goes on trying until the API server answers for good or ctx ends, so ctx
// needs a deadline. What a call changed, or found changed by somebody else, it reports; nothing is reported where
// nothing changed.
type API interface {
	// AsSuperAdmin returns the API as the administrator whose rights no role binding can take away.
	AsSuperAdmin() API
	// Apply makes the object's fields what o says, but for those that somebody else has set to something else: they
	// are kept, with a warning.
	Apply(ctx context.Context, o *unstructured.Unstructured, report func(Report)) error
	// Create makes an object that must not be there yet.
	Create(ctx context.Context, o *unstructured.Unstructured, report func(Report)) error
	// Edit waits until the object is there and then changes it. The function may be called several times, each time with
	// the object as it is then; where it changes nothing, nothing is sent. What it does is told by the words.
	Edit(ctx context.Context, r Ref, words string, change func(*unstructured.Unstructured) error, report func(Report)) error
	// Await returns once the object is there and done returns true for it. What is waited for is told by the words.
	Await(ctx context.Context, r Ref, words string, done func(*unstructured.Unstructured) bool, report func(Report)) error
	// Delete removes the object.
	Delete(ctx context.Context, r Ref, report func(Report)) error
	// Get returns the object.
	Get(ctx context.Context, r Ref) (*unstructured.Unstructured, error)
	// List returns the objects of the Ref's kind in its namespace that match a field selector ("" for all).
	List(ctx context.Context, r Ref, fields string) ([]unstructured.Unstructured, error)
}

// Report is one thing that a call did, or did not do.
type Report struct {
	Text    string
	Warning bool // somebody should act on it
}

// Ref names an object, or without Name all of its kind in a namespace.
type Ref struct {
	APIVersion, Kind string
	Namespace, Name  string // Namespace is "" for objects of the whole cluster
}

// RefOf returns the object's name.
func RefOf(o *unstructured.Unstructured) Ref {
	return Ref{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// String is how messages name the object: "ConfigMap kube-system/kubeadm-config".
func (r Ref) String() string {
	s := r.Kind
	if r.Namespace != "" {
		s += " " + r.Namespace + "/" + r.Name
	} else if r.Name != "" {
		s += " " + r.Name
	}
	return s
}

func (r Ref) groupVersionKind() schema.GroupVersionKind {
	return schema.FromAPIVersionAndKind(r.APIVersion, r.Kind)
}
