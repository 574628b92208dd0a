package manifest

import (
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateVolumes(volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range volumes {
		v := &volumes[i]
		at := field.NewPath("spec", "volumes").Index(i)
		if v.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "a volume needs a name"))
		} else {
			errs = append(errs, invalid(at.Child("name"), v.Name, validation.IsDNS1123Label(v.Name))...)
		}
		if seen[v.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		seen[v.Name] = true
		if n := sources(&v.VolumeSource); n > 1 {
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("has %d types; a volume has one", n)))
		}
		errs = append(errs, validateVolume(&v.VolumeSource, at)...)
	}
	return errs
}

func sources(v *corev1.VolumeSource) int {
	n := 0
	for _, f := range reflect.ValueOf(v).Elem().Fields() {
		if f.Kind() == reflect.Pointer && !f.IsNil() {
			n++
		}
	}
	return n
}

func validateVolume(v *corev1.VolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if h := v.HostPath; h != nil {
		path := at.Child("hostPath", "path")
		if h.Path == "" {
			errs = append(errs, field.Required(path, "a hostPath needs a path"))
		}
		errs = append(errs, validateNoDotDot(path, h.Path)...)
		errs = append(errs, oneOf(at.Child("hostPath", "type"), *h.Type, corev1.HostPathUnset,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile,
			corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
	}
	if e := v.EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
		errs = append(errs, field.Invalid(at.Child("emptyDir", "sizeLimit"), e.SizeLimit.String(), "must not be negative"))
	}
	if d := v.DownwardAPI; d != nil {
		errs = append(errs, validateMode(at.Child("downwardAPI", "defaultMode"), d.DefaultMode)...)
		errs = append(errs, validateDownwardItems(d.Items, at.Child("downwardAPI", "items"))...)
	}
	if p := v.Projected; p != nil {
		errs = append(errs, validateMode(at.Child("projected", "defaultMode"), p.DefaultMode)...)
		for i, s := range p.Sources {
			if s.DownwardAPI != nil {
				errs = append(errs, validateDownwardItems(s.DownwardAPI.Items, at.Child("projected", "sources").Index(i).Child("downwardAPI", "items"))...)
			} else if s == (corev1.VolumeProjection{}) {
				errs = append(errs, field.Required(at.Child("projected", "sources").Index(i), "a projected source needs a type"))
			}
		}
	}
	return errs
}

func validateDownwardItems(items []corev1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := at.Index(i)
		if item.Path == "" {
			errs = append(errs, field.Required(at.Child("path"), "an item needs a path"))
		}
		errs = append(errs, validateBelow(at.Child("path"), item.Path)...)
		errs = append(errs, validateMode(at.Child("mode"), item.Mode)...)
		switch {
		case (item.FieldRef == nil) == (item.ResourceFieldRef == nil):
			errs = append(errs, field.Required(at, "an item needs one of fieldRef and resourceFieldRef"))
		case item.FieldRef != nil:
			errs = append(errs, validateFieldRef(item.FieldRef, at.Child("fieldRef"), volumeFields)...)
		default:
			errs = append(errs, validateResourceFieldRef(item.ResourceFieldRef, at.Child("resourceFieldRef"), true)...)
		}
	}
	return errs
}

func validateMode(at *field.Path, mode *int32) field.ErrorList {
	if mode == nil || *mode >= 0 && *mode <= 0o777 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, *mode, "must be between 0 and 0777 octal (511 decimal)")}
}

func validateMounts(c *corev1.Container, at *field.Path, volumes []corev1.Volume) field.ErrorList {
	var errs field.ErrorList
	known := map[string]bool{}
	for _, v := range volumes {
		known[v.Name] = true
	}
	paths := map[string]bool{}
	for i, m := range c.VolumeMounts {
		at := at.Child("volumeMounts").Index(i)
		if !known[m.Name] {
			errs = append(errs, field.NotFound(at.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			errs = append(errs, field.Required(at.Child("mountPath"), "a mount needs a path"))
		}
		if paths[m.MountPath] {
			errs = append(errs, field.Duplicate(at.Child("mountPath"), m.MountPath))
		}
		paths[m.MountPath] = true
		errs = append(errs, validateBelow(at.Child("subPath"), m.SubPath)...)
		errs = append(errs, validateBelow(at.Child("subPathExpr"), m.SubPathExpr)...)
		if m.SubPath != "" && m.SubPathExpr != "" {
			errs = append(errs, field.Invalid(at.Child("subPathExpr"), m.SubPathExpr, "cannot be used with subPath"))
		}
		if m.MountPropagation != nil {
			errs = append(errs, oneOf(at.Child("mountPropagation"), *m.MountPropagation,
				corev1.MountPropagationNone, corev1.MountPropagationHostToContainer, corev1.MountPropagationBidirectional)...)
			if *m.MountPropagation == corev1.MountPropagationBidirectional && !privileged(c) {
				errs = append(errs, field.Forbidden(at.Child("mountPropagation"), "Bidirectional needs a privileged container"))
			}
		}
		if m.RecursiveReadOnly != nil {
			errs = append(errs, oneOf(at.Child("recursiveReadOnly"), *m.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled,
				corev1.RecursiveReadOnlyIfPossible, corev1.RecursiveReadOnlyEnabled)...)
			if *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && !m.ReadOnly {
				errs = append(errs, field.Forbidden(at.Child("recursiveReadOnly"), "needs readOnly: true"))
			}
		}
	}
	return errs
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}
