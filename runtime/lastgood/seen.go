package lastgood

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// lacking returns the images that a container needs and whose last pull failed, some of them twice.
func lacking(in Input) []string {
	var refs []string
	for _, spec := range specs(in.Want.Pod) {
		im := in.Seen.Images[spec.Image]
		if im.Err != "" && needs(spec, im) {
			refs = append(refs, spec.Image)
		}
	}
	return refs
}

// needs tells whether a container cannot start before its image has been pulled.
func needs(spec corev1.Container, im lifecycle.Image) bool {
	return !im.Present || spec.ImagePullPolicy == corev1.PullAlways
}

// newest returns, by name, the newest container of the version: in a sandbox of its own. A container whose sandbox is
// gone or tells no version is nobody's.
func newest(in Input) map[string]lifecycle.Container {
	own := map[string]bool{}
	for _, s := range in.Seen.Sandboxes {
		own[s.ID] = s.UID == in.Want.UID && s.SpecHash == in.Want.SpecHash
	}
	found := map[string]lifecycle.Container{}
	for _, c := range in.Seen.Containers {
		last, ok := found[c.Name]
		if own[c.SandboxID] && (!ok || c.Attempt > last.Attempt || c.Attempt == last.Attempt && c.CreatedAt.After(last.CreatedAt)) {
			found[c.Name] = c
		}
	}
	return found
}

func specs(pod *corev1.Pod) []corev1.Container {
	return slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers)
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

// hostFaults are what a runtime says when the host, not the manifest, is at fault; another version would fare no better.
// They are the texts of ENOSPC, EDQUOT, EMFILE and ENFILE.
func hostFaults() []string {
	return []string{"no space left on device", "disk quota exceeded", "too many open files"}
}

func (j *judge) hostFault() bool {
	isOne := func(text string) bool {
		return slices.ContainsFunc(hostFaults(), func(f string) bool { return strings.Contains(text, f) })
	}
	if j.in.Failure != nil && isOne(j.in.Failure.Text) {
		return true
	}
	return slices.ContainsFunc(lacking(j.in), func(ref string) bool { return isOne(j.in.Seen.Images[ref].Err) })
}

// isEnd tells whether an ended container has done what it should.
func isEnd(pod *corev1.Pod, c lifecycle.Container) bool {
	if c.ExitCode != 0 {
		return false
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == c.Name {
			return !isSidecar(&pod.Spec.InitContainers[i])
		}
	}
	for _, spec := range pod.Spec.Containers {
		if spec.Name == c.Name && spec.RestartPolicy != nil {
			return *spec.RestartPolicy != corev1.ContainerRestartPolicyAlways
		}
	}
	return pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure || pod.Spec.RestartPolicy == corev1.RestartPolicyNever
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
