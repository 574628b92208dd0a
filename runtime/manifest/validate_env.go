package manifest

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The fields that the environment and the volumes may refer to. Volumes lack what is known only once the sandbox runs.
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	volumeFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}
)

func validateEnv(c *corev1.Container, at *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, e := range c.Env {
		at := at.Child("env").Index(i)
		switch {
		case e.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "a variable needs a name"))
		default:
			errs = append(errs, invalid(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
		}
		from := e.ValueFrom
		if from == nil {
			continue
		}
		at = at.Child("valueFrom")
		if e.Value != "" {
			errs = append(errs, field.Invalid(at, "", "cannot be used with value"))
		}
		n := 0
		for _, set := range []bool{from.FieldRef != nil, from.ResourceFieldRef != nil, from.ConfigMapKeyRef != nil, from.SecretKeyRef != nil, from.FileKeyRef != nil} {
			if set {
				n++
			}
		}
		if n != 1 {
			errs = append(errs, field.Invalid(at, "", fmt.Sprintf("has %d sources; expected one", n)))
		}
		if from.FieldRef != nil {
			errs = append(errs, validateFieldRef(from.FieldRef, at.Child("fieldRef"), envFields)...)
		}
		if from.ResourceFieldRef != nil {
			errs = append(errs, validateResourceFieldRef(from.ResourceFieldRef, at.Child("resourceFieldRef"), false, pod)...)
		}
		if from.FileKeyRef != nil {
			errs = append(errs, validateFileKeyRef(from.FileKeyRef, at.Child("fileKeyRef"), pod)...)
		}
	}
	return errs
}

func validateFieldRef(ref *corev1.ObjectFieldSelector, at *field.Path, allowed []string) field.ErrorList {
	errs := oneOf(at.Child("apiVersion"), ref.APIVersion, "v1")
	path := at.Child("fieldPath")
	if name, rest, subscripted := strings.Cut(ref.FieldPath, "["); subscripted {
		key, ok := strings.CutSuffix(strings.TrimPrefix(rest, "'"), "']")
		if ok && strings.HasPrefix(rest, "'") && (name == "metadata.labels" || name == "metadata.annotations") {
			return append(errs, invalid(path, ref.FieldPath, validation.IsQualifiedName(strings.ToLower(key)))...)
		}
		return append(errs, field.Invalid(path, ref.FieldPath, "only metadata.labels['KEY'] and metadata.annotations['KEY'] take a key"))
	}
	if !slices.Contains(allowed, ref.FieldPath) {
		errs = append(errs, field.NotSupported(path, ref.FieldPath, allowed))
	}
	return errs
}

// divisors are the units of a resource other than cpu, which has 1 and 1m. Kubernetes v1.36.3
// pkg/apis/core/validation/validation.go:2971.
var divisors = strings.Fields("1 1k 1M 1G 1T 1P 1E 1Ki 1Mi 1Gi 1Ti 1Pi 1Ei")

// validateResourceFieldRef also looks for the container, which a kubelet finds missing when it starts the pod.
func validateResourceFieldRef(ref *corev1.ResourceFieldSelector, at *field.Path, named bool, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if named && ref.ContainerName == "" {
		errs = append(errs, field.Required(at.Child("containerName"), "a volume belongs to no container"))
	}
	found := ref.ContainerName == ""
	eachContainer(pod, func(c *corev1.Container, _ *field.Path, _ bool) { found = found || c.Name == ref.ContainerName })
	if !found {
		errs = append(errs, field.NotFound(at.Child("containerName"), ref.ContainerName))
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	_, huge := HugePage(name)
	known := name == "cpu" || name == "memory" || name == "ephemeral-storage" || huge
	if kind != "limits" && kind != "requests" || !known {
		errs = append(errs, field.Invalid(at.Child("resource"), ref.Resource, "expected limits or requests of cpu, memory, ephemeral-storage or hugepages-SIZE"))
	}
	units := divisors
	if name == "cpu" {
		units = []string{"1", "1m"}
	}
	if text := ref.Divisor.String(); !ref.Divisor.IsZero() && !slices.Contains(units, text) {
		errs = append(errs, field.NotSupported(at.Child("divisor"), text, units))
	}
	return errs
}

func validateFileKeyRef(ref *corev1.FileKeySelector, at *field.Path, pod *corev1.Pod) field.ErrorList {
	errs := invalid(at.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))
	if ref.Path == "" {
		errs = append(errs, field.Required(at.Child("path"), "expected the file's path in the volume"))
	}
	errs = append(errs, validateBelow(at.Child("path"), ref.Path)...)
	for _, v := range pod.Spec.Volumes {
		if v.Name == ref.VolumeName {
			if v.EmptyDir == nil {
				errs = append(errs, field.Invalid(at.Child("volumeName"), ref.VolumeName, "must be an emptyDir"))
			}
			return errs
		}
	}
	return append(errs, field.NotFound(at.Child("volumeName"), ref.VolumeName))
}
