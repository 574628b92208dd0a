package mirror

import (
	"cmp"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func (r *reconciler) contest(name string) *contest {
	c := r.contests[name]
	if c == nil {
		c = &contest{}
		r.contests[name] = c
	}
	return c
}

// left is how long a pod that was refused is left alone. Another version of it is another matter.
func (r *reconciler) left(name, hash string, now time.Time) time.Duration {
	if f := r.refusals[name]; f != nil && f.hash == hash {
		return f.until.Sub(now)
	}
	return 0
}

// held is for how long an action is put off because somebody else insists on the contrary.
func (r *reconciler) held(a action, hash string, now time.Time) time.Duration {
	c := r.contests[a.name]
	left := c.left(hash, now)
	if left <= 0 || a.kind == report {
		return 0
	}
	if !c.said {
		c.why = cmp.Or(a.why, "somebody deleted it")
		c.said = true
		r.tell(a.name, c.String())
	}
	return left
}

// peace ends the contests of mirrors that need nothing and have stood for long enough.
func (r *reconciler) peace(needed map[string]bool, now time.Time, soon func(time.Duration)) {
	for name, c := range r.contests {
		if !c.said || needed[name] {
			continue
		}
		if left := c.over(now); left > 0 {
			soon(left)
			continue
		}
		*c = contest{hash: c.hash, since: now}
		r.c.Log.Info("pod is shown in the API now", "pod", name)
		r.c.Refused(name, "")
	}
}

// refuse notes that a request for a pod failed, and tells when it goes on to.
func (r *reconciler) refuse(name, hash string, err error) {
	f := r.refusals[name]
	if f == nil {
		f = &refusal{}
		r.refusals[name] = f
	}
	if reason := f.again(hash, err, r.c.Now(), r.pace); reason != "" {
		r.tell(name, reason)
	}
}

func (r *reconciler) tell(name, reason string) {
	r.c.Log.Warn("pod cannot be shown in the API; it runs all the same", "pod", name, "reason", reason)
	r.c.Refused(name, reason)
}

func (r *reconciler) accept(name string) {
	f := r.refusals[name]
	if f != nil && f.said != "" {
		r.c.Log.Info("pod is shown in the API now", "pod", name)
		r.c.Refused(name, "")
	}
	delete(r.refusals, name)
}

// forget drops what is remembered of pods that are not there any more.
func (r *reconciler) forget(list *corev1.PodList) {
	there := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		there[list.Items[i].Namespace+"/"+list.Items[i].Name] = true
	}
	gone := func(name string) bool {
		_, seen := r.have[name]
		return !there[name] && !seen
	}
	maps.DeleteFunc(r.refusals, func(name string, f *refusal) bool {
		if gone(name) && f.said != "" {
			r.c.Refused(name, "") // nobody waits for it any more
		}
		return gone(name)
	})
	maps.DeleteFunc(r.contests, func(name string, c *contest) bool {
		return gone(name) && c.idle(r.c.Now()) && !c.said // a fight over a pod that is not wanted is one too
	})
	maps.DeleteFunc(r.sent, func(name string, _ sentPatch) bool { return gone(name) })
	maps.DeleteFunc(r.settled, func(name string, _ settled) bool { return gone(name) || !there[name] })
}
