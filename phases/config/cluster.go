// Package config turns kubeadm v1beta4 documents, flags and host facts into one frozen description of the cluster.
package config

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Cluster is what the phases work from: parsed, defaulted and validated once by Load. It holds no pointers into the
// user's documents and is never changed after Load returns, so phases may share it without locks.
type Cluster struct {
	Paths    Paths
	Instance string // "" for the host's only instance
	PlanOnly bool   // the file asks that changes are shown, not made

	NodeName             string
	ClusterName          string
	KubernetesVersion    string // "v1.36.3": with the leading v
	AdvertiseAddress     netip.Addr
	BindPort             uint16
	ControlPlaneEndpoint string // "host:port", or "" where no stable endpoint is configured

	ServiceSubnets []netip.Prefix // one, or two for dual stack
	PodSubnets     []netip.Prefix // none, one or two
	DNSDomain      string

	ImageRepository string
	Images          Images

	Etcd              Etcd
	APIServer         Component
	ControllerManager Component
	Scheduler         Component
	CertSANs          []string // apiServer.certSANs and --apiserver-cert-extra-sans, in the user's order

	FeatureGates map[string]bool

	KeyAlgorithm        KeyAlgorithm
	CertificateValidity time.Duration
	CAValidity          time.Duration

	// CRISocket is the unix socket of a runtime that the user brings, as "unix:///path". Empty means slipway's own
	// containerd at Paths.ContainerdSocket.
	CRISocket       string
	ImagePullPolicy corev1.PullPolicy
	ImagePullSerial bool

	// Kubelet is the user's KubeletConfiguration document (JSON), or nil: as given, but staticPodPath and
	// containerRuntimeEndpoint in the form of Paths.Manifests and CRISocket. kubeletconfig merges it.
	Kubelet []byte

	// What is written into the cluster once its API server is ready.
	BootstrapTokens []BootstrapToken
	UploadCerts     bool   // whether the certificate authorities are put into the cluster, encrypted, for further control-plane nodes
	CertificateKey  string // 64 hex digits, with which they are encrypted; "" has a key made
	Taints          []corev1.Taint
	DNSDisabled     bool
	ProxyDisabled   bool
	KubeProxy       []byte // the user's KubeProxyConfiguration document (JSON), or nil

	Patches               []Patch
	IgnorePreflightErrors []string
	SkipPhases            []string
	Timeouts              Timeouts
	Facts                 HostFacts
}

// Images are complete references, overrides applied.
type Images struct{ Etcd, APIServer, ControllerManager, Scheduler, Pause, CoreDNS, KubeProxy string }

// BootstrapToken lets a node join. Its fields are kubeadm's, defaults applied.
type BootstrapToken struct {
	ID, Secret  string // "abcdef" and "0123456789abcdef" of abcdef.0123456789abcdef; both "" have a token made
	Description string
	TTL         time.Duration // counted from when it is written; 0 never expires, unless Expires is set
	Expires     time.Time     // zero: TTL counts
	Usages      []string      // signing, authentication
	Groups      []string
}

// Arg is one extra flag, without leading dashes. A name may occur more than once; order is the user's.
type Arg struct{ Name, Value string }

// HostPathMount is one entry of extraVolumes.
type HostPathMount struct {
	Name, HostPath, MountPath string
	ReadOnly                  bool
	PathType                  corev1.HostPathType
}

// Component is what a user may change about one control-plane component.
type Component struct {
	ExtraArgs    []Arg
	ExtraEnvs    []corev1.EnvVar
	ExtraVolumes []HostPathMount
}

// Etcd has exactly one of Local and External set.
type Etcd struct {
	Local    *LocalEtcd
	External *ExternalEtcd
}

// LocalEtcd is a stacked member that runs as a static pod on this node.
type LocalEtcd struct {
	DataDir        string
	ExtraArgs      []Arg
	ExtraEnvs      []corev1.EnvVar
	ServerCertSANs []string
	PeerCertSANs   []string
}

// ExternalEtcd is an etcd cluster that slipway only talks to.
type ExternalEtcd struct {
	Endpoints                 []string
	HTTPEndpoints             []string
	CAFile, CertFile, KeyFile string
}

// KeyAlgorithm takes kubeadm's values of encryptionAlgorithm.
type KeyAlgorithm string

const (
	RSA2048   KeyAlgorithm = "RSA-2048"
	RSA3072   KeyAlgorithm = "RSA-3072"
	RSA4096   KeyAlgorithm = "RSA-4096"
	ECDSAP256 KeyAlgorithm = "ECDSA-P256" // slipway's default (docs/decisions); kubeadm's is RSA-2048
	ECDSAP384 KeyAlgorithm = "ECDSA-P384"
)

// Patch is one file of the patches directory, read once at load.
type Patch struct {
	Target string // etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kubeletconfiguration, corednsdeployment
	Type   string // strategic, merge, json
	File   string // for messages
	Data   []byte // JSON
}

// Timeouts are kubeadm's, those that slipway acts on.
type Timeouts struct {
	ControlPlaneComponentHealthCheck time.Duration // 4 m
	KubernetesAPICall                time.Duration // 1 m
	EtcdAPICall                      time.Duration // 2 m
}

// HostFacts is everything about the host that the rendered files depend on. It is gathered once, or supplied by the
// user to render for another machine, so that the same input gives the same bytes anywhere.
type HostFacts struct {
	Hostname         string            `json:"hostname"`
	DefaultAddresses []netip.Addr      `json:"defaultAddresses"` // source address of the default route, IPv4 before IPv6; else the first global one
	CADirs           []string          `json:"caDirs"`           // which of kubeadm's auxiliary CA directories exist
	ProxyEnv         map[string]string `json:"proxyEnv"`         // *_proxy variables, by their own spelling
	CgroupDriver     string            `json:"cgroupDriver"`     // "systemd" or "cgroupfs"
	ResolvConf       string            `json:"resolvConf"`       // "/run/systemd/resolve/resolv.conf" with systemd-resolved active, else ""
	Systemd          bool              `json:"systemd"`          // PID 1 is systemd
	RestrictOOMScore bool              `json:"restrictOOMScore"` // CAP_SYS_RESOURCE is missing: oom_score_adj cannot be lowered
	Snapshotter      string            `json:"snapshotter"`      // of slipway's own containerd; "" is overlayfs
	CNIBinDir        string            `json:"cniBinDir"`        // where CNI plugins are; "" is /opt/cni/bin
	Executable       string            `json:"executable"`       // absolute path of the running slipway binary, for units
}
