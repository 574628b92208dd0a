package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateResources follows validateResourceRequirements of Kubernetes v1.36.3, pkg/apis/core/validation. badName says
// why a resource cannot be set here; "" when it can.
func validateResources(r *corev1.ResourceRequirements, at *field.Path, badName func(corev1.ResourceName) string) field.ErrorList {
	var errs field.ErrorList
	huge, other := false, false
	for _, kind := range []string{"limits", "requests"} {
		list := r.Limits
		if kind == "requests" {
			list = r.Requests
		}
		for _, name := range slices.Sorted(maps.Keys(list)) {
			at, q := at.Child(kind).Key(string(name)), list[name]
			if why := badName(name); why != "" {
				errs = append(errs, field.Invalid(at, string(name), why))
			}
			errs = append(errs, validateQuantity(at, name, q)...)
			huge = huge || strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
			other = other || name == corev1.ResourceCPU || name == corev1.ResourceMemory
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		request, at := r.Requests[name], at.Child("requests").Key(string(name))
		limit, limited := r.Limits[name]
		switch {
		case limited && overcommits(name) && request.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(at, request.String(), fmt.Sprintf("must not exceed the limit %s", limit.String())))
		case limited && !overcommits(name) && request.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(at, request.String(), fmt.Sprintf("must be equal to the limit %s", limit.String())))
		case !limited && !overcommits(name):
			errs = append(errs, field.Required(at, "needs the same limit: it cannot be promised twice"))
		}
	}
	if huge && !other {
		errs = append(errs, field.Forbidden(at, "huge pages need cpu or memory beside them"))
	}
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(at.Child("claims"), "a static pod may not refer to a ResourceClaim"))
	}
	return errs
}

// overcommits tells whether more of a resource may be promised than there is.
func overcommits(name corev1.ResourceName) bool {
	return !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) && !strings.Contains(string(name), "/")
}

func validateQuantity(at *field.Path, name corev1.ResourceName, q resource.Quantity) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(at, q.String(), "must not be negative")}
	}
	if page, huge := HugePage(string(name)); huge && q.Value()%page != 0 {
		return field.ErrorList{field.Invalid(at, q.String(), fmt.Sprintf("must be a multiple of the page size, %d bytes", page))}
	}
	if strings.Contains(string(name), "/") && q.MilliValue()%1000 != 0 {
		return field.ErrorList{field.Invalid(at, q.String(), "must be a whole number")}
	}
	return nil
}

func badContainerResource(name corev1.ResourceName) string {
	text := string(name)
	_, huge := HugePage(text)
	switch {
	case huge, name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage:
		return ""
	case !strings.Contains(text, "/"):
		return "expected cpu, memory, ephemeral-storage, hugepages-SIZE or DOMAIN/NAME"
	}
	if why := validation.IsQualifiedName(text); len(why) > 0 {
		return why[0]
	}
	return ""
}

func badPodResource(name corev1.ResourceName) string {
	if _, huge := HugePage(string(name)); huge || name == corev1.ResourceCPU || name == corev1.ResourceMemory {
		return ""
	}
	return "expected cpu, memory or hugepages-SIZE: others can only be set on a container"
}

// validatePodResources holds the resources of the whole pod against those of its containers: validatePodResourceConsistency
// of Kubernetes v1.36.3, pkg/apis/core/validation.
func validatePodResources(pod *corev1.Pod, at *field.Path) field.ErrorList {
	r := pod.Spec.Resources
	if r == nil {
		return nil
	}
	errs := validateResources(r, at, badPodResource)
	hugeLimits := Peak(pod, limitsOf)
	maps.DeleteFunc(hugeLimits, func(name corev1.ResourceName, _ resource.Quantity) bool {
		return !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
	})
	for kind, both := range map[string][2]corev1.ResourceList{"requests": {r.Requests, Peak(pod, requestsOf)}, "limits": {r.Limits, hugeLimits}} {
		for name, whole := range both[0] {
			if parts, ok := both[1][name]; ok && parts.Cmp(whole) > 0 {
				errs = append(errs, field.Invalid(at.Child(kind).Key(string(name)), whole.String(), fmt.Sprintf("is less than its containers have together, %s", parts.String())))
			}
		}
	}
	for i := range pod.Spec.Containers {
		for name, limit := range pod.Spec.Containers[i].Resources.Limits {
			if whole, ok := r.Limits[name]; ok && limit.Cmp(whole) > 0 {
				at := field.NewPath("spec", "containers").Index(i).Child("resources", "limits").Key(string(name))
				errs = append(errs, field.Invalid(at, limit.String(), fmt.Sprintf("must not exceed the pod's, %s", whole.String())))
			}
		}
	}
	return errs
}

func validateOverhead(list corev1.ResourceList, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if why := badContainerResource(name); why != "" {
			errs = append(errs, field.Invalid(at.Key(string(name)), string(name), why))
		}
		errs = append(errs, validateQuantity(at.Key(string(name)), name, list[name])...)
	}
	return errs
}
