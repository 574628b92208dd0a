package podspec

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
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

// Unsupported names what a valid pod asks for in vain on this node, so that nothing is ignored in silence. What a kubelet
// ignores on a static pod as well (scheduling, priority, tolerations) is not named.
func Unsupported(pod *corev1.Pod, n Node) []Refusal {
	f := &finder{pod: pod, node: n}
	f.whole()
	f.nodeSelection()
	for i := range pod.Spec.InitContainers {
		f.container(&pod.Spec.InitContainers[i], fmt.Sprintf("spec.initContainers[%d]", i))
	}
	for i := range pod.Spec.Containers {
		f.container(&pod.Spec.Containers[i], fmt.Sprintf("spec.containers[%d]", i))
	}
	for i := range pod.Spec.Volumes {
		f.volume(&pod.Spec.Volumes[i].VolumeSource, fmt.Sprintf("spec.volumes[%d]", i))
	}
	return f.found
}

// newer is why a field is refused that a kubelet of Kubernetes 1.36 does not know: it would leave it out.
const newer = "is newer than Kubernetes 1.36, which this version follows"

type finder struct {
	pod   *corev1.Pod
	node  Node
	found []Refusal
}

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

// whole looks at what is said of the pod as a whole.
func (f *finder) whole() {
	pod, n, s := f.pod, f.node, &f.pod.Spec
	handler := Handler(pod)
	f.refuse(handler != "" && n.RuntimeHandlers != nil && !slices.Contains(n.RuntimeHandlers, handler), "spec.runtimeClassName",
		fmt.Sprintf("the runtime has no handler %q; it has %s", handler, strings.Join(named(n.RuntimeHandlers), ", ")))
	f.refuse(s.HostUsers != nil && !*s.HostUsers, "spec.hostUsers",
		"user namespaces are not supported: which ids each pod has would have to be kept beyond the supervisor's life")
	f.refuse(len(s.ReadinessGates) > 0, "spec.readinessGates", "conditions come from the API server, which a static pod may not wait for")
	f.refuse(len(s.SchedulingGates) > 0, "spec.schedulingGates", "a static pod is not scheduled")
	f.refuse(s.OS != nil && s.OS.Name != corev1.Linux, "spec.os.name", "only linux is supported")
	f.refuse(s.SecurityContext.WindowsOptions != nil, "spec.securityContext.windowsOptions", "only linux is supported")
	policy := s.SecurityContext.SupplementalGroupsPolicy
	f.refuse(policy != nil && *policy == corev1.SupplementalGroupsPolicyStrict && !n.SupplementalGroupsPolicy, "spec.securityContext.supplementalGroupsPolicy",
		"the runtime always adds the groups of the image's /etc/group")
	for i, ctl := range s.SecurityContext.Sysctls {
		name := sysctlName(ctl.Name)
		f.refuse(!safeSysctl(name) && !allowedSysctl(name, n), fmt.Sprintf("spec.securityContext.sysctls[%d]", i),
			fmt.Sprintf("%s is not among the safe ones, nor among the kubelet's allowedUnsafeSysctls", ctl.Name))
	}
	if fqdn := podFQDN(pod, n); !s.HostNetwork && is(s.SetHostnameAsFQDN) {
		f.refuse(len(fqdn) > maxFQDN, "spec.setHostnameAsFQDN", fmt.Sprintf("%s has more than the %d characters that the kernel holds", fqdn, maxFQDN))
	}
	f.warn(pod.Annotations[corev1.SeccompPodAnnotationKey] != "", "metadata.annotations["+corev1.SeccompPodAnnotationKey+"]",
		"has no effect since Kubernetes 1.27; set spec.securityContext.seccompProfile")
}

// named are the handlers that have a name, for messages.
func named(handlers []string) []string {
	var out []string
	for _, h := range handlers {
		if h != "" {
			out = append(out, h)
		}
	}
	if len(out) == 0 {
		return []string{"only the default one"}
	}
	slices.Sort(out)
	return out
}

// safeSysctl lists what affects the pod's own namespaces only. Kubernetes v1.36.3 pkg/kubelet/sysctl/safe_sysctls.go.
func safeSysctl(name string) bool {
	return slices.Contains([]string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
		"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
		"net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"}, name)
}

