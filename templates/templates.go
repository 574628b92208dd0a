// Package templates renders the control plane's static pods from embedded manifests.
//
// A template is the manifest as it is without anything of the user's: it can be read as one. Every value passes the
// json function, so that no value can break out of its place. The result is decoded strictly, and what the user adds
// is then merged into the typed pod. Rendering reads no environment, clock or disk: equal values give equal pods.
package templates

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"text/template"

	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

//go:embed *.yaml.tmpl
var files embed.FS

// Etcd returns the pod of a local etcd member that starts a new cluster.
func Etcd(v EtcdValues) (*corev1.Pod, error) { return render("etcd", v, v.Extra) }

// APIServer returns the pod of kube-apiserver.
func APIServer(v APIServerValues) (*corev1.Pod, error) { return render("kube-apiserver", v, v.Extra) }

// ControllerManager returns the pod of kube-controller-manager.
func ControllerManager(v ControllerManagerValues) (*corev1.Pod, error) {
	return render("kube-controller-manager", v, v.Extra)
}

// Scheduler returns the pod of kube-scheduler.
func Scheduler(v SchedulerValues) (*corev1.Pod, error) { return render("kube-scheduler", v, v.Extra) }

func render(name string, values any, extra Extra) (*corev1.Pod, error) {
	file := name + ".yaml.tmpl"
	tmpl, err := template.New(file).Option("missingkey=error").Funcs(template.FuncMap{
		"json": encode, "hostport": hostport, "loopback": loopback,
	}).ParseFS(files, file)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", file, err)
	}
	var text bytes.Buffer
	if err := tmpl.Execute(&text, values); err != nil {
		return nil, fmt.Errorf("executing %s: %w", file, err)
	}
	pod, err := Decode(text.Bytes())
	if err != nil {
		return nil, fmt.Errorf("decoding %s: %w", file, err)
	}
	extra.mergeInto(pod)
	return pod, nil
}

// Decode returns the pod of a manifest, YAML or JSON. A field that a pod does not have, or has twice, is an error.
func Decode(manifest []byte) (*corev1.Pod, error) {
	data, err := yaml.YAMLToJSONStrict(manifest)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	strict, err := kjson.UnmarshalStrict(data, &pod)
	if err := errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	return &pod, nil
}

// Marshal returns the manifest of a pod: YAML with sorted keys, empty fields left out, ending in "status: {}" and a
// newline. It is the only form in which slipway writes pods.
func Marshal(pod *corev1.Pod) ([]byte, error) {
	data, err := yaml.Marshal(pod)
	if err != nil {
		return nil, fmt.Errorf("marshalling pod %q: %w", pod.Name, err)
	}
	return data, nil
}

// encode returns v as JSON, which is also a YAML flow value on one line.
func encode(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// hostport takes any integer as the port, for a template's numbers are int.
func hostport(addr netip.Addr, port any) string {
	return net.JoinHostPort(addr.String(), fmt.Sprint(port))
}

// loopback returns the loopback address of addr's family: etcd listens for the API server of a single-stack IPv6
// node on ::1, as kubeadm has it.
func loopback(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}
