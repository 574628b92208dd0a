package manifest

import (
	"fmt"
	"slices"
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

// The fields that the environment and the volumes may refer to. Volumes lack what is known only once the sandbox runs.
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	volumeFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"}
)

func validateEnv(c *corev1.Container, at *field.Path, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	for i, e := range c.Env {
		at := at.Child("env").Index(i)
		switch {
		case e.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "a variable needs a name"))
		default:
			errs = append(errs, invalid(at.Child("name"), e.Name, validation.IsRelaxedEnvVarName(e.Name))...)
		}
		from := e.ValueFrom
		if from == nil {
			continue
		}
		at = at.Child("valueFrom")
		if e.Value != "" {
			errs = append(errs, field.Invalid(at, "", "cannot be used with value"))
		}
		n := 0
		for _, set := range []bool{from.FieldRef != nil, from.ResourceFieldRef != nil, from.ConfigMapKeyRef != nil, from.SecretKeyRef != nil, from.FileKeyRef != nil} {
			if set {
				n++
			}
		}
		if n != 1 {
			errs = append(errs, field.Invalid(at, "", fmt.Sprintf("has %d sources; expected one", n)))
		}
		if from.FieldRef != nil {
			errs = append(errs, validateFieldRef(from.FieldRef, at.Child("fieldRef"), envFields)...)
		}
		if from.ResourceFieldRef != nil {
			errs = append(errs, validateResourceFieldRef(from.ResourceFieldRef, at.Child("resourceFieldRef"), false, pod)...)
		}
		if from.FileKeyRef != nil {
			errs = append(errs, validateFileKeyRef(from.FileKeyRef, at.Child("fileKeyRef"), pod)...)
		}
	}
	return errs
}

func validateFieldRef(ref *corev1.ObjectFieldSelector, at *field.Path, allowed []string) field.ErrorList {
	errs := oneOf(at.Child("apiVersion"), ref.APIVersion, "v1")
	path := at.Child("fieldPath")
	if name, rest, subscripted := strings.Cut(ref.FieldPath, "["); subscripted {
		key, ok := strings.CutSuffix(strings.TrimPrefix(rest, "'"), "']")
		if ok && strings.HasPrefix(rest, "'") && (name == "metadata.labels" || name == "metadata.annotations") {
			return append(errs, invalid(path, ref.FieldPath, validation.IsQualifiedName(strings.ToLower(key)))...)
		}
		return append(errs, field.Invalid(path, ref.FieldPath, "only metadata.labels['KEY'] and metadata.annotations['KEY'] take a key"))
	}
	if !slices.Contains(allowed, ref.FieldPath) {
		errs = append(errs, field.NotSupported(path, ref.FieldPath, allowed))
	}
	return errs
}

// divisors are the units of a resource other than cpu, which has 1 and 1m. Kubernetes v1.36.3
// pkg/apis/core/validation/validation.go:2971.
var divisors = strings.Fields("1 1k 1M 1G 1T 1P 1E 1Ki 1Mi 1Gi 1Ti 1Pi 1Ei")

// validateResourceFieldRef also looks for the container, which a kubelet finds missing when it starts the pod.
func validateResourceFieldRef(ref *corev1.ResourceFieldSelector, at *field.Path, named bool, pod *corev1.Pod) field.ErrorList {
	var errs field.ErrorList
	if named && ref.ContainerName == "" {
		errs = append(errs, field.Required(at.Child("containerName"), "a volume belongs to no container"))
	}
	found := ref.ContainerName == ""
	eachContainer(pod, func(c *corev1.Container, _ *field.Path, _ bool) { found = found || c.Name == ref.ContainerName })
	if !found {
		errs = append(errs, field.NotFound(at.Child("containerName"), ref.ContainerName))
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	_, huge := HugePage(name)
	known := name == "cpu" || name == "memory" || name == "ephemeral-storage" || huge
	if kind != "limits" && kind != "requests" || !known {
		errs = append(errs, field.Invalid(at.Child("resource"), ref.Resource, "expected limits or requests of cpu, memory, ephemeral-storage or hugepages-SIZE"))
	}
	units := divisors
	if name == "cpu" {
		units = []string{"1", "1m"}
	}
	if text := ref.Divisor.String(); !ref.Divisor.IsZero() && !slices.Contains(units, text) {
		errs = append(errs, field.NotSupported(at.Child("divisor"), text, units))
	}
	return errs
}

func validateFileKeyRef(ref *corev1.FileKeySelector, at *field.Path, pod *corev1.Pod) field.ErrorList {
	errs := invalid(at.Child("key"), ref.Key, validation.IsRelaxedEnvVarName(ref.Key))
	if ref.Path == "" {
		errs = append(errs, field.Required(at.Child("path"), "expected the file's path in the volume"))
	}
	errs = append(errs, validateBelow(at.Child("path"), ref.Path)...)
	for _, v := range pod.Spec.Volumes {
		if v.Name == ref.VolumeName {
			if v.EmptyDir == nil {
				errs = append(errs, field.Invalid(at.Child("volumeName"), ref.VolumeName, "must be an emptyDir"))
			}
			return errs
		}
	}
	return append(errs, field.NotFound(at.Child("volumeName"), ref.VolumeName))
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
