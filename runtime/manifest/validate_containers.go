package manifest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateContainer(c *corev1.Container, at *field.Path, init bool, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if c.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "a container needs a name"))
	} else {
		errs = append(errs, invalid(at.Child("name"), c.Name, validation.IsDNS1123Label(c.Name))...)
	}
	switch {
	case c.Image == "":
		errs = append(errs, field.Required(at.Child("image"), "a container needs an image"))
	case c.Image != strings.TrimSpace(c.Image):
		errs = append(errs, field.Invalid(at.Child("image"), c.Image, "must not begin or end with white space"))
	}
	errs = append(errs, oneOf(at.Child("imagePullPolicy"), c.ImagePullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, oneOf(at.Child("terminationMessagePolicy"), c.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, validatePorts(c, at.Child("ports"), pod.Spec.HostNetwork)...)
	errs = append(errs, validateEnv(c, at, pod)...)
	errs = append(errs, validateMounts(c, at, pod.Spec.Volumes)...)
	errs = append(errs, validateResources(&c.Resources, at.Child("resources"), badContainerResource)...)
	errs = append(errs, validateContainerSecurity(c.SecurityContext, at.Child("securityContext"), pod)...)

	errs = append(errs, validateRestart(c, at)...)
	for i, p := range c.ResizePolicy {
		at := at.Child("resizePolicy").Index(i)
		errs = append(errs, oneOf(at.Child("resourceName"), p.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, oneOf(at.Child("restartPolicy"), p.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)...)
	}
	once := init && !restartable(c) // it ends before the others begin
	for _, p := range []struct {
		name    string
		probe   *corev1.Probe
		success bool // may ask for more than one success
	}{{"livenessProbe", c.LivenessProbe, false}, {"readinessProbe", c.ReadinessProbe, true}, {"startupProbe", c.StartupProbe, false}} {
		if p.probe == nil {
			continue
		}
		if once {
			errs = append(errs, field.Forbidden(at.Child(p.name), "an init container has probes only with restartPolicy: Always"))
		}
		errs = append(errs, validateProbe(p.probe, at.Child(p.name), c, p.success)...)
	}
	if c.Lifecycle != nil {
		if once {
			errs = append(errs, field.Forbidden(at.Child("lifecycle"), "an init container has hooks only with restartPolicy: Always"))
		}
		errs = append(errs, validateLifecycle(c.Lifecycle, c, pod, at.Child("lifecycle"))...)
	}
	return errs
}

func validatePorts(c *corev1.Container, at *field.Path, hostNetwork bool) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range c.Ports {
		at := at.Index(i)
		if p.Name != "" {
			errs = append(errs, invalid(at.Child("name"), p.Name, validation.IsValidPortName(p.Name))...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		errs = append(errs, invalid(at.Child("containerPort"), fmt.Sprint(p.ContainerPort), validation.IsValidPortNum(int(p.ContainerPort)))...)
		if p.HostPort != 0 {
			errs = append(errs, invalid(at.Child("hostPort"), fmt.Sprint(p.HostPort), validation.IsValidPortNum(int(p.HostPort)))...)
		}
		if hostNetwork && p.HostPort != p.ContainerPort {
			errs = append(errs, field.Invalid(at.Child("hostPort"), p.HostPort, fmt.Sprintf("must be containerPort %d with hostNetwork", p.ContainerPort)))
		}
		if p.HostIP != "" {
			errs = append(errs, validateIP(at.Child("hostIP"), p.HostIP)...)
		}
		errs = append(errs, oneOf(at.Child("protocol"), p.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
	}
	return errs
}

// hostPortConflicts finds a host port that two containers of the pod claim.
func hostPortConflicts(c *corev1.Container, at *field.Path, claimed map[string]*field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range c.Ports {
		if p.HostPort == 0 {
			continue
		}
		at := at.Child("ports").Index(i).Child("hostPort")
		key := fmt.Sprintf("%s/%s/%d", p.HostIP, p.Protocol, p.HostPort)
		if other, ok := claimed[key]; ok {
			errs = append(errs, field.Invalid(at, p.HostPort, fmt.Sprintf("is also taken by %s", other)))
		}
		claimed[key] = at
	}
	return errs
}

func validateProbe(p *corev1.Probe, at *field.Path, c *corev1.Container, success bool) field.ErrorList {
	var errs field.ErrorList
	for _, n := range []struct {
		name  string
		value int32
	}{{"initialDelaySeconds", p.InitialDelaySeconds}, {"timeoutSeconds", p.TimeoutSeconds}, {"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold}, {"failureThreshold", p.FailureThreshold}} {
		errs = append(errs, atLeast(at.Child(n.name), int64(n.value), 0)...)
	}
	if !success && p.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(at.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
	if g := p.TerminationGracePeriodSeconds; g != nil {
		errs = append(errs, atLeast(at.Child("terminationGracePeriodSeconds"), *g, 1)...)
		if success {
			errs = append(errs, field.Invalid(at.Child("terminationGracePeriodSeconds"), *g, "a readiness probe stops nothing"))
		}
	}
	if p.GRPC != nil {
		errs = append(errs, invalid(at.Child("grpc", "port"), fmt.Sprint(p.GRPC.Port), validation.IsValidPortNum(int(p.GRPC.Port)))...)
	}
	return append(errs, validateHandler(at, c, p.Exec, p.HTTPGet, p.TCPSocket, p.GRPC != nil)...)
}

// validateHandler wants exactly one handler; other says that one of the kinds not given here is set.
func validateHandler(at *field.Path, c *corev1.Container, exec *corev1.ExecAction, get *corev1.HTTPGetAction, tcp *corev1.TCPSocketAction, other bool) field.ErrorList {
	var errs field.ErrorList
	n := 0
	for _, set := range []bool{exec != nil, get != nil, tcp != nil, other} {
		if set {
			n++
		}
	}
	if n != 1 {
		errs = append(errs, field.Invalid(at, "", fmt.Sprintf("has %d handlers; expected one", n)))
	}
	if exec != nil && len(exec.Command) == 0 {
		errs = append(errs, field.Required(at.Child("exec", "command"), "exec needs a command"))
	}
	if get != nil {
		errs = append(errs, validateHTTPHeaders(get.HTTPHeaders, at.Child("httpGet", "httpHeaders"))...)
		errs = append(errs, oneOf(at.Child("httpGet", "scheme"), get.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
		errs = append(errs, validatePort(at.Child("httpGet", "port"), get.Port, c)...)
	}
	if tcp != nil {
		errs = append(errs, validatePort(at.Child("tcpSocket", "port"), tcp.Port, c)...)
	}
	return errs
}

func validatePort(at *field.Path, port intstr.IntOrString, c *corev1.Container) field.ErrorList {
	if port.Type == intstr.Int {
		return invalid(at, port.String(), validation.IsValidPortNum(port.IntValue()))
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return nil
		}
	}
	return field.ErrorList{field.NotFound(at, port.StrVal)}
}
