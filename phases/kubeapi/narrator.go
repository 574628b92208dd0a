package kubeapi

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Narrator tells what Live would do. It asks nobody: every read finds nothing.
type Narrator struct{}

var (
	_ API = Narrator{}
	_ API = (*Live)(nil)
)

// AsSuperAdmin implements API.
func (n Narrator) AsSuperAdmin() API { return n }

// Apply implements API.
func (Narrator) Apply(_ context.Context, o *unstructured.Unstructured, report func(Report)) error {
	report(Report{Text: "would apply " + nameOf(o)})
	return nil
}

// Create implements API.
func (Narrator) Create(_ context.Context, o *unstructured.Unstructured, report func(Report)) error {
	report(Report{Text: "would create " + nameOf(o)})
	return nil
}

// Edit implements API.
func (Narrator) Edit(_ context.Context, r Ref, words string, _ func(*unstructured.Unstructured) error, report func(Report)) error {
	report(Report{Text: fmt.Sprintf("would change %s: %s", r, words)})
	return nil
}

// Await implements API.
func (Narrator) Await(_ context.Context, r Ref, words string, _ func(*unstructured.Unstructured) bool, report func(Report)) error {
	report(Report{Text: fmt.Sprintf("would wait until %s %s", r, words)})
	return nil
}

// Delete implements API.
func (Narrator) Delete(_ context.Context, r Ref, report func(Report)) error {
	report(Report{Text: fmt.Sprintf("would delete %s", r)})
	return nil
}

// Get implements API.
func (Narrator) Get(_ context.Context, r Ref) (*unstructured.Unstructured, error) {
	return nil, fmt.Errorf("%s: %w", r, ErrNotFound)
}

// List implements API.
func (Narrator) List(context.Context, Ref, string) ([]unstructured.Unstructured, error) {
	return nil, nil
}

// nameOf is the object's name. That of a bootstrap token is made anew in each run.
func nameOf(o *unstructured.Unstructured) string {
	r := RefOf(o)
	if kind, _, _ := unstructured.NestedString(o.Object, "type"); kind == "bootstrap.kubernetes.io/token" {
		r.Name = "bootstrap-token-…"
	}
	return r.String()
}
