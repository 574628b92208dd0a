package kubelet

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases/config"
)

// Shared returns the KubeletConfiguration that joining nodes start from, as kubeadm puts it into the cluster: what is
// about this machine is not in it. A joining node's kubeadm adds the runtime's socket, and its kubelet asks the runtime
// for the cgroup driver.
func Shared(cfg *config.Cluster) ([]byte, error) {
	o, err := options(cfg)
	if err != nil {
		return nil, fmt.Errorf("planning the KubeletConfiguration of joining nodes: %w", err)
	}
	o.ResolvConf = "" // each node's kubeadm finds its own
	kubelet, err := kubeletconfig.New(o, cfg.Kubelet)
	if err != nil {
		return nil, err
	}
	// The document is checked for this node, so it has this node's values even where the user gave none.
	host := config.NewPaths("")
	if kubelet.StaticPodPath == o.StaticPodPath {
		kubelet.StaticPodPath = host.Manifests
	}
	if kubelet.ContainerRuntimeEndpoint == o.ContainerRuntimeEndpoint {
		kubelet.ContainerRuntimeEndpoint = ""
	}
	if pki := config.NewPaths(cfg.Instance).PKI; kubelet.Authentication.X509.ClientCAFile == filepath.Join(pki, "ca.crt") {
		kubelet.Authentication.X509.ClientCAFile = filepath.Join(host.PKI, "ca.crt")
	}
	given, err := userCgroupDriver(cfg)
	if err != nil {
		return nil, err
	}
	kubelet.CgroupDriver = cmp.Or(given, "systemd")
	return kubeletconfig.Marshal(kubelet)
}

// userCgroupDriver returns the user's own choice, "" for none.
func userCgroupDriver(cfg *config.Cluster) (string, error) {
	if cfg.Kubelet == nil {
		return "", nil
	}
	user, err := kubeletconfig.Decode(cfg.Kubelet)
	if err != nil {
		return "", fmt.Errorf("reading the user's KubeletConfiguration: %w", err)
	}
	return user.CgroupDriver, nil
}
