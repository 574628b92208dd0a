package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateNodeSelection is what decides whether the pod may run on this node at all.
func validateNodeSelection(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		at := at.Child("nodeSelector").Key(key)
		errs = append(errs, invalid(at, key, validation.IsQualifiedName(key))...)
		errs = append(errs, invalid(at, s.NodeSelector[key], validation.IsValidLabelValue(s.NodeSelector[key]))...)
	}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil || s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return errs
	}
	at = at.Child("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
	terms := s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) == 0 {
		errs = append(errs, field.Required(at, "a required affinity has at least one term"))
	}
	for i, term := range terms {
		for j, r := range term.MatchExpressions {
			errs = append(errs, validateNodeExpression(r, at.Index(i).Child("matchExpressions").Index(j))...)
		}
		for j, r := range term.MatchFields {
			at := at.Index(i).Child("matchFields").Index(j)
			errs = append(errs, oneOf(at.Child("key"), r.Key, metav1.ObjectNameField)...)
			errs = append(errs, oneOf(at.Child("operator"), r.Operator, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn)...)
			if len(r.Values) != 1 {
				errs = append(errs, field.Required(at.Child("values"), "a field is compared with one value"))
			}
		}
	}
	return errs
}

func validateNodeExpression(r corev1.NodeSelectorRequirement, at *field.Path) field.ErrorList {
	errs := invalid(at.Child("key"), r.Key, validation.IsQualifiedName(r.Key))
	values := at.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(values, fmt.Sprintf("%s needs at least one value", r.Operator)))
		}
		for i, v := range r.Values {
			errs = append(errs, invalid(values.Index(i), v, validation.IsValidLabelValue(v))...)
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(values, fmt.Sprintf("%s takes no value", r.Operator)))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(values, fmt.Sprintf("%s needs one value", r.Operator)))
		} else if _, err := strconv.ParseInt(r.Values[0], 10, 64); err != nil { // the API lets it pass; it then matches no node
			errs = append(errs, field.Invalid(values.Index(0), r.Values[0], fmt.Sprintf("%s compares whole numbers", r.Operator)))
		}
	default:
		errs = append(errs, oneOf(at.Child("operator"), r.Operator, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn,
			corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist, corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt)...)
	}
	return errs
}
