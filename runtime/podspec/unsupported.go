package podspec

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"runtime"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Refusal is a field of a manifest that this version does not act on.
type Refusal struct {
	Field  string // spec.containers[0].lifecycle.preStop
	Reason string
	// Warn says that the pod runs as it should without the field; all others keep it from running.
	Warn bool
}

func (r Refusal) Error() string { return r.Field + ": " + r.Reason }

// Refuse returns every Refusal that keeps the pod from running on this node as one error; nil when there is none.
func Refuse(pod *corev1.Pod, n Node) error {
	var errs []error
	for _, r := range Unsupported(pod, n) {
		if !r.Warn {
			errs = append(errs, r)
		}
	}
	return errors.Join(errs...)
}

// Unsupported names what a valid pod asks for in vain, so that nothing is ignored in silence. What a kubelet ignores
// on a static pod as well (scheduling, priority, tolerations) is not named.
func Unsupported(pod *corev1.Pod, n Node) []Refusal {
	f := &finder{}
	f.pod(pod)
	for i := range pod.Spec.InitContainers {
		f.container(&pod.Spec.InitContainers[i], fmt.Sprintf("spec.initContainers[%d]", i), true)
	}
	for i := range pod.Spec.Containers {
		f.container(&pod.Spec.Containers[i], fmt.Sprintf("spec.containers[%d]", i), false)
	}
	for i := range pod.Spec.Volumes {
		f.volume(&pod.Spec.Volumes[i].VolumeSource, fmt.Sprintf("spec.volumes[%d]", i))
	}
	return f.found
}

type finder struct{ found []Refusal }

func (f *finder) refuse(set bool, field, reason string) {
	if set {
		f.found = append(f.found, Refusal{Field: field, Reason: reason})
	}
}

func (f *finder) warn(set bool, field, reason string) {
	if set {
		f.found = append(f.found, Refusal{Field: field, Reason: reason, Warn: true})
	}
}

func (f *finder) pod(pod *corev1.Pod) {
	s := &pod.Spec
	f.refuse(s.ActiveDeadlineSeconds != nil, "spec.activeDeadlineSeconds", "a deadline for the whole pod is not supported")
	f.refuse(s.RuntimeClassName != nil && *s.RuntimeClassName != "", "spec.runtimeClassName", "a RuntimeClass is an object of the API; only the default handler is supported")
	f.refuse(len(s.Overhead) > 0, "spec.overhead", "only with a RuntimeClass, which is not supported")
	f.refuse(s.HostUsers != nil && !*s.HostUsers, "spec.hostUsers", "user namespaces are not supported")
	f.refuse(s.Resources != nil, "spec.resources", "pod-level resources are not supported; set them on each container")
	f.refuse(len(s.ReadinessGates) > 0, "spec.readinessGates", "conditions come from the API server, which a static pod may not wait for")
	f.refuse(len(s.SchedulingGates) > 0, "spec.schedulingGates", "a static pod is not scheduled")
	f.refuse(s.OS != nil && s.OS.Name != corev1.Linux, "spec.os.name", "only linux is supported")
	f.refuse(s.SecurityContext.WindowsOptions != nil, "spec.securityContext.windowsOptions", "only linux is supported")
	f.refuse(s.Affinity != nil && s.Affinity.NodeAffinity != nil && s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil,
		"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", "node labels are not known here; the file is on the node that shall run it")
	for _, key := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		f.refuse(!selects(key, s.NodeSelector[key], s.NodeName), "spec.nodeSelector["+key+"]",
			"only kubernetes.io/os, kubernetes.io/arch and kubernetes.io/hostname of this node can be selected")
	}
	for i, ctl := range s.SecurityContext.Sysctls {
		f.refuse(!safeSysctl(sysctlName(ctl.Name)), fmt.Sprintf("spec.securityContext.sysctls[%d]", i), fmt.Sprintf("%s is not among the safe ones", ctl.Name))
	}
}

func selects(key, value, node string) bool {
	switch key {
	case corev1.LabelOSStable:
		return value == "linux"
	case corev1.LabelArchStable:
		return value == runtime.GOARCH
	case corev1.LabelHostname:
		return value == node
	}
	return false
}

// safeSysctl lists what affects the pod's own namespaces only. Kubernetes v1.36.3 pkg/kubelet/sysctl/safe_sysctls.go.
func safeSysctl(name string) bool {
	return slices.Contains([]string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
		"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
		"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}, name)
}

func (f *finder) container(c *corev1.Container, at string, init bool) {
	if l := c.Lifecycle; l != nil {
		f.refuse(l.PostStart != nil, at+".lifecycle.postStart", "hooks are not supported")
		f.refuse(l.PreStop != nil, at+".lifecycle.preStop", "hooks are not supported")
		f.refuse(l.StopSignal != nil, at+".lifecycle.stopSignal", "the image's STOPSIGNAL is used")
	}
	f.refuse(len(c.RestartPolicyRules) > 0, at+".restartPolicyRules", "restart rules are not supported")
	f.refuse(c.RestartPolicy != nil && !(init && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways), at+".restartPolicy",
		"only Always on an init container is supported; the pod's restartPolicy counts for the others")
	f.refuse(len(c.VolumeDevices) > 0, at+".volumeDevices", "block volumes are not supported")
	f.warn(len(c.ResizePolicy) > 0, at+".resizePolicy", "a change of resources replaces the pod")
	f.refuse(c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil, at+".securityContext.windowsOptions", "only linux is supported")
	for i, m := range c.VolumeMounts {
		m, at := &m, fmt.Sprintf("%s.volumeMounts[%d]", at, i)
		f.refuse(m.SubPath != "", at+".subPath", "subPath is not supported; mount the directory itself")
		f.refuse(m.SubPathExpr != "", at+".subPathExpr", "subPathExpr is not supported")
		f.refuse(m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == corev1.RecursiveReadOnlyEnabled, at+".recursiveReadOnly",
			"recursive read-only mounts are not supported")
	}
	for i, e := range c.Env {
		f.refuse(e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil, fmt.Sprintf("%s.env[%d].valueFrom.fileKeyRef", at, i), "variables from files are not supported")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) { // a limit is a request too
		field := fmt.Sprintf("%s.resources.requests[%s]", at, name)
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
		case name == corev1.ResourceEphemeralStorage:
			f.warn(true, field, "disk usage is neither reserved nor limited")
		default:
			f.refuse(true, field, "devices and other extended resources are not supported")
		}
	}
}

func (f *finder) volume(v *corev1.VolumeSource, at string) {
	switch {
	case v.HostPath != nil, v.DownwardAPI != nil, v.Projected != nil:
	case v.EmptyDir != nil:
		huge := strings.HasPrefix(string(v.EmptyDir.Medium), string(corev1.StorageMediumHugePages))
		f.refuse(huge, at+".emptyDir.medium", "huge pages are not supported as a volume")
		f.warn(v.EmptyDir.Medium == corev1.StorageMediumDefault && v.EmptyDir.SizeLimit != nil, at+".emptyDir.sizeLimit", "disk usage is not limited")
	default:
		kind := volumeKind(v)
		f.refuse(true, at+"."+kind, kind+" volumes are not supported; a static pod has hostPath, emptyDir and downwardAPI")
	}
}

// volumeKind is the json name of the type that is set.
func volumeKind(v *corev1.VolumeSource) string {
	value := reflect.ValueOf(v).Elem()
	for i := range value.NumField() {
		if f := value.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			name, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			return name
		}
	}
	return "unknown"
}
