// Package kubelet holds the phase that writes the KubeletConfiguration.
package kubelet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/kubeletconfig"
	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/patch"
	"github.com/slipway-k8s/slipway/phases/staticpod"
)

// dnsIndex is the place of the cluster's DNS service in the first service subnet: kube-dns takes the tenth address.
const dnsIndex = 10

// New returns the phase "kubelet-config".
func New() phases.Phase {
	return phases.Phase{
		Name:  "kubelet-config",
		Short: "Write the KubeletConfiguration with the directory of the static pods",
		Long:  "Write the KubeletConfiguration that the supervisor reads, and that a kubelet could take over.",
		Run:   run,
	}
}

func run(_ context.Context, env *phases.Env) error {
	file, err := File(env.Config)
	if err != nil {
		return err
	}
	if err := staticpod.PutDir(env.Files, filepath.Dir(file.Path), 0o700); err != nil {
		return err
	}
	if err := env.Files.Put(file); err != nil {
		return fmt.Errorf("writing %q: %w", file.Path, err)
	}
	return nil
}

// File returns the KubeletConfiguration as it goes to disk: the user's document and patches applied. It depends on
// cfg alone.
func File(cfg *config.Cluster) (artifact.File, error) {
	o, err := options(cfg)
	if err != nil {
		return artifact.File{}, fmt.Errorf("planning the KubeletConfiguration: %w", err)
	}
	kubelet, err := kubeletconfig.New(o, cfg.Kubelet)
	if err != nil {
		return artifact.File{}, err
	}
	if kubelet, err = patched(kubelet, cfg.Patches); err != nil {
		return artifact.File{}, err
	}
	if err := agree(kubelet, o); err != nil {
		return artifact.File{}, err
	}
	data, err := kubeletconfig.Marshal(kubelet)
	if err != nil {
		return artifact.File{}, err
	}
	return artifact.File{Path: cfg.Paths.KubeletConfig, Data: data, Mode: 0o644}, nil
}

func options(cfg *config.Cluster) (kubeletconfig.Options, error) {
	dns, err := DNSAddress(cfg)
	if err != nil {
		return kubeletconfig.Options{}, err
	}
	return kubeletconfig.Options{
		StaticPodPath:            cfg.Paths.Manifests,
		ClusterDNS:               []string{dns.String()},
		ClusterDomain:            cfg.DNSDomain,
		ClientCAFile:             filepath.Join(cfg.Paths.PKI, "ca.crt"),
		CgroupDriver:             cmp.Or(cfg.Facts.CgroupDriver, "systemd"), // the default of kubeadm
		ResolvConf:               cfg.Facts.ResolvConf,
		ContainerRuntimeEndpoint: cmp.Or(cfg.CRISocket, "unix://"+cfg.Paths.ContainerdSocket),
	}, nil
}

// DNSAddress returns the address of the cluster's DNS service.
func DNSAddress(cfg *config.Cluster) (netip.Addr, error) {
	if len(cfg.ServiceSubnets) == 0 {
		return netip.Addr{}, errors.New("no service subnet to take the DNS service's address from")
	}
	return nthAddress(cfg.ServiceSubnets[0], dnsIndex)
}

// nthAddress returns the address that is n after the first one of the subnet.
func nthAddress(subnet netip.Prefix, n int) (netip.Addr, error) {
	addr := subnet.Masked().Addr()
	for range n {
		addr = addr.Next()
	}
	if !subnet.Contains(addr) {
		return netip.Addr{}, fmt.Errorf("service subnet %s has no address number %d for the DNS service: use a larger one", subnet, n)
	}
	return addr, nil
}

func patched(cfg *kubeletv1beta1.KubeletConfiguration, patches []config.Patch) (*kubeletv1beta1.KubeletConfiguration, error) {
	data, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("marshalling the KubeletConfiguration: %w", err)
	}
	if data, err = patch.Apply(patch.KubeletConfiguration, data, patches); err != nil {
		return nil, err
	}
	return kubeletconfig.Decode(data)
}

// agree refuses a document that sends the supervisor elsewhere than the other phases write and start things.
func agree(kubelet *kubeletv1beta1.KubeletConfiguration, o kubeletconfig.Options) error {
	var problems []error
	if kubelet.StaticPodPath != o.StaticPodPath {
		problems = append(problems, fmt.Errorf("KubeletConfiguration staticPodPath is %q, but the manifests are written to %q: remove the field", kubelet.StaticPodPath, o.StaticPodPath))
	}
	if kubelet.ContainerRuntimeEndpoint != o.ContainerRuntimeEndpoint {
		problems = append(problems, fmt.Errorf("KubeletConfiguration containerRuntimeEndpoint is %q, but the pods run in %q: remove the field, or set nodeRegistration.criSocket (--cri-socket) to the same", kubelet.ContainerRuntimeEndpoint, o.ContainerRuntimeEndpoint))
	}
	return errors.Join(problems...)
}
