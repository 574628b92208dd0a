package manifest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validatePodSecurity(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	sc := s.SecurityContext
	errs := validateID(at.Child("runAsUser"), sc.RunAsUser)
	errs = append(errs, validateID(at.Child("runAsGroup"), sc.RunAsGroup)...)
	errs = append(errs, validateID(at.Child("fsGroup"), sc.FSGroup)...)
	for i := range sc.SupplementalGroups {
		errs = append(errs, validateID(at.Child("supplementalGroups").Index(i), &sc.SupplementalGroups[i])...)
	}
	if sc.SupplementalGroupsPolicy != nil {
		errs = append(errs, oneOf(at.Child("supplementalGroupsPolicy"), *sc.SupplementalGroupsPolicy,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if sc.FSGroupChangePolicy != nil {
		errs = append(errs, oneOf(at.Child("fsGroupChangePolicy"), *sc.FSGroupChangePolicy, corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)...)
	}
	if sc.SELinuxChangePolicy != nil {
		errs = append(errs, oneOf(at.Child("seLinuxChangePolicy"), *sc.SELinuxChangePolicy, corev1.SELinuxChangePolicyRecursive, corev1.SELinuxChangePolicyMountOption)...)
	}
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	errs = append(errs, validateAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
	return append(errs, validateSysctls(s, at.Child("sysctls"))...)
}

// sysctlName is what the API takes: Kubernetes v1.36.3 pkg/apis/core/validation/validation.go:5445.
var sysctlName = regexp.MustCompile(`^[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*$`)

func validateSysctls(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, ctl := range s.SecurityContext.Sysctls {
		name := strings.ReplaceAll(ctl.Name, "/", ".")
		at := at.Index(i).Child("name")
		if seen[name] {
			errs = append(errs, field.Duplicate(at, ctl.Name))
		}
		seen[name] = true
		switch {
		case name == "":
			errs = append(errs, field.Required(at, "a sysctl needs a name"))
		case len(name) > 253 || !sysctlName.MatchString(ctl.Name):
			errs = append(errs, field.Invalid(at, ctl.Name, "is not the name of a sysctl, such as net.ipv4.tcp_syncookies"))
		case s.HostNetwork && strings.HasPrefix(name, "net."):
			errs = append(errs, field.Invalid(at, ctl.Name, "cannot be set with hostNetwork: it would change the host's"))
		case s.HostIPC && (strings.HasPrefix(name, "fs.mqueue.") || isIPCSysctl(name)):
			errs = append(errs, field.Invalid(at, ctl.Name, "cannot be set with hostIPC: it would change the host's"))
		}
	}
	return errs
}

func isIPCSysctl(name string) bool {
	return strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem"
}

func validateSeccomp(p *corev1.SeccompProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := oneOf(at.Child("type"), p.Type,
		corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined, corev1.SeccompProfileTypeLocalhost)
	local := at.Child("localhostProfile")
	switch {
	case p.Type == corev1.SeccompProfileTypeLocalhost && (p.LocalhostProfile == nil || *p.LocalhostProfile == ""):
		errs = append(errs, field.Required(local, "type Localhost needs the profile's path"))
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		errs = append(errs, validateBelow(local, *p.LocalhostProfile)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(local, *p.LocalhostProfile, "only with type Localhost"))
	}
	return errs
}

func validateAppArmor(p *corev1.AppArmorProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	errs := oneOf(at.Child("type"), p.Type,
		corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined, corev1.AppArmorProfileTypeLocalhost)
	if named := p.LocalhostProfile != nil && *p.LocalhostProfile != ""; named != (p.Type == corev1.AppArmorProfileTypeLocalhost) {
		errs = append(errs, field.Invalid(at.Child("localhostProfile"), p.LocalhostProfile, "belongs to type Localhost, which needs it"))
	}
	return errs
}

// validateAppArmorAnnotations holds the old annotations, which still count on a static pod, to the fields beside them.
func validateAppArmorAnnotations(pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	at := func(name string) *field.Path {
		return field.NewPath("metadata", "annotations").Key(corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix + name)
	}
	eachContainer(pod, func(c *corev1.Container, _ *field.Path, _ bool) {
		names[c.Name] = true
		value, ok := pod.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if !ok {
			return
		}
		local, isLocal := strings.CutPrefix(value, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		if value != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault && value != corev1.DeprecatedAppArmorBetaProfileNameUnconfined && (!isLocal || local == "") {
			errs = append(errs, field.Invalid(at(c.Name), value, "expected runtime/default, unconfined or localhost/PROFILE"))
		}
		p := pod.Spec.SecurityContext.AppArmorProfile
		if c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			p = c.SecurityContext.AppArmorProfile
		}
		if p != nil && appArmorName(p) != value {
			errs = append(errs, field.Invalid(at(c.Name), value, fmt.Sprintf("says otherwise than the field appArmorProfile, which is %s", appArmorName(p))))
		}
	})
	for key, value := range pod.Annotations {
		if name, ok := strings.CutPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix); ok && !names[name] {
			errs = append(errs, field.Invalid(at(name), value, "there is no such container"))
		}
	}
	return errs
}

// appArmorName is a profile in the form of the annotations.
func appArmorName(p *corev1.AppArmorProfile) string {
	switch {
	case p.Type == corev1.AppArmorProfileTypeUnconfined:
		return corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case p.Type == corev1.AppArmorProfileTypeLocalhost && p.LocalhostProfile != nil:
		return corev1.DeprecatedAppArmorBetaProfileNamePrefix + *p.LocalhostProfile
	}
	return corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
}

func validateContainerSecurity(sc *corev1.SecurityContext, at *field.Path, pod *corev1.Pod) field.ErrorList {
	if sc == nil {
		return nil
	}
	errs := validateID(at.Child("runAsUser"), sc.RunAsUser)
	errs = append(errs, validateID(at.Child("runAsGroup"), sc.RunAsGroup)...)
	errs = append(errs, validateSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	errs = append(errs, validateAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
	if sc.ProcMount != nil {
		errs = append(errs, oneOf(at.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *sc.ProcMount == corev1.UnmaskedProcMount && (pod.Spec.HostUsers == nil || *pod.Spec.HostUsers) {
			errs = append(errs, field.Invalid(at.Child("procMount"), *sc.ProcMount, "needs hostUsers: false"))
		}
	}
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if sc.Privileged != nil && *sc.Privileged {
			errs = append(errs, field.Invalid(at, "", "allowPrivilegeEscalation: false cannot be used with privileged"))
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			errs = append(errs, field.Invalid(at, "", "allowPrivilegeEscalation: false cannot be used with CAP_SYS_ADMIN"))
		}
	}
	return errs
}
