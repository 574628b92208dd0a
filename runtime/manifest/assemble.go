package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// listing is what one look at a source showed.
type listing struct {
	err    error // the source as a whole could not be listed: what was good stays
	items  []item
	single bool // the source is one file, not a directory
	// nameless says that an item does not tell whom it means: it may be any of those that the listing lacks.
	nameless bool
}

// item is one manifest of a listing. Its key is its identity from one listing to the next.
type item struct {
	source string // path or URL with the item's name
	data   []byte
	err    error // it is there but could not be read: what was good stays
}

// state is what a source remembers between two listings. The zero value is a source that was never listed.
type state struct {
	claims map[string]claim // by item source
	snap   Snapshot
}

// claim is one manifest: what it says now, and the last version of it that was valid.
type claim struct {
	data []byte
	good *StaticPod // nil when it never was valid
	err  error      // why the present version is not used; nil when it is
}

// assemble computes the next state from the last one and a listing.
//
//	file is new or edited, valid    → its pod is wanted
//	file edited, invalid            → the pod it held stays wanted, and a problem is reported
//	file unreadable                 → the same
//	file gone                       → its pod is not wanted any more
//	listing failed                  → everything stays, and a problem is reported
//	an item of a list has no name   → those that the list lacks stay
//	two files hold the same pod     → the one that held it first keeps it, the other is a problem
func assemble(prev state, l listing, source, nodeName string) state {
	next := state{claims: prev.claims}
	if l.err == nil {
		next.claims = map[string]claim{}
		for _, it := range l.items {
			next.claims[it.source] = nextClaim(prev.claims[it.source], it, nodeName)
		}
		for key, c := range prev.claims {
			if _, listed := next.claims[key]; l.nameless && !listed && c.good != nil {
				if c.err != nil { // of a version that is not listed any more
					c.data, c.err = nil, nil
				}
				next.claims[key] = c
			}
		}
	}
	var pods []*StaticPod
	var problems []Problem
	for _, key := range slices.Sorted(maps.Keys(next.claims)) {
		c := next.claims[key]
		if c.good != nil {
			pods = append(pods, c.good)
		}
		if c.err != nil {
			problems = append(problems, Problem{Source: key, FullName: c.fullName(nodeName), Err: c.err})
		}
	}
	kept, refused := settle(prev.snap.Pods, pods)
	problems = append(problems, refused...)
	if l.err != nil {
		problems = append(problems, Problem{Source: source, Err: l.err})
	}
	sortProblems(problems)
	next.snap = Snapshot{Pods: kept, Problems: problems}
	return next
}

func nextClaim(prev claim, it item, nodeName string) claim {
	if it.err != nil {
		return claim{data: prev.data, good: prev.good, err: it.err}
	}
	if prev.data != nil && bytes.Equal(prev.data, it.data) && !unread(prev) {
		return prev
	}
	c := claim{data: it.data, good: prev.good}
	if c.data == nil {
		c.data = []byte{}
	}
	pod, err := Parse(it.data, it.source, nodeName)
	if err != nil {
		c.err = err
		return c
	}
	if c.good == nil || c.good.UID != pod.UID || c.good.SpecHash != pod.SpecHash {
		c.good = pod // an edit of comments keeps the very same value, and so wakes nobody
	}
	return c
}

// unread says that the error of a claim comes from reading, so that equal bytes do not prove that nothing changed.
func unread(c claim) bool {
	var inv *InvalidError
	return c.err != nil && !errors.As(c.err, &inv)
}

// fullName is the pod that the claim stands for: the last good one, or what an invalid manifest still tells of itself.
func (c claim) fullName(nodeName string) string {
	if c.good != nil {
		return c.good.FullName()
	}
	var named struct {
		Metadata struct {
			Name, Namespace string
		}
	}
	if yaml.Unmarshal(c.data, &named) != nil || named.Metadata.Name == "" {
		return ""
	}
	ns := named.Metadata.Namespace
	if ns == "" {
		ns = corev1.NamespaceDefault
	}
	return fmt.Sprintf("%s/%s", ns, podName(named.Metadata.Name, nodeName))
}
