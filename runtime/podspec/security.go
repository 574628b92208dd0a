package podspec

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerSecurity merges the container's security context over the pod's, as the kubelet does. Kubernetes v1.36.3
// pkg/kubelet/kuberuntime/security_context.go.
func containerSecurity(pod *corev1.Pod, c *corev1.Container, img Image, n Node) (*runtimeapi.LinuxContainerSecurityContext, error) {
	podSC := pod.Spec.SecurityContext
	sc := corev1.SecurityContext{}
	if c.SecurityContext != nil {
		sc = *c.SecurityContext
	}
	inherit(&sc.RunAsUser, podSC.RunAsUser)
	inherit(&sc.RunAsGroup, podSC.RunAsGroup)
	inherit(&sc.RunAsNonRoot, podSC.RunAsNonRoot)
	inherit(&sc.SELinuxOptions, podSC.SELinuxOptions)
	inherit(&sc.SeccompProfile, podSC.SeccompProfile)
	if err := checkNonRoot(&sc, img); err != nil {
		return nil, err
	}

	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:       is(sc.Privileged),
		ReadonlyRootfs:   is(sc.ReadOnlyRootFilesystem),
		NoNewPrivs:       sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
		NamespaceOptions: namespaces(pod),
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
		MaskedPaths:      slices.Concat(maskedPaths(), n.MaskedPaths),
		ReadonlyPaths:    readonlyPaths(),
	}
	if sc.RunAsUser == nil {
		out.RunAsUsername = img.Username
		out.RunAsUser = int64Value(img.UID)
		if img.UID == nil && img.Username == "" {
			out.RunAsUser = &runtimeapi.Int64Value{Value: 0}
		}
	}
	if sc.ProcMount != nil && *sc.ProcMount == corev1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = []string{}, []string{}
	}
	if caps := sc.Capabilities; caps != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, name := range caps.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(name))
		}
		for _, name := range caps.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(name))
		}
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(podSC)
	out.Seccomp = seccomp(sc.SeccompProfile, n)
	//lint:ignore SA1019 a kubelet still sets the deprecated field beside the new one, for runtimes that know only that
	out.Apparmor, out.ApparmorProfile = apparmor(pod, c)
	return out, nil
}

// checkNonRoot keeps runAsNonRoot's promise. Like the kubelet it cannot look into the image's /etc/passwd, and refuses
// a user that is only a name.
func checkNonRoot(sc *corev1.SecurityContext, img Image) error {
	if !is(sc.RunAsNonRoot) {
		return nil
	}
	switch {
	case sc.RunAsUser != nil && *sc.RunAsUser == 0:
		return errors.New("runAsNonRoot is set, but runAsUser is 0: set runAsUser to another number")
	case sc.RunAsUser != nil:
		return nil
	case img.UID == nil && img.Username != "":
		return fmt.Errorf("runAsNonRoot is set, and the image's user %q is not a number: set runAsUser", img.Username)
	case img.UID == nil || *img.UID == 0:
		return errors.New("runAsNonRoot is set, but the image runs as root: set runAsUser")
	}
	return nil
}

func seccomp(p *corev1.SeccompProfile, n Node) *runtimeapi.SecurityProfile {
	switch {
	case p == nil && n.SeccompDefault, p != nil && p.Type == corev1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
	case p != nil && p.Type == corev1.SeccompProfileTypeLocalhost:
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(n.KubeletRoot, "seccomp", *p.LocalhostProfile),
		}
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}
}

// apparmor returns the profile in the present form and in the one of older runtimes; nil and "" mean the runtime's
// own choice. The annotation counts for static pods, since no API server has turned it into the field.
func apparmor(pod *corev1.Pod, c *corev1.Container) (*runtimeapi.SecurityProfile, string) {
	var p *corev1.AppArmorProfile
	annotation := pod.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
	switch {
	case c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil:
		p = c.SecurityContext.AppArmorProfile
	case annotation == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case annotation == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case strings.HasPrefix(annotation, corev1.DeprecatedAppArmorBetaProfileNamePrefix):
		name := strings.TrimPrefix(annotation, corev1.DeprecatedAppArmorBetaProfileNamePrefix)
		p = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &name}
	default:
		p = pod.Spec.SecurityContext.AppArmorProfile
	}
	if p == nil {
		return nil, ""
	}
	switch p.Type {
	case corev1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, corev1.DeprecatedAppArmorBetaProfileNameUnconfined
	case corev1.AppArmorProfileTypeLocalhost:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile},
			corev1.DeprecatedAppArmorBetaProfileNamePrefix + *p.LocalhostProfile
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, corev1.DeprecatedAppArmorBetaProfileRuntimeDefault
}

func groups(sc *corev1.PodSecurityContext) ([]int64, runtimeapi.SupplementalGroupsPolicy) {
	var ids []int64
	if sc.FSGroup != nil {
		ids = append(ids, *sc.FSGroup)
	}
	ids = append(ids, sc.SupplementalGroups...)
	policy := runtimeapi.SupplementalGroupsPolicy_Merge
	if p := sc.SupplementalGroupsPolicy; p != nil && *p == corev1.SupplementalGroupsPolicyStrict {
		policy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	return ids, policy
}

func selinux(o *corev1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func inherit[T any](field **T, value *T) {
	if *field == nil {
		*field = value
	}
}

// maskedPaths and readonlyPaths are what every runtime hides of /proc and /sys unless procMount is Unmasked.
// Kubernetes v1.36.3 pkg/securitycontext/util.go:186.
func maskedPaths() []string {
	return []string{"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
