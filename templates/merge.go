package templates

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mergeInto adds what the user and the host bring to the template's only container.
func (e Extra) mergeInto(pod *corev1.Pod) {
	c := &pod.Spec.Containers[0]
	var volumes []corev1.Volume
	var mounts []corev1.VolumeMount
	for _, v := range e.Volumes {
		volumes, mounts = append(volumes, v.volume()), append(mounts, v.mount())
	}
	c.Command = append(c.Command[:1:1], mergeArgs(c.Command[1:], e.Args)...)
	c.Env = mergeByName(c.Env, e.Env, func(v corev1.EnvVar) string { return v.Name })
	c.VolumeMounts = mergeByName(c.VolumeMounts, mounts, func(m corev1.VolumeMount) string { return m.Name })
	pod.Spec.Volumes = mergeByName(pod.Spec.Volumes, volumes, func(v corev1.Volume) string { return v.Name })
}

// mergeArgs returns base sorted by name, without the flags that extra names, followed by extra as it is: one override
// drops every base instance of its name, and repeats are kept.
func mergeArgs(base []string, extra Args) []string {
	merged := slices.DeleteFunc(slices.Clone(base), func(flag string) bool { return extra.Has(flagName(flag)) })
	slices.SortStableFunc(merged, func(a, b string) int { return cmp.Compare(flagName(a), flagName(b)) })
	for _, arg := range extra {
		merged = append(merged, "--"+arg.Name+"="+arg.Value)
	}
	return merged
}

// flagName returns "a" for "--a=b".
func flagName(flag string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	return name
}

// mergeByName returns the items sorted by name, the last one of each. Without extra items base stays as it is.
func mergeByName[T any](base, extra []T, name func(T) string) []T {
	if len(extra) == 0 {
		return base
	}
	merged := slices.Clone(base)
	for _, item := range extra {
		same := func(t T) bool { return name(t) == name(item) }
		if i := slices.IndexFunc(merged, same); i >= 0 {
			merged[i] = item
		} else {
			merged = append(merged, item)
		}
	}
	slices.SortFunc(merged, func(a, b T) int { return cmp.Compare(name(a), name(b)) })
	return merged
}

func (v Volume) volume() corev1.Volume {
	return corev1.Volume{Name: v.Name, VolumeSource: corev1.VolumeSource{
		HostPath: &corev1.HostPathVolumeSource{Path: v.HostPath, Type: &v.Type},
	}}
}

func (v Volume) mount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: v.Name, MountPath: v.MountPath, ReadOnly: v.ReadOnly}
}
