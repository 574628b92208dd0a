package manifest

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateVolumes(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
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
		errs = append(errs, validateVolume(&v.VolumeSource, at, pod)...)
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

func validateVolume(v *corev1.VolumeSource, at *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if h := v.HostPath; h != nil {
		path := at.Child("hostPath", "path")
		if h.Path == "" {
			errs = append(errs, field.Required(path, "a hostPath needs a path"))
		} else if !strings.HasPrefix(h.Path, "/") { // the API takes it; it would mean the supervisor's own directory
			errs = append(errs, field.Invalid(path, h.Path, "must be absolute"))
		}
		errs = append(errs, validateNoDotDot(path, h.Path)...)
		errs = append(errs, oneOf(at.Child("hostPath", "type"), *h.Type, corev1.HostPathUnset,
			corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile,
			corev1.HostPathSocket, corev1.HostPathCharDev, corev1.HostPathBlockDev)...)
	}
	if e := v.EmptyDir; e != nil {
		if e.SizeLimit != nil && e.SizeLimit.Sign() < 0 {
			errs = append(errs, field.Invalid(at.Child("emptyDir", "sizeLimit"), e.SizeLimit.String(), "must not be negative"))
		}
		errs = append(errs, validateMedium(e.Medium, at.Child("emptyDir", "medium"), pod)...)
	}
	if i := v.Image; i != nil {
		if i.Reference == "" {
			errs = append(errs, field.Required(at.Child("image", "reference"), "an image volume needs an image"))
		}
		errs = append(errs, oneOf(at.Child("image", "pullPolicy"), i.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	}
	if d := v.DownwardAPI; d != nil {
		errs = append(errs, validateMode(at.Child("downwardAPI", "defaultMode"), d.DefaultMode)...)
		errs = append(errs, validateDownwardItems(d.Items, at.Child("downwardAPI", "items"), map[string]bool{}, pod)...)
	}
	if p := v.Projected; p != nil {
		errs = append(errs, validateMode(at.Child("projected", "defaultMode"), p.DefaultMode)...)
		paths := map[string]bool{}
		for i, s := range p.Sources {
			if s.DownwardAPI != nil {
				errs = append(errs, validateDownwardItems(s.DownwardAPI.Items, at.Child("projected", "sources").Index(i).Child("downwardAPI", "items"), paths, pod)...)
			} else if s == (corev1.VolumeProjection{}) {
				errs = append(errs, field.Required(at.Child("projected", "sources").Index(i), "a projected source needs a type"))
			}
		}
	}
	return errs
}

// validateMedium also wants the page size of huge pages to be known, which a kubelet finds out when it mounts the volume.
func validateMedium(m corev1.StorageMedium, at *field.Path, pod *corev1.Pod) field.ErrorList {
	sizes := HugePageSizes(pod)
	size, named := HugePage(string(m))
	switch {
	case m == corev1.StorageMediumDefault, m == corev1.StorageMediumMemory:
		return nil
	case m == corev1.StorageMediumHugePages && len(sizes) != 1:
		return field.ErrorList{field.Invalid(at, m, fmt.Sprintf("needs containers that request huge pages of one size, found %d sizes: name the size, as in HugePages-2Mi", len(sizes)))}
	case m == corev1.StorageMediumHugePages:
		return nil
	case named && !slices.Contains(sizes, size):
		return field.ErrorList{field.Invalid(at, m, "needs a container that requests huge pages of this size")}
	case named:
		return nil
	}
	return field.ErrorList{field.Invalid(at, m, "expected nothing, Memory, HugePages or HugePages-SIZE")}
}

// HugePageSizes returns the sizes, in bytes, of the huge pages that a pod's containers request, sorted.
func HugePageSizes(pod *corev1.Pod) []int64 {
	var sizes []int64
	lists := []corev1.ResourceList{Peak(pod, requestsOf)}
	if pod.Spec.Resources != nil {
		lists = append(lists, pod.Spec.Resources.Requests)
	}
	for _, list := range lists {
		for name := range list {
			if size, ok := HugePage(string(name)); ok {
				sizes = append(sizes, size)
			}
		}
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}

// validateDownwardItems checks the items of one volume; paths are those that its other sources have taken.
func validateDownwardItems(items []corev1.DownwardAPIVolumeFile, at *field.Path, paths map[string]bool, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, item := range items {
		at := at.Index(i)
		switch clean := path.Clean(item.Path); {
		case item.Path == "":
			errs = append(errs, field.Required(at.Child("path"), "an item needs a path"))
		case clean == ".":
			errs = append(errs, field.Invalid(at.Child("path"), item.Path, "names no file"))
		case strings.HasPrefix(clean, "..") && !strings.HasPrefix(clean, "../") && clean != "..": // an atomic writer's own names
			errs = append(errs, field.Invalid(at.Child("path"), item.Path, "must not begin with '..'"))
		case paths[clean]:
			errs = append(errs, field.Duplicate(at.Child("path"), item.Path))
		default:
			paths[clean] = true
		}
		errs = append(errs, validateBelow(at.Child("path"), item.Path)...)
		errs = append(errs, validateMode(at.Child("mode"), item.Mode)...)
		switch {
		case (item.FieldRef == nil) == (item.ResourceFieldRef == nil):
			errs = append(errs, field.Required(at, "an item needs one of fieldRef and resourceFieldRef"))
		case item.FieldRef != nil:
			errs = append(errs, validateFieldRef(item.FieldRef, at.Child("fieldRef"), volumeFields)...)
		default:
			errs = append(errs, validateResourceFieldRef(item.ResourceFieldRef, at.Child("resourceFieldRef"), true, pod)...)
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
			if *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled && m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone {
				errs = append(errs, field.Forbidden(at.Child("recursiveReadOnly"), "cannot be used with a mountPropagation other than None"))
			}
		}
	}
	return errs
}

func privileged(c *corev1.Container) bool {
	return c.SecurityContext != nil && c.SecurityContext.Privileged != nil && *c.SecurityContext.Privileged
}
