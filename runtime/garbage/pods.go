package garbage

import corev1 "k8s.io/api/core/v1"

// ImagesOf returns the images that the pods name, for containers and as volumes.
func ImagesOf(pods []corev1.Pod) []string {
	var out []string
	for i := range pods {
		spec := &pods[i].Spec
		for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for _, c := range containers {
				out = append(out, c.Image)
			}
		}
		for _, v := range spec.Volumes {
			if v.Image != nil {
				out = append(out, v.Image.Reference)
			}
		}
	}
	return out
}
