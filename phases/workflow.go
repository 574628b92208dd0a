package phases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Workflow is a tree of phases in the order in which they run.
type Workflow struct {
	Phases []Phase
}

// Plan is what Run will do: the phases that were selected, without groups, in order.
type Plan struct {
	Steps []Step
}

// Step is one phase of a Plan.
type Step struct {
	Name  string // full
	Phase Phase

	beginAfter []int // indexes of the steps that Begin waits for; all of them are smaller than its own
}

// Walk calls visit for every phase and group, parents first, with its full name and its depth (0 at the top).
func (w Workflow) Walk(visit func(name string, depth int, p Phase)) {
	walk(w.Phases, "", 0, visit)
}

func walk(list []Phase, parent string, depth int, visit func(string, int, Phase)) {
	for _, p := range list {
		name := join(parent, p.Name)
		visit(name, depth, p)
		walk(p.Phases, name, depth+1, visit)
	}
}

func join(parent, name string) string {
	if parent == "" || strings.HasPrefix(name, parent+"/") {
		return name
	}
	return parent + "/" + name
}

// Plan returns the steps to run. Names in only and skip are full names of phases or of groups, which stand for all
// that is in them ("control-plane", or "control-plane/all" as kubeadm spells it). With an empty only everything is
// selected, and every phase's After must then be in the plan before it; of a group, one phase is enough. Phases that
// are selected by name check for themselves what they need on disk, so that each can be run alone.
//
// An error names every problem at once, and comes before any effect.
func (w Workflow) Plan(only, skip []string) (Plan, error) {
	var all []string
	var steps []Step
	after := map[string][]string{} // with what the groups above demand
	w.Walk(func(name string, _ int, p Phase) {
		all = append(all, name)
		after[name] = append(slices.Clone(after[parentOf(name)]), p.After...)
		if len(p.Phases) == 0 {
			steps = append(steps, Step{Name: name, Phase: p})
		}
	})

	var problems []error
	resolve := func(names []string) []string {
		found := make([]string, 0, len(names))
		for _, name := range names {
			known, ok := lookUp(all, name)
			if !ok {
				problems = append(problems, fmt.Errorf("unknown phase %q%s", name, didYouMean(name, all)))
				continue
			}
			found = append(found, known)
		}
		return found
	}
	only, skip = resolve(only), resolve(skip)
	if len(problems) > 0 {
		return Plan{}, errors.Join(problems...)
	}

	var plan Plan
	for _, s := range steps {
		if (len(only) == 0 || slices.ContainsFunc(only, s.in)) && !slices.ContainsFunc(skip, s.in) {
			plan.Steps = append(plan.Steps, s)
		}
	}
	for i := range plan.Steps {
		s := &plan.Steps[i]
		if len(only) == 0 {
			for _, need := range after[s.Name] {
				problems = append(problems, plan.checkAfter(i, need, all))
			}
		}
		for _, name := range s.Phase.BeginAfter {
			indexes, err := plan.indexesBefore(i, name, all)
			problems = append(problems, err)
			s.beginAfter = append(s.beginAfter, indexes...)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return Plan{}, err
	}
	return plan, nil
}

// in reports whether the step is the named phase, or in the named group.
func (s Step) in(name string) bool { return s.Name == name || strings.HasPrefix(s.Name, name+"/") }

// checkAfter returns an error unless need runs before step i.
func (p Plan) checkAfter(i int, need string, all []string) error {
	indexes, err := p.indexesBefore(i, need, all)
	if err != nil {
		return err
	}
	if len(indexes) == 0 {
		return fmt.Errorf("phase %q needs %q, which is skipped: skip %q too, or run the phases that you want one by one", p.Steps[i].Name, need, p.Steps[i].Name)
	}
	return nil
}

// indexesBefore returns which steps before step i the name stands for; none if they are not in the plan.
func (p Plan) indexesBefore(i int, name string, all []string) ([]int, error) {
	if !slices.Contains(all, name) {
		return nil, fmt.Errorf("phase %q waits for the unknown phase %q%s", p.Steps[i].Name, name, didYouMean(name, all))
	}
	var before []int
	for k, s := range p.Steps {
		if !s.in(name) {
			continue
		}
		if k >= i {
			return nil, fmt.Errorf("phase %q waits for %q, which comes later", p.Steps[i].Name, s.Name)
		}
		before = append(before, k)
	}
	return before, nil
}

// lookUp returns the full name that the user means.
func lookUp(all []string, name string) (string, bool) {
	name = strings.Trim(name, "/")
	if slices.Contains(all, name) {
		return name, true
	}
	group, isAll := strings.CutSuffix(name, "/all")
	return group, isAll && slices.Contains(all, group)
}

func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}
