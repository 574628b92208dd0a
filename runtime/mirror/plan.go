package mirror

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// kind of an action.
type kind int

const (
	create kind = iota // POST pod
	remove             // DELETE with no grace, if uid is still the one
	report             // PATCH status
	refuse             // nothing can be done, and why
)

func (k kind) String() string { return [...]string{"create", "remove", "report", "refuse"}[k] }

// action is one step towards an API that shows the static pods as they are.
type action struct {
	kind  kind
	name  string      // "namespace/name"
	uid   types.UID   // of the mirror, for remove and report
	pod   *corev1.Pod // for create, without an owner
	patch []byte      // for report
	why   string
}

func (a action) String() string {
	s := a.kind.String() + " " + a.name
	if a.why != "" {
		s += ": " + a.why
	}
	return s
}

// plan returns what is to be done now, at most one action per name, sorted by name. After a removal the same question
// asked again gives the creation. bases are the faces that the API server itself gave to mirrors of ours.
//
//	static pod          pod of that name in the API        action
//	runs                none                               create
//	runs                its mirror                         report, if the status differs
//	runs                another's mirror, old, edited,     remove
//	                    deleted, owned by an older Node
//	runs                no mirror                          refuse
//	ends                its mirror                         report
//	gone                a mirror                           remove
//	never was           deleted, never started             remove, as nobody else will confirm that
func plan(node types.UID, want map[string]wanted, have map[string]seen, bases map[types.UID]face) []action {
	names := slices.Collect(maps.Keys(want))
	for name := range have {
		if _, both := want[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var actions []action
	for _, name := range names {
		w, wanted := want[name]
		h, there := have[name]
		if a, needed := planOne(node, wanted, w, there, h, bases); needed {
			a.name = name
			actions = append(actions, a)
		}
	}
	return actions
}

func planOne(node types.UID, wanted bool, w wanted, there bool, h seen, bases map[types.UID]face) (action, bool) {
	switch {
	case !there:
		return action{kind: create, pod: w.pod}, wanted && !w.ending
	case !wanted && h.hash != "":
		return action{kind: remove, uid: h.uid, why: "its static pod is gone"}, true
	case !wanted:
		return action{kind: remove, uid: h.uid, why: "deleted, and never started here"}, h.deleting && !h.started
	case w.ending && h.hash != w.hash:
		return action{}, false
	case h.hash == "":
		return action{kind: refuse, why: "a pod of this name that is no mirror of a static pod is bound to this node: delete it"}, !w.ending
	}
	if why := w.differs(node, h, bases); why != "" && !w.ending {
		return action{kind: remove, uid: h.uid, why: why}, true
	}
	if patch := statusPatch(w.status, h); patch != nil {
		return action{kind: report, uid: h.uid, patch: patch}, true
	}
	return action{}, false
}

// differs says why a mirror cannot stay, "" when it can.
func (w wanted) differs(node types.UID, h seen, bases map[types.UID]face) string {
	base, known := bases[h.uid]
	if !known {
		base = w.face
	}
	switch {
	case h.hash != w.hash:
		return "it shows another version of its static pod"
	case h.deleting:
		return "it was deleted, its static pod was not"
	case h.owner != node:
		return fmt.Sprintf("its owner is not this Node (%s)", node)
	}
	if edited := base.edited(h.face, known); edited != "" {
		return "its " + edited + " was edited"
	}
	return ""
}
