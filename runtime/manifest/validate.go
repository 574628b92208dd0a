package manifest

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validate returns what the API's validation would say of a defaulted pod, for everything that decides how it runs.
// What only the API server uses (owner references, topology, affinity terms) is not looked at.
func validate(pod *corev1.Pod, nodeName string) field.ErrorList {
	errs := validateMeta(pod, nodeName)
	errs = append(errs, validateSpec(&pod.Spec)...)
	errs = append(errs, validateNodeSelection(&pod.Spec, field.NewPath("spec"))...)
	errs = append(errs, validatePodResources(pod, field.NewPath("spec", "resources"))...)
	errs = append(errs, validateAppArmorAnnotations(pod)...)
	errs = append(errs, validateVolumes(pod)...)
	if len(pod.Spec.Containers) == 0 {
		errs = append(errs, field.Required(field.NewPath("spec", "containers"), "a pod has at least one container"))
	}
	names := map[string]*field.Path{}
	ports := map[string]*field.Path{}
	eachContainer(pod, func(c *corev1.Container, at *field.Path, init bool) {
		if other, ok := names[c.Name]; ok && c.Name != "" {
			errs = append(errs, field.Invalid(at.Child("name"), c.Name, fmt.Sprintf("is also the name of %s", other)))
		}
		names[c.Name] = at
		errs = append(errs, validateContainer(c, at, init, pod)...)
		if !init || restartable(c) {
			errs = append(errs, hostPortConflicts(c, at, ports)...)
		}
	})
	return append(errs, forbiddenReferences(pod)...)
}

func validateMeta(pod *corev1.Pod, nodeName string) field.ErrorList {
	var errs field.ErrorList
	meta := field.NewPath("metadata")
	switch name := podName(pod.Name, nodeName); {
	case pod.Name == "":
		errs = append(errs, field.Required(meta.Child("name"), "a static pod needs a name"))
	default:
		errs = append(errs, invalid(meta.Child("name"), pod.Name, validation.IsDNS1123Subdomain(pod.Name))...)
		if len(errs) == 0 {
			errs = append(errs, invalid(meta.Child("name"), name, validation.IsDNS1123Subdomain(name))...)
		}
	}
	if pod.Namespace != "" {
		errs = append(errs, invalid(meta.Child("namespace"), pod.Namespace, validation.IsDNS1123Label(pod.Namespace))...)
	}
	if why := badUID(string(pod.UID)); pod.UID != "" && why != "" {
		errs = append(errs, field.Invalid(meta.Child("uid"), pod.UID, why))
	}
	for k, v := range pod.Labels {
		errs = append(errs, invalid(meta.Child("labels").Key(k), k, validation.IsQualifiedName(k))...)
		errs = append(errs, invalid(meta.Child("labels").Key(k), v, validation.IsValidLabelValue(v))...)
	}
	for k := range pod.Annotations {
		errs = append(errs, invalid(meta.Child("annotations").Key(k), k, validation.IsQualifiedName(strings.ToLower(k)))...)
	}
	errs = append(errs, validateAnnotations(pod.Annotations, meta.Child("annotations"))...)
	if _, ok := pod.Annotations[AnnotationConfigMirror]; ok {
		errs = append(errs, field.Forbidden(meta.Child("annotations").Key(AnnotationConfigMirror), "only a mirror pod in the API carries it"))
	}
	if pod.DeletionTimestamp != nil {
		errs = append(errs, field.Forbidden(meta.Child("deletionTimestamp"), "a manifest cannot be under deletion; remove the file instead"))
	}
	return errs
}

// badUID says why a uid cannot be used. It becomes part of directory and cgroup names, and the log directory's name is
// taken apart at '_'.
func badUID(uid string) string {
	for _, r := range uid {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.') {
			return fmt.Sprintf("may hold letters, digits, '-' and '.', not %q: it names directories and cgroups", r)
		}
	}
	if len(uid) > 128 || strings.Trim(uid, ".") == "" {
		return "must have 1 to 128 characters, not all of them dots"
	}
	return ""
}

