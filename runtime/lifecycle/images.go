package lifecycle

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// prefetch asks for the images of the wanted pod that are not known to be there.
func (r *round) prefetch() []Action {
	var actions []Action
	for _, specs := range [][]corev1.Container{r.want.Pod.Spec.InitContainers, r.want.Pod.Spec.Containers} {
		for i := range specs {
			if _, action := r.image(&specs[i]); action != nil {
				actions = appendImage(actions, *action)
			}
		}
	}
	return actions
}

// appendImage adds an EnsureImage unless the image is asked for already.
func appendImage(actions []Action, a Action) []Action {
	if slices.ContainsFunc(actions, func(b Action) bool { return b.Kind == EnsureImage && b.Image == a.Image }) {
		return actions
	}
	return append(actions, a)
}

// image returns what keeps the container's image from being used: "" when nothing does. The action, if any, asks for
// it. With imagePullPolicy Always it is asked for anew before each start.
func (r *round) image(spec *corev1.Container) (missing string, ask *Action) {
	ref := spec.Image
	ensure := func(why string) *Action {
		return &Action{Kind: EnsureImage, UID: r.want.UID, Image: ref, Pull: pullPolicy(r.want.Pod, ref), Why: why}
	}
	im, known := r.seen.Images[ref]
	always := spec.ImagePullPolicy == corev1.PullAlways
	attempt := r.nextAttempt(spec.Name)
	asked, everAsked := r.mem.Asked[spec.Name]
	switch {
	case known && im.Pulling:
		return "pulling " + ref, nil
	case !known || always && (!everAsked || asked != attempt):
		why := "not asked for yet"
		if known {
			why = "imagePullPolicy is Always"
		}
		if always {
			r.mem.Asked[spec.Name] = attempt
		}
		return "asking for " + ref, ensure(why)
	case !im.Present || always && im.Err != "":
		reason := im.Err
		if reason == "" {
			reason = "not in the runtime's store"
		}
		e, due := r.pullDue(ref, im)
		if r.now.Before(due) {
			r.wakeAt(due)
			return fmt.Sprintf("image %s: %s: back-off %s", ref, reason, e.Delay), nil
		}
		r.mem.Pull[ref] = BackOffEntry{Delay: e.Delay} // what is seen next is another failure, whatever its time
		return "asking again for " + ref, ensure(fmt.Sprintf("back-off %s over", e.Delay))
	}
	delete(r.mem.Pull, ref)
	return "", nil
}

// pullDue returns the back-off in force after a failed pull, and when it is over: 10, 20, … 300 s, as the kubelet's.
func (r *round) pullDue(ref string, im Image) (BackOffEntry, time.Time) {
	e := r.mem.Pull[ref]
	if cause := im.FailedAt.Format(time.RFC3339Nano); e.Cause != cause {
		e = BackOffEntry{Delay: min(max(2*e.Delay, firstBackOff), maxBackOff), Since: im.FailedAt, Cause: cause}
		if e.Since.IsZero() {
			e.Since = r.now
		}
	}
	return r.mark(r.mem.Pull, ref, e)
}

// pullPolicy is the strictest policy of the containers that use the image.
func pullPolicy(pod *corev1.Pod, ref string) corev1.PullPolicy {
	policy := corev1.PullNever
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			if specs[i].Image != ref {
				continue
			}
			switch specs[i].ImagePullPolicy {
			case corev1.PullAlways:
				return corev1.PullAlways
			case corev1.PullNever:
			default:
				policy = corev1.PullIfNotPresent
			}
		}
	}
	return policy
}
