// Package apply changes the configuration of a control plane that runs, and goes back where the change does not run.
package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/templates"
)

// Node is what makes a control-plane node the one that it is, as its files say: what is on disk, or what a
// configuration would put there.
type Node struct {
	Name      string // of the node; "" where no file tells
	Server    string // URL by which administrators know the API server; "" where no file tells
	Manifests string // staticPodPath
	Kubelet   *kubeletv1beta1.KubeletConfiguration
	Pods      map[string]*corev1.Pod // by component; one that does not run here is not in it
}

// ErrNoControlPlane is the absence of a control plane to change.
var ErrNoControlPlane = errors.New("there is no control plane on this machine")

// OnDisk returns the node that the files describe. Without any it is ErrNoControlPlane.
func OnDisk(files artifact.Store, paths config.Paths) (*Node, error) {
	f, err := files.ReadFile(paths.KubeletConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %q is missing", ErrNoControlPlane, paths.KubeletConfig)
	}
	if err != nil {
		return nil, err
	}
	n := &Node{Pods: map[string]*corev1.Pod{}}
	if n.Kubelet, err = kubeletconfig.Decode(f.Data); err != nil {
		return nil, fmt.Errorf("reading %q: %w", paths.KubeletConfig, err)
	}
	n.Manifests = n.Kubelet.StaticPodPath
	for _, name := range plane.Components() {
		if err := n.readPod(files, name); err != nil {
			return nil, err
		}
	}
	if n.Pods["kube-apiserver"] == nil {
		return nil, fmt.Errorf("%w: %q has no manifest of kube-apiserver", ErrNoControlPlane, n.Manifests)
	}
	for _, spec := range kubeconfig.Table() {
		server, user, err := readKubeconfig(files, paths.Kubeconfig(spec.File))
		if err != nil {
			return nil, err
		}
		if node, ok := strings.CutPrefix(user, "system:node:"); ok && spec.Name == "kubelet" {
			n.Name = node
		}
		if spec.Shared && n.Server == "" {
			n.Server = server
		}
	}
	return n, nil
}

func (n *Node) readPod(files artifact.Store, name string) error {
	path := filepath.Join(n.Manifests, name+".yaml")
	f, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if n.Pods[name], err = templates.Decode(f.Data); err != nil {
		return fmt.Errorf("reading %q: %w; mend it, or put back the version before", path, err)
	}
	return nil
}

// readKubeconfig returns where a kubeconfig leads and as whom; nothing where it is missing or has other credentials
// than a certificate. What is wrong with it is for the phase that writes it to say.
func readKubeconfig(files artifact.Store, path string) (server, user string, err error) {
	f, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", nil
	}
	if err != nil {
		return "", "", err
	}
	cluster, named, err := document.Load(f.Data, filepath.Dir(path), func(path string) ([]byte, error) {
		f, err := files.ReadFile(path)
		return f.Data, err
	})
	if err != nil {
		return "", "", nil
	}
	if certs, err := pki.ParseCertificates(named.User.ClientCertificateData); err == nil {
		user = certs[0].Subject.CommonName
	}
	return strings.TrimSuffix(cluster.Server, "/"), user, nil
}

// Configured returns the node that cfg describes.
func Configured(cfg *config.Cluster, ca controlplane.SigningCA) (*Node, error) {
	n := &Node{Name: cfg.NodeName, Manifests: cfg.Paths.Manifests, Pods: map[string]*corev1.Pod{}}
	file, err := kubelet.File(cfg)
	if err != nil {
		return nil, err
	}
	if n.Kubelet, err = kubeletconfig.Decode(file.Data); err != nil {
		return nil, fmt.Errorf("reading the KubeletConfiguration that was rendered: %w", err)
	}
	member, err := etcd.Manifests(cfg)
	if err != nil {
		return nil, err
	}
	components, err := controlplane.Manifests(cfg, ca)
	if err != nil {
		return nil, err
	}
	for _, f := range append(member, components...) {
		pod, err := templates.Decode(f.Data)
		if err != nil {
			return nil, fmt.Errorf("reading the manifest %q that was rendered: %w", f.Path, err)
		}
		n.Pods[strings.TrimSuffix(filepath.Base(f.Path), ".yaml")] = pod
	}
	n.Server = kubeconfig.SharedServer(cfg)
	return n, nil
}

// Endpoint returns where the node's API server answers.
func (n *Node) Endpoint() (netip.Addr, uint16, error) {
	address, err := netip.ParseAddr(n.flag("kube-apiserver", "advertise-address"))
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("reading --advertise-address of kube-apiserver: %w", err)
	}
	port, err := strconv.ParseUint(n.flag("kube-apiserver", "secure-port"), 10, 16)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("reading --secure-port of kube-apiserver: %w", err)
	}
	return address, uint16(port), nil
}

// flag returns the value of a component's flag, the last where it is given more than once; "" where it is not.
func (n *Node) flag(component, name string) string {
	pod := n.Pods[component]
	if pod == nil || len(pod.Spec.Containers) == 0 {
		return ""
	}
	c, value := pod.Spec.Containers[0], ""
	for _, arg := range append(append([]string(nil), c.Command...), c.Args...) {
		if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			value = v
		}
	}
	return value
}

// tag returns the tag of a component's image; "" for none.
func (n *Node) tag(component string) string {
	pod := n.Pods[component]
	if pod == nil || len(pod.Spec.Containers) == 0 {
		return ""
	}
	return plane.Tag(pod.Spec.Containers[0].Image)
}

// volume returns the host path of a component's volume; "" where there is none of that name.
func (n *Node) volume(component, name string) string {
	pod := n.Pods[component]
	if pod == nil {
		return ""
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == name && v.HostPath != nil {
			return v.HostPath.Path
		}
	}
	return ""
}
