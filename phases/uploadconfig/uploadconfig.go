// Package uploadconfig puts the configuration into the cluster, where joining nodes read it.
package uploadconfig

import (
	"crypto/sha256"
	_ "embed"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/clusteradmins"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/objects"
)

//go:embed kubeadm.yaml
var kubeadmRoles string

//go:embed kubelet.yaml
var kubeletRoles string

// namespace is where kubeadm keeps its objects.
const namespace = "kube-system"

// hashAnnotation says that a configuration is as slipway made it: kubeadm upgrade replaces such a one by its own, and
// keeps one that a user wrote. kubeadm v1.36.3 constants.ComponentConfigHashAnnotationKey.
const hashAnnotation = "kubeadm.kubernetes.io/component-config.hash"

// New returns the phase "upload-config".
func New() phases.Phase {
	return phases.Phase{
		Name:  "upload-config",
		Short: "Put the configuration into the cluster, where joining nodes read it",
		Phases: []phases.Phase{
			{Name: "kubeadm", Short: "The ClusterConfiguration, in the ConfigMap kubeadm-config", Begin: objects.Applying(Kubeadm), BeginAfter: []string{clusteradmins.Name}},
			{Name: "kubelet", Short: "The KubeletConfiguration of joining nodes, in the ConfigMap kubelet-config", Begin: objects.Applying(Kubelet), BeginAfter: []string{clusteradmins.Name}},
		},
	}
}

// Kubeadm returns the ConfigMap kubeadm-config and who may read it.
func Kubeadm(c *config.Cluster) ([]*unstructured.Unstructured, error) {
	data, err := config.ClusterConfiguration(c)
	if err != nil {
		return nil, fmt.Errorf("writing down the ClusterConfiguration: %w", err)
	}
	roles, err := objects.Render(kubeadmRoles, nil)
	if err != nil {
		return nil, err
	}
	return append([]*unstructured.Unstructured{
		objects.ConfigMap(namespace, "kubeadm-config", map[string]string{"ClusterConfiguration": string(data)}, nil),
	}, roles...), nil
}

// Kubelet returns the ConfigMap kubelet-config and who may read it.
func Kubelet(c *config.Cluster) ([]*unstructured.Unstructured, error) {
	data, err := kubelet.Shared(c)
	if err != nil {
		return nil, err
	}
	roles, err := objects.Render(kubeletRoles, nil)
	if err != nil {
		return nil, err
	}
	return append([]*unstructured.Unstructured{
		objects.ConfigMap(namespace, "kubelet-config", map[string]string{"kubelet": string(data)}, Signature(c.Kubelet, data)),
	}, roles...), nil
}

// Signature returns the annotation of a component's configuration: none if the user wrote a part of it.
func Signature(user, data []byte) map[string]string {
	if user != nil {
		return nil
	}
	return map[string]string{hashAnnotation: fmt.Sprintf("sha256:%x", sha256.Sum256(data))}
}
