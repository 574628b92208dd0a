package config

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// placeholders are what kubeadm prints for what it takes from the host: v1.36.3 constants and util/config.
const (
	placeholderNode     = "node"
	placeholderAddress  = "1.2.3.4"
	placeholderEndpoint = "kube-apiserver:6443"
	kubeadmsSocket      = "unix:///var/run/containerd/containerd.sock"
)

// Defaults returns the cluster that an empty file describes, with kubeadm's placeholders for what is the host's.
func Defaults() (*Cluster, error) {
	facts := anyHost()
	facts.Hostname, facts.DefaultAddresses = placeholderNode, []netip.Addr{netip.MustParseAddr(placeholderAddress)}
	c, _, err := Load(Options{Facts: facts})
	return c, err
}

// InitDefaults returns the InitConfiguration and the ClusterConfiguration of Defaults, as one file.
func InitDefaults() ([]byte, error) {
	c, err := Defaults()
	if err != nil {
		return nil, err
	}
	d := initDocument(c)
	d.NodeRegistration.Taints = nil // printed as null: the taint of every control-plane node
	d.BootstrapTokens[0].Token = placeholderToken
	own, err := document(d)
	if err != nil {
		return nil, err
	}
	shared, err := ClusterConfiguration(c)
	if err != nil {
		return nil, err
	}
	return append(append(own, "---\n"...), shared...), nil
}

// KubeProxyDefaults returns the part of kube-proxy's configuration that does not follow from the cluster.
func KubeProxyDefaults() ([]byte, error) {
	return document(map[string]any{
		"apiVersion": kubeProxyVersion, "kind": "KubeProxyConfiguration", "bindAddress": "0.0.0.0",
		"clientConnection": map[string]any{"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
	})
}

// The defaults below are kubeadm's own: its commands read these documents.

// JoinDefaults returns a JoinConfiguration.
func JoinDefaults() ([]byte, error) {
	serial := true
	return document(joinConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: kubeadmVersion, Kind: "JoinConfiguration"},
		CACertPath: "/etc/kubernetes/pki/ca.crt",
		Discovery: discovery{
			BootstrapToken:    &tokenDiscovery{Token: placeholderToken, APIServerEndpoint: placeholderEndpoint, UnsafeSkipCAVerification: true},
			TLSBootstrapToken: placeholderToken,
		},
		NodeRegistration: nodeRegistration{
			Name: placeholderNode, CRISocket: kubeadmsSocket, ImagePullPolicy: corev1.PullIfNotPresent, ImagePullSerial: &serial,
		},
		Timeouts: kubeadmsTimeouts(),
	})
}

// ResetDefaults returns a ResetConfiguration.
func ResetDefaults() ([]byte, error) {
	return document(resetConfiguration{
		TypeMeta:        metav1.TypeMeta{APIVersion: kubeadmVersion, Kind: "ResetConfiguration"},
		CertificatesDir: NewPaths("").PKI, CRISocket: kubeadmsSocket, Timeouts: kubeadmsTimeouts(),
	})
}

// UpgradeDefaults returns an UpgradeConfiguration.
func UpgradeDefaults() ([]byte, error) {
	on := true
	return document(upgradeConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeadmVersion, Kind: "UpgradeConfiguration"},
		Apply:    upgradeApply{CertificateRenewal: &on, EtcdUpgrade: &on, ImagePullPolicy: corev1.PullIfNotPresent, ImagePullSerial: &on},
		Node:     upgradeNode{CertificateRenewal: &on, EtcdUpgrade: &on, ImagePullPolicy: corev1.PullIfNotPresent, ImagePullSerial: &on},
		Plan:     upgradePlan{EtcdUpgrade: &on},
		Timeouts: kubeadmsTimeouts(),
	})
}

// kubeadmsTimeouts are those of kubeadm v1.36.3 constants.go.
func kubeadmsTimeouts() timeouts {
	of := func(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }
	return timeouts{
		ControlPlaneComponentHealthCheck: of(defaultHealthCheckTimeout), KubeletHealthCheck: of(4 * time.Minute),
		KubernetesAPICall: of(defaultAPICallTimeout), EtcdAPICall: of(DefaultEtcdAPICall),
		TLSBootstrap: of(5 * time.Minute), Discovery: of(5 * time.Minute), UpgradeManifests: of(5 * time.Minute),
	}
}
