package config

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// components takes over what the user adds to the components of Kubernetes.
func (b *builder) components() {
	given := b.docs.cluster
	b.out.APIServer = b.component("apiServer", given.APIServer.component)
	b.out.ControllerManager = b.component("controllerManager", given.ControllerManager)
	b.out.Scheduler = b.component("scheduler", given.Scheduler)
}

func (b *builder) component(field string, c component) Component {
	return Component{
		ExtraArgs:    b.args(field+".extraArgs", c.ExtraArgs),
		ExtraEnvs:    b.envs(field+".extraEnvs", c.ExtraEnvs),
		ExtraVolumes: b.volumes(field+".extraVolumes", c.ExtraVolumes),
	}
}

func (b *builder) args(field string, args []arg) []Arg {
	var out []Arg
	for i, a := range args {
		at := element(field, i)
		switch {
		case a.Name == "":
			b.problemf(at, "the argument has no name")
		case strings.HasPrefix(a.Name, "-"):
			b.problemf(at+".name", "%q: leave out the dashes: %q", a.Name, strings.TrimLeft(a.Name, "-"))
		case strings.ContainsFunc(a.Name, func(r rune) bool { return r == '=' || unicode.IsSpace(r) || unicode.IsControl(r) }):
			b.problemf(at+".name", "%q is not the name of a flag; its value goes to %q", a.Name, "value")
		}
		out = append(out, Arg(a))
	}
	return out
}

// envs takes over variables that a static pod can have: the kubelet refuses references to other objects in it.
func (b *builder) envs(field string, envs []corev1.EnvVar) []corev1.EnvVar {
	var out []corev1.EnvVar
	for i, e := range envs {
		at := element(field, i)
		if reasons := validation.IsRelaxedEnvVarName(e.Name); len(reasons) > 0 {
			b.problemf(at+".name", "%s", quoted(e.Name, reasons[0]))
		}
		if from := e.ValueFrom; from != nil {
			switch {
			case e.Value != "":
				b.problemf(at, "value and valueFrom are both set; keep one")
			case from.ConfigMapKeyRef != nil, from.SecretKeyRef != nil:
				b.problemf(at+".valueFrom", "a static pod cannot refer to ConfigMaps or Secrets; write the value")
			case from.FileKeyRef != nil:
				b.problemf(at+".valueFrom", "fileKeyRef is not supported; write the value")
			case from.FieldRef == nil && from.ResourceFieldRef == nil:
				b.problemf(at+".valueFrom", "names no source; set fieldRef or resourceFieldRef")
			case from.FieldRef != nil && from.ResourceFieldRef != nil:
				b.problemf(at+".valueFrom", "fieldRef and resourceFieldRef are both set; keep one")
			}
			e.ValueFrom = from.DeepCopy()
			if e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.APIVersion == "" {
				e.ValueFrom.FieldRef.APIVersion = "v1"
			}
		}
		out = append(out, e)
	}
	return out
}

func (b *builder) volumes(field string, volumes []hostPathMount) []HostPathMount {
	types := []string{
		string(corev1.HostPathUnset), string(corev1.HostPathDirectoryOrCreate), string(corev1.HostPathDirectory),
		string(corev1.HostPathFileOrCreate), string(corev1.HostPathFile), string(corev1.HostPathSocket),
		string(corev1.HostPathCharDev), string(corev1.HostPathBlockDev),
	}
	var out []HostPathMount
	byName, byPath := map[string]int{}, map[string]int{}
	for i, v := range volumes {
		at := element(field, i)
		if reasons := validation.IsDNS1123Label(v.Name); len(reasons) > 0 {
			b.problemf(at+".name", "%s", quoted(v.Name, reasons[0]))
		}
		b.required(at+".hostPath", v.HostPath)
		b.required(at+".mountPath", v.MountPath)
		if strings.Contains(v.MountPath, ":") {
			b.problemf(at+".mountPath", "%q may not contain a colon", v.MountPath)
		}
		if !slices.Contains(types, string(v.PathType)) {
			b.problemf(at+".pathType", "%q: wanted %s%s", v.PathType, alternatives(types[1:]), didYouMean(string(v.PathType), types[1:]))
		}
		m := HostPathMount{v.Name, b.absolute(at+".hostPath", v.HostPath), b.absolute(at+".mountPath", v.MountPath), v.ReadOnly, v.PathType}
		if first, ok := byName[m.Name]; ok && m.Name != "" {
			b.problemf(at+".name", "%q is the name of %s too", m.Name, element(field, first))
		}
		if first, ok := byPath[m.MountPath]; ok && m.MountPath != "" {
			b.problemf(at+".mountPath", "%q is the path of %s too", m.MountPath, element(field, first))
		}
		byName[m.Name], byPath[m.MountPath] = i, i
		out = append(out, m)
	}
	return out
}

func (b *builder) required(field, value string) {
	if value == "" {
		b.problemf(field, "is missing")
	}
}

// ports reports an API server port that another component of this node has. Those of etcd are fixed; the others are
// moved by their secure-port.
func (b *builder) ports() {
	taken := map[string]string{}
	if b.out.Etcd.Local != nil {
		taken["2379"], taken["2380"], taken["2381"] = "etcd", "etcd", "etcd"
	}
	take := func(component, byDefault string, args []arg) {
		port, i := lastArg(args, "secure-port")
		if i < 0 {
			port = byDefault
		}
		taken[port] = component
	}
	take("kube-controller-manager", "10257", b.docs.cluster.ControllerManager.ExtraArgs)
	take("kube-scheduler", "10259", b.docs.cluster.Scheduler.ExtraArgs)
	if owner := taken[strconv.Itoa(int(b.out.BindPort))]; owner != "" {
		b.problemf("localAPIEndpoint.bindPort", "%d is the port of %s; choose another", b.out.BindPort, owner)
	}
}

// lastArg returns the value of an argument, the last of its name as the component reads it, and its index or -1.
func lastArg(args []arg, name string) (string, int) {
	for i, a := range slices.Backward(args) {
		if a.Name == name {
			return a.Value, i
		}
	}
	return "", -1
}
