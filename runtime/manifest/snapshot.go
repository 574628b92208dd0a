package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Snapshot is what a source wants to run at one instant. Its pods are never changed afterwards.
type Snapshot struct {
	Pods     []*StaticPod // sorted by full name; no two with the same full name or uid
	Problems []Problem    // sorted by source
}

// Problem is something that a user must repair. Meanwhile the pods of the last good state stay in the snapshot.
//
// A supervisor that has just started knows no last good state. So that a file that is invalid at that moment does not
// cost the pod that runs from it, a supervisor that finds a pod running without ever having had its manifest lets it
// run while a Problem names it, or while a Problem has no FullName.
type Problem struct {
	Source   string
	FullName string // the pod that the source held last, or seems to mean; "" when it cannot be told
	Err      error
}

func (p Problem) Error() string { return p.Err.Error() }

// Equal says that two snapshots want the same and report the same.
func (s Snapshot) Equal(t Snapshot) bool {
	return slices.EqualFunc(s.Pods, t.Pods, func(a, b *StaticPod) bool {
		return a.FullName() == b.FullName() && a.UID == b.UID && a.SpecHash == b.SpecHash && a.Source == b.Source
	}) && slices.EqualFunc(s.Problems, t.Problems, func(a, b Problem) bool {
		return a.Source == b.Source && a.FullName == b.FullName && a.Err.Error() == b.Err.Error()
	})
}

// Merge joins the snapshots of several sources. Where two want the same pod, the one that held it in prev keeps it,
// else the first; the other becomes a problem.
func Merge(prev Snapshot, parts ...Snapshot) Snapshot {
	var pods []*StaticPod
	var out Snapshot
	for _, part := range parts {
		pods = append(pods, part.Pods...)
		out.Problems = append(out.Problems, part.Problems...)
	}
	kept, refused := settle(prev.Pods, pods)
	out.Pods = kept
	out.Problems = append(out.Problems, refused...)
	sortProblems(out.Problems)
	return out
}

// settle gives each full name and each uid to one pod: to the source that had it before, else to the first in order. Of a
// source whose pod is refused the one stays that it had before: no edit stops a pod by being wrong.
func settle(before, pods []*StaticPod) (kept []*StaticPod, refused []Problem) {
	held, last := map[string]string{}, map[string]*StaticPod{} // full name → source → pod
	for _, p := range before {
		held[p.FullName()], last[p.Source] = p.Source, p
	}
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(a, b *StaticPod) int {
		rank := func(p *StaticPod) int {
			if held[p.FullName()] == p.Source {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	byName, byUID := map[string]*StaticPod{}, map[string]*StaticPod{}
	take := func(p *StaticPod) error {
		if first := byName[p.FullName()]; first != nil {
			return fmt.Errorf("%s: pod %s is already taken from %s, which keeps it; rename or remove one of them", p.Source, p.FullName(), first.Source)
		}
		if first := byUID[p.UID]; first != nil {
			return fmt.Errorf("%s: metadata.uid %q is already the one of pod %s from %s; give each pod its own, or none", p.Source, p.UID, first.FullName(), first.Source)
		}
		byName[p.FullName()], byUID[p.UID] = p, p
		return nil
	}
	var losers []*StaticPod
	for _, p := range pods {
		if err := take(p); err != nil {
			refused = append(refused, Problem{Source: p.Source, FullName: p.FullName(), Err: err})
			losers = append(losers, last[p.Source])
		}
	}
	for _, old := range losers {
		if old != nil {
			_ = take(old) // not if another has its name now
		}
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		kept = append(kept, byName[name])
	}
	return kept, refused
}

func sortProblems(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.FullName, b.FullName))
	})
}
