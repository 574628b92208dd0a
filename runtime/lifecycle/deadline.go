package lifecycle

import (
	"fmt"
	"time"
)

// expired tells whether the pod's activeDeadlineSeconds are over, and asks for a look when they will be. Once over they
// stay so: active never goes back.
func (r *round) expired() (why string, over bool) {
	seconds := r.want.Pod.Spec.ActiveDeadlineSeconds
	if seconds == nil {
		return "", false
	}
	limit := time.Duration(*seconds) * time.Second
	end := r.ended()
	active, begun := r.active(end)
	switch {
	case begun && active >= limit:
		return fmt.Sprintf("active for longer than activeDeadlineSeconds (%d s)", *seconds), true
	case begun && end == nil:
		r.wakeAt(r.now.Add(limit - active))
	}
	return "", false
}

// active returns how long the pod has been active: since its first sandbox was made, until it ended. From the first
// look on it is summed up from look to look, so that a wall clock that is set neither ends a pod nor keeps it alive: the
// times of a caller's looks carry a monotonic clock reading. A supervisor that starts after the clock was set forward
// cannot know, and ends the pod as a kubelet would.
func (r *round) active(end *ending) (active time.Duration, begun bool) {
	switch first := r.firstSandbox(); {
	case !r.mem.ActiveAt.IsZero():
		if end == nil {
			r.mem.Active += max(0, r.now.Sub(r.mem.ActiveAt))
		}
	case first == nil:
		return 0, false
	case end != nil && !end.at.IsZero():
		r.mem.Active = max(0, end.at.Sub(first.CreatedAt))
	default:
		r.mem.Active = max(0, r.now.Sub(first.CreatedAt))
	}
	r.mem.ActiveAt = r.now
	return r.mem.Active, true
}

// firstSandbox returns the first sandbox that is known of the wanted pod's life; nil when there is none. By attempt: the
// clock may have been set between two of them.
func (r *round) firstSandbox() *Sandbox {
	for _, sb := range r.sandboxes {
		if r.wanted(sb) {
			return sb
		}
	}
	return nil
}

// isEpoch tells whether a sandbox must be kept for its age: a deadline counts from the first one's making, also for the
// next supervisor.
func (r *round) isEpoch(sb *Sandbox) bool {
	return r.want != nil && r.want.Pod.Spec.ActiveDeadlineSeconds != nil && sb == r.firstSandbox()
}

// expire ends a pod whose deadline is over.
func (r *round) expire(why string) (State, string) {
	r.reason = ReasonDeadlineExceeded
	if r.home != nil {
		r.own()
		r.finish(why)
	}
	return Completed, why
}