func validateSpec(s *corev1.PodSpec) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	errs = append(errs, oneOf(spec.Child("restartPolicy"), s.RestartPolicy,
		corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever)...)
	errs = append(errs, oneOf(spec.Child("dnsPolicy"), s.DNSPolicy,
		corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone)...)
	errs = append(errs, validateDNS(s, spec.Child("dnsConfig"))...)
	for i, a := range s.HostAliases {
		at := spec.Child("hostAliases").Index(i)
		errs = append(errs, validateIP(at.Child("ip"), a.IP)...)
		for j, h := range a.Hostnames {
			errs = append(errs, invalid(at.Child("hostnames").Index(j), h, validation.IsDNS1123Subdomain(h))...)
		}
	}
	errs = append(errs, atLeast(spec.Child("terminationGracePeriodSeconds"), *s.TerminationGracePeriodSeconds, 0)...)
	if d := s.ActiveDeadlineSeconds; d != nil && (*d < 1 || *d > math.MaxInt32) {
		errs = append(errs, field.Invalid(spec.Child("activeDeadlineSeconds"), *d, "must be between 1 and 2147483647"))
	}
	if s.Hostname != "" {
		errs = append(errs, invalid(spec.Child("hostname"), s.Hostname, validation.IsDNS1123Label(s.Hostname))...)
	}
	if s.Subdomain != "" {
		errs = append(errs, invalid(spec.Child("subdomain"), s.Subdomain, validation.IsDNS1123Label(s.Subdomain))...)
	}
	errs = append(errs, validateHostnameOverride(s, spec.Child("hostnameOverride"))...)
	if s.HostPID && s.ShareProcessNamespace != nil && *s.ShareProcessNamespace {
		errs = append(errs, field.Invalid(spec.Child("shareProcessNamespace"), true, "cannot be used with hostPID"))
	}
	if s.HostUsers != nil && !*s.HostUsers && (s.HostPID || s.HostIPC || s.HostNetwork) {
		errs = append(errs, field.Forbidden(spec.Child("hostUsers"), "false cannot be used with hostNetwork, hostPID or hostIPC"))
	}
	if s.OS != nil {
		errs = append(errs, oneOf(spec.Child("os", "name"), s.OS.Name, corev1.Linux, corev1.Windows)...)
	}
	if s.RuntimeClassName != nil {
		errs = append(errs, invalid(spec.Child("runtimeClassName"), *s.RuntimeClassName, validation.IsDNS1123Subdomain(*s.RuntimeClassName))...)
	}
	if s.PreemptionPolicy != nil {
		errs = append(errs, oneOf(spec.Child("preemptionPolicy"), *s.PreemptionPolicy, corev1.PreemptLowerPriority, corev1.PreemptNever)...)
	}
	errs = append(errs, validateOverhead(s.Overhead, spec.Child("overhead"))...)
	if len(s.EphemeralContainers) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ephemeralContainers"), "cannot be set in a manifest"))
	}
	return append(errs, validatePodSecurity(s, spec.Child("securityContext"))...)
}

func validateDNS(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.DNSPolicy == corev1.DNSNone && (s.DNSConfig == nil || len(s.DNSConfig.Nameservers) == 0) {
		errs = append(errs, field.Required(at.Child("nameservers"), "dnsPolicy None needs at least one"))
	}
	if s.DNSConfig == nil {
		return errs
	}
	for i, ns := range s.DNSConfig.Nameservers {
		errs = append(errs, validateIP(at.Child("nameservers").Index(i), ns)...)
	}
	if n := len(s.DNSConfig.Nameservers); n > 3 {
		errs = append(errs, field.TooMany(at.Child("nameservers"), n, 3))
	}
	if n := len(s.DNSConfig.Searches); n > 32 {
		errs = append(errs, field.TooMany(at.Child("searches"), n, 32))
	}
	if text := strings.Join(s.DNSConfig.Searches, " "); len(text) > 2048 {
		errs = append(errs, field.TooLong(at.Child("searches"), "", 2048))
	}
	for i, domain := range s.DNSConfig.Searches {
		if domain != "." {
			errs = append(errs, invalid(at.Child("searches").Index(i), domain, validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(domain, ".")))...)
		}
	}
	for i, o := range s.DNSConfig.Options {
		if o.Name == "" {
			errs = append(errs, field.Required(at.Child("options").Index(i).Child("name"), "an option needs a name"))
		}
	}
	return errs
}

func validateHostnameOverride(s *corev1.PodSpec, at *field.Path) field.ErrorList {
	if s.HostnameOverride == nil {
		return nil
	}
	errs := invalid(at, *s.HostnameOverride, validation.IsDNS1123Subdomain(*s.HostnameOverride))
	if len(*s.HostnameOverride) > 64 { // what the kernel holds
		errs = append(errs, field.TooLong(at, "", 64))
	}
	if s.HostNetwork {
		errs = append(errs, field.Forbidden(at, "cannot be used with hostNetwork"))
	}
	if s.SetHostnameAsFQDN != nil && *s.SetHostnameAsFQDN {
		errs = append(errs, field.Forbidden(at, "cannot be used with setHostnameAsFQDN"))
	}
	return errs
}

func invalid(at *field.Path, value string, why []string) field.ErrorList {
	var errs field.ErrorList
	for _, w := range why {
		errs = append(errs, field.Invalid(at, value, w))
	}
	return errs
}

func oneOf[T ~string](at *field.Path, value T, allowed ...T) field.ErrorList {
	if slices.Contains(allowed, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(at, value, allowed)}
}

func atLeast(at *field.Path, value, least int64) field.ErrorList {
	if value >= least {
		return nil
	}
	return field.ErrorList{field.Invalid(at, value, fmt.Sprintf("must be at least %d", least))}
}

func validateID(at *field.Path, id *int64) field.ErrorList {
	if id == nil || *id >= 0 && *id <= 1<<31-1 {
		return nil
	}
	return field.ErrorList{field.Invalid(at, *id, "must be between 0 and 2147483647")}
}

func validateIP(at *field.Path, ip string) field.ErrorList {
	if _, err := netip.ParseAddr(ip); err != nil {
		return field.ErrorList{field.Invalid(at, ip, "is not an IP address")}
	}
	return nil
}

// validateBelow wants a relative path that stays below its root.
func validateBelow(at *field.Path, path string) field.ErrorList {
	if strings.HasPrefix(path, "/") {
		return field.ErrorList{field.Invalid(at, path, "must be relative")}
	}
	return validateNoDotDot(at, path)
}

func validateNoDotDot(at *field.Path, path string) field.ErrorList {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return field.ErrorList{field.Invalid(at, path, "must not contain '..'")}
	}
	return nil
}

func restartable(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