// allowedSysctl tells whether the node's list has the sysctl, by name or by a prefix that ends in "*".
func allowedSysctl(name string, n Node) bool {
	return slices.ContainsFunc(n.AllowedUnsafeSysctls, func(pattern string) bool {
		pattern = sysctlName(pattern)
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		return pattern == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

func (f *finder) container(c *corev1.Container, at string) {
	f.refuse(c.Lifecycle != nil && c.Lifecycle.StopSignal != nil && !f.node.StopSignals, at+".lifecycle.stopSignal",
		"the runtime sends the image's STOPSIGNAL only; containerd can send another from 2.4")
	f.refuse(len(c.VolumeDevices) > 0, at+".volumeDevices", "block volumes are not supported")
	f.warn(len(c.ResizePolicy) > 0, at+".resizePolicy", "a change of resources replaces the pod")
	f.refuse(c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil, at+".securityContext.windowsOptions", "only linux is supported")
	for i, m := range c.VolumeMounts {
		at := fmt.Sprintf("%s.volumeMounts[%d]", at, i)
		_, err := recursiveReadOnly(m, f.node)
		f.refuse(err != nil, at+".recursiveReadOnly", fmt.Sprint(err))
		f.refuse(len(m.BindMountOptions) > 0, at+".bindMountOptions", newer)
	}
	for i, e := range c.Env {
		if e.ValueFrom == nil || e.ValueFrom.ResourceFieldRef == nil {
			continue
		}
		f.diskLimit(e.ValueFrom.ResourceFieldRef, fmt.Sprintf("%s.env[%d].valueFrom.resourceFieldRef", at, i), c)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Requests)) { // a limit is a request too
		field := fmt.Sprintf("%s.resources.requests[%s]", at, name)
		if _, limited := c.Resources.Limits[name]; limited {
			field = fmt.Sprintf("%s.resources.limits[%s]", at, name)
		}
		f.refuse(strings.Contains(string(name), "/"), field, "devices and other extended resources are not supported")
	}
	f.probes(c, at)
}

// diskLimit refuses to tell a container of a limit of its disk that it does not have, where the disk's size is not known.
func (f *finder) diskLimit(ref *corev1.ResourceFieldSelector, at string, c *corev1.Container) {
	if ref.Resource != "limits.ephemeral-storage" || f.node.EphemeralStorage > 0 {
		return
	}
	for other := range containers(f.pod) {
		if other.Name == ref.ContainerName {
			c = other
		}
	}
	if c != nil {
		q := c.Resources.Limits[corev1.ResourceEphemeralStorage]
		f.refuse(q.IsZero(), at, "the container has no such limit, and the size of the node's disk is not known")
	}
}

func (f *finder) probes(c *corev1.Container, at string) {
	get := func(g *corev1.HTTPGetAction, at string) {
		f.refuse(g != nil && g.Protocol != nil, at+".httpGet.protocol", newer)
	}
	probe := func(p *corev1.Probe, at string) {
		if p != nil {
			get(p.HTTPGet, at)
			f.refuse(p.GRPC != nil && p.GRPC.Mode != nil, at+".grpc.mode", newer)
		}
	}
	hook := func(h *corev1.LifecycleHandler, at string) {
		if h != nil {
			f.warn(h.TCPSocket != nil, at+".tcpSocket", "the hook always fails: no kubelet ever ran one of this kind")
			get(h.HTTPGet, at)
		}
	}
	probe(c.LivenessProbe, at+".livenessProbe")
	probe(c.ReadinessProbe, at+".readinessProbe")
	probe(c.StartupProbe, at+".startupProbe")
	if c.Lifecycle != nil {
		hook(c.Lifecycle.PostStart, at+".lifecycle.postStart")
		hook(c.Lifecycle.PreStop, at+".lifecycle.preStop")
	}
}

func (f *finder) volume(v *corev1.VolumeSource, at string) {
	items := func(items []corev1.DownwardAPIVolumeFile, at string) {
		for i, item := range items {
			f.refuse(item.User != nil, fmt.Sprintf("%s.items[%d].user", at, i), newer)
			if item.ResourceFieldRef != nil {
				f.diskLimit(item.ResourceFieldRef, fmt.Sprintf("%s.items[%d].resourceFieldRef", at, i), nil)
			}
		}
	}
	switch {
	case v.HostPath != nil:
	case v.DownwardAPI != nil:
		f.refuse(v.DownwardAPI.DefaultUser != nil, at+".downwardAPI.defaultUser", newer)
		items(v.DownwardAPI.Items, at+".downwardAPI")
	case v.Projected != nil:
		f.refuse(v.Projected.DefaultUser != nil, at+".projected.defaultUser", newer)
		for i, s := range v.Projected.Sources {
			if s.DownwardAPI != nil {
				items(s.DownwardAPI.Items, fmt.Sprintf("%s.projected.sources[%d].downwardAPI", at, i))
			}
		}
	case v.EmptyDir != nil:
		f.refuse(v.EmptyDir.Mode != nil, at+".emptyDir.mode", newer)
		f.refuse(!mountsPages(v.EmptyDir.Medium, f.pod, f.node), at+".emptyDir.medium", "the kernel of this node has no huge pages of that size")
	case v.Image != nil:
		f.refuse(!f.node.ImageVolumes, at+".image", "the runtime does not mount images as volumes; containerd does from 2.1")
	default:
		kind := volumeKind(v)
		f.refuse(true, at+"."+kind, kind+" volumes are not supported; a static pod has hostPath, emptyDir, image and downwardAPI")
	}
}

// mountsPages tells whether an emptyDir of that medium can be mounted, as far as that is known.
func mountsPages(m corev1.StorageMedium, pod *corev1.Pod, n Node) bool {
	if !strings.HasPrefix(string(m), string(corev1.StorageMediumHugePages)) || n.HugePageSizes == nil {
		return true
	}
	return slices.Contains(n.HugePageSizes, pageSizeName(pageSize(m, pod)))
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
