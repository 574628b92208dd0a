package config

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The documents of kubeadm.k8s.io/v1beta4, as kubeadm 1.36 reads them. Only their shape is here: what a field means to
// slipway is decided where the Cluster is built, and the fields without a meaning yet are listed in inert.go.

type initConfiguration struct {
	metav1.TypeMeta  `json:",inline"`
	BootstrapTokens  []bootstrapToken `json:"bootstrapTokens"`
	PlanOnly         bool             `json:"dryRun"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	LocalAPIEndpoint apiEndpoint      `json:"localAPIEndpoint"`
	CertificateKey   string           `json:"certificateKey"`
	SkipPhases       []string         `json:"skipPhases"`
	Patches          patchesOptions   `json:"patches"`
	Timeouts         timeouts         `json:"timeouts"`
}

type bootstrapToken struct {
	Token       string           `json:"token"`
	Description string           `json:"description"`
	TTL         *metav1.Duration `json:"ttl"`
	Expires     *metav1.Time     `json:"expires"`
	Usages      []string         `json:"usages"`
	Groups      []string         `json:"groups"`
}

type nodeRegistration struct {
	Name                  string            `json:"name"`
	CRISocket             string            `json:"criSocket"`
	Taints                []corev1.Taint    `json:"taints"`
	KubeletExtraArgs      []arg             `json:"kubeletExtraArgs"`
	IgnorePreflightErrors []string          `json:"ignorePreflightErrors"`
	ImagePullPolicy       corev1.PullPolicy `json:"imagePullPolicy"`
	ImagePullSerial       *bool             `json:"imagePullSerial"`
}

type apiEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress"`
	BindPort         int    `json:"bindPort"`
}

type patchesOptions struct {
	Directory string `json:"directory"`
}

type timeouts struct {
	ControlPlaneComponentHealthCheck *metav1.Duration `json:"controlPlaneComponentHealthCheck"`
	KubeletHealthCheck               *metav1.Duration `json:"kubeletHealthCheck"`
	KubernetesAPICall                *metav1.Duration `json:"kubernetesAPICall"`
	EtcdAPICall                      *metav1.Duration `json:"etcdAPICall"`
	TLSBootstrap                     *metav1.Duration `json:"tlsBootstrap"`
	Discovery                        *metav1.Duration `json:"discovery"`
	UpgradeManifests                 *metav1.Duration `json:"upgradeManifests"`
}

type clusterConfiguration struct {
	metav1.TypeMeta             `json:",inline"`
	Etcd                        etcdOptions      `json:"etcd"`
	Networking                  networking       `json:"networking"`
	KubernetesVersion           string           `json:"kubernetesVersion"`
	ControlPlaneEndpoint        string           `json:"controlPlaneEndpoint"`
	APIServer                   apiServer        `json:"apiServer"`
	ControllerManager           component        `json:"controllerManager"`
	Scheduler                   component        `json:"scheduler"`
	DNS                         dnsAddon         `json:"dns"`
	Proxy                       proxyAddon       `json:"proxy"`
	CertificatesDir             string           `json:"certificatesDir"`
	ImageRepository             string           `json:"imageRepository"`
	FeatureGates                map[string]bool  `json:"featureGates"`
	ClusterName                 string           `json:"clusterName"`
	EncryptionAlgorithm         KeyAlgorithm     `json:"encryptionAlgorithm"`
	CertificateValidityPeriod   *metav1.Duration `json:"certificateValidityPeriod"`
	CACertificateValidityPeriod *metav1.Duration `json:"caCertificateValidityPeriod"`
}

type etcdOptions struct {
	Local    *localEtcd    `json:"local"`
	External *externalEtcd `json:"external"`
}

type localEtcd struct {
	imageMeta      `json:",inline"`
	DataDir        string          `json:"dataDir"`
	ExtraArgs      []arg           `json:"extraArgs"`
	ExtraEnvs      []corev1.EnvVar `json:"extraEnvs"`
	ServerCertSANs []string        `json:"serverCertSANs"`
	PeerCertSANs   []string        `json:"peerCertSANs"`
}

type externalEtcd struct {
	Endpoints     []string `json:"endpoints"`
	HTTPEndpoints []string `json:"httpEndpoints"`
	CAFile        string   `json:"caFile"`
	CertFile      string   `json:"certFile"`
	KeyFile       string   `json:"keyFile"`
}

type networking struct {
	ServiceSubnet string `json:"serviceSubnet"`
	PodSubnet     string `json:"podSubnet"`
	DNSDomain     string `json:"dnsDomain"`
}

type component struct {
	ExtraArgs    []arg           `json:"extraArgs"`
	ExtraVolumes []hostPathMount `json:"extraVolumes"`
	ExtraEnvs    []corev1.EnvVar `json:"extraEnvs"`
}

type apiServer struct {
	component `json:",inline"`
	CertSANs  []string `json:"certSANs"`
}

type arg struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type hostPathMount struct {
	Name      string              `json:"name"`
	HostPath  string              `json:"hostPath"`
	MountPath string              `json:"mountPath"`
	ReadOnly  bool                `json:"readOnly"`
	PathType  corev1.HostPathType `json:"pathType"`
}

type imageMeta struct {
	ImageRepository string `json:"imageRepository"`
	ImageTag        string `json:"imageTag"`
}

type dnsAddon struct {
	imageMeta `json:",inline"`
	Disabled  bool `json:"disabled"`
}

type proxyAddon struct {
	Disabled bool `json:"disabled"`
}
