package manifest

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// forbiddenReferences finds what a static pod may not refer to, because only the API server has it: the kubelet
// refuses the same since 1.34 (gate PreventStaticPodAPIReferences, HasAPIObjectReference in pkg/api/pod/util.go of
// v1.36.3). It stops at the first; we name them all.
func forbiddenReferences(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	forbid := func(at *field.Path, what string) {
		errs = append(errs, field.Forbidden(at, "a static pod may not refer to "+what))
	}
	spec := field.NewPath("spec")
	if pod.Spec.ServiceAccountName != "" {
		at := "serviceAccountName"
		if pod.Spec.DeprecatedServiceAccount == pod.Spec.ServiceAccountName {
			at = "serviceAccount"
		}
		forbid(spec.Child(at), "a ServiceAccount")
	}
	for i := range pod.Spec.ImagePullSecrets {
		forbid(spec.Child("imagePullSecrets").Index(i), "a Secret; put registry credentials into the container runtime's configuration")
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		forbid(spec.Child("resourceClaims"), "a ResourceClaim")
	}
	eachContainer(pod, func(c *corev1.Container, at *field.Path, _ bool) {
		for i, e := range c.Env {
			from := at.Child("env").Index(i).Child("valueFrom")
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				forbid(from.Child("secretKeyRef"), "a Secret")
			}
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				forbid(from.Child("configMapKeyRef"), "a ConfigMap")
			}
		}
		for i, e := range c.EnvFrom {
			if e.SecretRef != nil {
				forbid(at.Child("envFrom").Index(i).Child("secretRef"), "a Secret")
			}
			if e.ConfigMapRef != nil {
				forbid(at.Child("envFrom").Index(i).Child("configMapRef"), "a ConfigMap")
			}
		}
	})
	for i, v := range pod.Spec.Volumes {
		forbiddenVolume(spec.Child("volumes").Index(i), &v.VolumeSource, forbid)
	}
	return errs
}

func forbiddenVolume(at *field.Path, v *corev1.VolumeSource, forbid func(*field.Path, string)) {
	switch {
	case v.ConfigMap != nil:
		forbid(at.Child("configMap"), "a ConfigMap")
	case v.Secret != nil:
		forbid(at.Child("secret"), "a Secret")
	case v.CSI != nil:
		forbid(at.Child("csi"), "a CSI driver")
	case v.Glusterfs != nil:
		forbid(at.Child("glusterfs"), "Endpoints")
	case v.PersistentVolumeClaim != nil:
		forbid(at.Child("persistentVolumeClaim"), "a PersistentVolumeClaim")
	case v.Ephemeral != nil:
		forbid(at.Child("ephemeral"), "a PersistentVolumeClaim")
	case v.AzureFile != nil:
		forbid(at.Child("azureFile"), "a Secret")
	case v.CephFS != nil && v.CephFS.SecretRef != nil:
		forbid(at.Child("cephfs", "secretRef"), "a Secret")
	case v.Cinder != nil && v.Cinder.SecretRef != nil:
		forbid(at.Child("cinder", "secretRef"), "a Secret")
	case v.FlexVolume != nil && v.FlexVolume.SecretRef != nil:
		forbid(at.Child("flexVolume", "secretRef"), "a Secret")
	case v.RBD != nil && v.RBD.SecretRef != nil:
		forbid(at.Child("rbd", "secretRef"), "a Secret")
	case v.ScaleIO != nil && v.ScaleIO.SecretRef != nil:
		forbid(at.Child("scaleIO", "secretRef"), "a Secret")
	case v.ISCSI != nil && v.ISCSI.SecretRef != nil:
		forbid(at.Child("iscsi", "secretRef"), "a Secret")
	case v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		forbid(at.Child("storageos", "secretRef"), "a Secret")
	case v.Projected != nil:
		for i, s := range v.Projected.Sources {
			at := at.Child("projected", "sources").Index(i)
			switch {
			case s.ConfigMap != nil:
				forbid(at.Child("configMap"), "a ConfigMap")
			case s.Secret != nil:
				forbid(at.Child("secret"), "a Secret")
			case s.ServiceAccountToken != nil:
				forbid(at.Child("serviceAccountToken"), "a ServiceAccount")
			case s.ClusterTrustBundle != nil:
				forbid(at.Child("clusterTrustBundle"), "a ClusterTrustBundle")
			case s.PodCertificate != nil:
				forbid(at.Child("podCertificate"), "a PodCertificateRequest")
			}
		}
	}
}

// eachContainer calls f for the init containers and then the containers, in their order.
func eachContainer(pod *corev1.Pod, f func(c *corev1.Container, at *field.Path, init bool)) {
	for i := range pod.Spec.InitContainers {
		f(&pod.Spec.InitContainers[i], field.NewPath("spec", "initContainers").Index(i), true)
	}
	for i := range pod.Spec.Containers {
		f(&pod.Spec.Containers[i], field.NewPath("spec", "containers").Index(i), false)
	}
}
