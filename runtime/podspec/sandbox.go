package podspec

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Sandbox is what RunPodSandbox is told. It equals the kubelet's, so that a kubelet can adopt the pod; two annotations
// of our own are on top. Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_sandbox.go:78.
func Sandbox(p *manifest.StaticPod, attempt uint32, n Node) *runtimeapi.PodSandboxConfig {
	pod := p.Pod
	labels := podLabels(p)
	for k, v := range pod.Labels {
		if _, fixed := labels[k]; !fixed {
			labels[k] = v
		}
	}
	annotations := maps.Clone(pod.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[AnnotationSpecHash] = p.SpecHash
	annotations[AnnotationInstance] = n.Instance

	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name: pod.Name, Namespace: pod.Namespace, Uid: p.UID, Attempt: attempt,
		},
		LogDirectory: LogDir(p, n),
		DnsConfig:    dnsConfig(pod, n),
		Labels:       labels,
		Annotations:  annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    CgroupParent(pod, n),
			SecurityContext: sandboxSecurity(pod),
			Sysctls:         map[string]string{},
			Resources:       sandboxResources(pod, n),
			Overhead:        overheadResources(pod, n),
		},
	}
	if !pod.Spec.HostNetwork { // else the host's own name
		config.Hostname, _ = hostname(pod, n)
		if is(pod.Spec.SetHostnameAsFQDN) {
			config.Hostname = podFQDN(pod, n)
		}
	}
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			config.PortMappings = append(config.PortMappings, &runtimeapi.PortMapping{
				Protocol: runtimeapi.Protocol(runtimeapi.Protocol_value[string(port.Protocol)]),
				HostIp:   port.HostIP, HostPort: port.HostPort, ContainerPort: port.ContainerPort,
			})
		}
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		config.Linux.Sysctls[sysctlName(s.Name)] = s.Value
	}
	return config
}

// Handler is the runtime handler that RunPodSandbox is told; "" is the runtime's default. A RuntimeClass is an object of
// the API, which a static pod must not wait for: spec.runtimeClassName names the handler itself.
func Handler(pod *corev1.Pod) string {
	if pod.Spec.RuntimeClassName == nil {
		return ""
	}
	return *pod.Spec.RuntimeClassName
}

func podLabels(p *manifest.StaticPod) map[string]string {
	return map[string]string{LabelPodName: p.Pod.Name, LabelPodNamespace: p.Pod.Namespace, LabelPodUID: p.UID}
}

// hostname returns the pod's host name, at most the 63 characters that the kernel holds, and its domain.
func hostname(pod *corev1.Pod, n Node) (name, domain string) {
	name, domain = pod.Name, podDomain(pod, n)
	switch {
	case pod.Spec.HostnameOverride != nil:
		name = *pod.Spec.HostnameOverride
	case pod.Spec.Hostname != "":
		name = pod.Spec.Hostname
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name, domain
}

// maxFQDN is how many characters of a host name the kernel holds.
const maxFQDN = 64

// podFQDN is the pod's host name with its domain, if it has one.
func podFQDN(pod *corev1.Pod, n Node) string {
	name, domain := hostname(pod, n)
	if domain != "" {
		name += "." + domain
	}
	return name
}

func podDomain(pod *corev1.Pod, n Node) string {
	if pod.Spec.Subdomain == "" || pod.Spec.HostnameOverride != nil {
		return ""
	}
	return pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + n.ClusterDomain
}

// sysctlName is the name with dots, whichever way the manifest spells it.
func sysctlName(name string) string {
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' {
		return strings.Map(func(r rune) rune {
			switch r {
			case '/':
				return '.'
			case '.':
				return '/'
			}
			return r
		}, name)
	}
	return name
}

func sandboxSecurity(pod *corev1.Pod) *runtimeapi.LinuxSandboxSecurityContext {
	sc := pod.Spec.SecurityContext
	out := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		RunAsUser:        int64Value(sc.RunAsUser),
		RunAsGroup:       int64Value(sc.RunAsGroup),
		SelinuxOptions:   selinux(sc.SELinuxOptions),
		// Always, whatever the pod's own profile: the pause process needs no more.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	out.SupplementalGroups, out.SupplementalGroupsPolicy = groups(sc)
	for c := range containers(pod) {
		if c.SecurityContext != nil && is(c.SecurityContext.Privileged) {
			out.Privileged = true
		}
	}
	return out
}

func namespaces(pod *corev1.Pod) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{
		Network: runtimeapi.NamespaceMode_POD, Pid: runtimeapi.NamespaceMode_CONTAINER, Ipc: runtimeapi.NamespaceMode_POD,
		UsernsOptions: &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_NODE},
	}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case is(pod.Spec.ShareProcessNamespace):
		o.Pid = runtimeapi.NamespaceMode_POD
	}
	return o
}

// containers walks the init containers, then the containers.
func containers(pod *corev1.Pod) func(yield func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

func is(b *bool) bool { return b != nil && *b }

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}
