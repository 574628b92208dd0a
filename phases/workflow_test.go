package phases

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tree is a workflow like init's, without anything to run.
func tree() Workflow {
	return Workflow{Phases: []Phase{
		{Name: "preflight"},
		{Name: "certs", Phases: []Phase{{Name: "ca"}, {Name: "apiserver", After: []string{"certs/ca"}}}},
		{Name: "kubeconfig", After: []string{"certs"}, Phases: []Phase{{Name: "kubeconfig/admin"}, {Name: "scheduler"}}},
		{Name: "control-plane", Phases: []Phase{{Name: "apiserver"}, {Name: "scheduler"}}},
		{Name: "wait-control-plane", After: []string{"control-plane"}},
	}}
}

func TestPlanSelects(t *testing.T) {
	for name, tc := range map[string]struct{ only, skip, want string }{
		"everything":           {want: "preflight certs/ca certs/apiserver kubeconfig/admin kubeconfig/scheduler control-plane/apiserver control-plane/scheduler wait-control-plane"},
		"one":                  {only: "certs/apiserver", want: "certs/apiserver"}, // what it needs is its own affair
		"a group":              {only: "control-plane", want: "control-plane/apiserver control-plane/scheduler"},
		"a group as all":       {only: "control-plane/all", want: "control-plane/apiserver control-plane/scheduler"},
		"two, in their order":  {only: "control-plane/scheduler certs/ca", want: "certs/ca control-plane/scheduler"},
		"all but one":          {only: "certs", skip: "certs/ca", want: "certs/apiserver"},
		"all but what is last": {skip: "wait-control-plane", want: "preflight certs/ca certs/apiserver kubeconfig/admin kubeconfig/scheduler control-plane/apiserver control-plane/scheduler"},
		"half a needed group":  {skip: "control-plane/scheduler certs/apiserver", want: "preflight certs/ca kubeconfig/admin kubeconfig/scheduler control-plane/apiserver wait-control-plane"},
		"nothing":              {only: "certs", skip: "certs", want: ""},
	} {
		t.Run(name, func(t *testing.T) {
			plan, err := tree().Plan(strings.Fields(tc.only), strings.Fields(tc.skip))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range plan.Steps {
				got = append(got, s.Name)
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	begin := func(after string) func(*Workflow) {
		return func(w *Workflow) { w.Phases[1].Phases[0].BeginAfter = []string{after} }
	}
	for name, tc := range map[string]struct {
		change     func(*Workflow)
		only, skip string
		want       string
	}{
		"a misspelt phase":             {only: "certs/apisrever", want: `unknown phase "certs/apisrever": did you mean "certs/apiserver"?`},
		"a phase without its group":    {skip: "admin", want: `unknown phase "admin": did you mean "kubeconfig/admin"?`},
		"an unlike phase":              {only: "xyz", want: `unknown phase "xyz"`},
		"all unknown phases at once":   {only: "preflihgt", skip: "cert", want: "unknown phase \"preflihgt\": did you mean \"preflight\"?\nunknown phase \"cert\": did you mean \"certs\"?"},
		"all of what is no group":      {only: "certz/all", want: `unknown phase "certz/all": did you mean "certs"?`},
		"skipping what others need":    {skip: "control-plane", want: `phase "wait-control-plane" needs "control-plane", which is skipped: skip "wait-control-plane" too, or run the phases that you want one by one`},
		"a need that comes later":      {change: func(w *Workflow) { w.Phases[0].After = []string{"certs"} }, want: `phase "preflight" waits for "certs/ca", which comes later`},
		"a need that does not exist":   {change: func(w *Workflow) { w.Phases[4].After = []string{"cert"} }, want: `phase "wait-control-plane" waits for the unknown phase "cert": did you mean "certs"?`},
		"a beginning after itself":     {change: begin("certs/ca"), want: `phase "certs/ca" waits for "certs/ca", which comes later`},
		"a beginning after what is no": {change: begin("x"), want: `phase "certs/ca" waits for the unknown phase "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			w := tree()
			if tc.change != nil {
				tc.change(&w)
			}
			_, err := w.Plan(strings.Fields(tc.only), strings.Fields(tc.skip))
			if err == nil {
				t.Fatal("no error")
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWalkListsTheTree(t *testing.T) {
	var got strings.Builder
	tree().Walk(func(name string, depth int, p Phase) {
		fmt.Fprintf(&got, "%s%s (%d)\n", strings.Repeat("  ", depth), name, len(p.Phases))
	})
	const want = `preflight (0)
certs (2)
  certs/ca (0)
  certs/apiserver (0)
kubeconfig (2)
  kubeconfig/admin (0)
  kubeconfig/scheduler (0)
control-plane (2)
  control-plane/apiserver (0)
  control-plane/scheduler (0)
wait-control-plane (0)
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestEventKindsHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for k := PhaseStarted; k <= Joined; k++ {
		if name := k.String(); seen[name] || strings.HasPrefix(name, "event ") {
			t.Errorf("kind %d is called %q", int(k), name)
		} else {
			seen[name] = true
		}
	}
}
