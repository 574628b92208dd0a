package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// need is one image that a container cannot start without.
type need struct {
	ref    string
	policy corev1.PullPolicy
	key    string // in Memory.Asked
}

// needs returns the container's own image and those of the image volumes that it mounts.
func needs(pod *corev1.Pod, spec *corev1.Container) []need {
	all := []need{{spec.Image, spec.ImagePullPolicy, spec.Name}}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Image == nil || !slices.ContainsFunc(spec.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		all = append(all, need{v.Image.Reference, v.Image.PullPolicy, spec.Name + "/" + v.Name})
	}
	return all
}

// allNeeds returns the needs of every container, in the order they start.
func allNeeds(pod *corev1.Pod) []need {
	var all []need
	for _, specs := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range specs {
			all = append(all, needs(pod, &specs[i])...)
		}
	}
	return all
}

// Images returns the references of the images that the pod's containers need, those of image volumes among them, each
// once: what Observed.Images may speak of. An image volume that no container mounts is not needed.
func Images(pod *corev1.Pod) []string {
	var refs []string
	for _, n := range allNeeds(pod) {
		if !slices.Contains(refs, n.ref) {
			refs = append(refs, n.ref)
		}
	}
	return refs
}

// prefetch asks for the images of the wanted pod that are not known to be there.
func (r *round) prefetch() []Action {
	var actions []Action
	for _, specs := range [][]corev1.Container{r.want.Pod.Spec.InitContainers, r.want.Pod.Spec.Containers} {
		for i := range specs {
			_, asks := r.images(&specs[i])
			for _, a := range asks {
				actions = appendImage(actions, a)
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

// images returns what keeps the container's images from being used: "" when nothing does. The actions, if any, ask for
// those that are missing.
func (r *round) images(spec *corev1.Container) (missing string, asks []Action) {
	var notes []string
	for _, n := range needs(r.want.Pod, spec) {
		note, ask := r.image(n, r.nextAttempt(spec.Name))
		if ask != nil {
			asks = append(asks, *ask)
		}
		if note != "" && !slices.Contains(notes, note) {
			notes = append(notes, note)
		}
	}
	return strings.Join(notes, ", "), asks
}

// image is images for one of them. With pull policy Always it is asked for anew before each start.
func (r *round) image(n need, attempt uint32) (missing string, ask *Action) {
	ensure := func(why string) *Action {
		return &Action{Kind: EnsureImage, UID: r.want.UID, Image: n.ref, Pull: pullPolicy(r.want.Pod, n.ref), Why: why}
	}
	im, known := r.seen.Images[n.ref]
	always := n.policy == corev1.PullAlways
	asked, everAsked := r.mem.Asked[n.key]
	if note := r.asking[n.ref]; note != "" { // on behalf of another container: one try, one failure
		if always {
			r.mem.Asked[n.key] = attempt
		}
		return note, nil
	}
	defer func() {
		if ask != nil {
			r.asking[n.ref] = missing
		}
	}()
	switch {
	case known && im.Pulling:
		return "pulling " + n.ref, nil
	case !known || always && (!everAsked || asked != attempt):
		why := "not asked for yet"
		if known {
			why = "imagePullPolicy is Always"
		}
		if always {
			r.mem.Asked[n.key] = attempt
		}
		return "asking for " + n.ref, ensure(why)
	case !im.Present || always && im.Err != "":
		reason := im.Err
		if reason == "" {
			reason = "not in the runtime's store"
		}
		e, due := r.pullDue(n.ref, im)
		if r.now.Before(due) {
			r.wakeAt(due)
			return fmt.Sprintf("image %s: %s: back-off %s", n.ref, reason, e.Delay), nil
		}
		r.mem.Pull[n.ref] = BackOffEntry{Delay: e.Delay} // what is seen next is another failure, whatever its time
		return "asking again for " + n.ref, ensure(fmt.Sprintf("back-off %s over", e.Delay))
	}
	delete(r.mem.Pull, n.ref)
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

// pullPolicy is the strictest policy of the containers and image volumes that use the image.
func pullPolicy(pod *corev1.Pod, ref string) corev1.PullPolicy {
	policy := corev1.PullNever
	for _, n := range allNeeds(pod) {
		if n.ref != ref {
			continue
		}
		switch n.policy {
		case corev1.PullAlways:
			return corev1.PullAlways
		case corev1.PullNever:
		default:
			policy = corev1.PullIfNotPresent
		}
	}
	return policy
}
