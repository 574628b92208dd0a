package config

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The documents of kubeadm.k8s.io/v1beta4 that are for kubeadm's other commands: slipway prints and checks them.

type joinConfiguration struct {
	metav1.TypeMeta  `json:",inline"`
	PlanOnly         bool              `json:"dryRun,omitempty"`
	NodeRegistration nodeRegistration  `json:"nodeRegistration,omitzero"`
	CACertPath       string            `json:"caCertPath,omitempty"`
	Discovery        discovery         `json:"discovery"`
	ControlPlane     *joinControlPlane `json:"controlPlane,omitempty"`
	SkipPhases       []string          `json:"skipPhases,omitempty"`
	Patches          patchesOptions    `json:"patches,omitzero"`
	Timeouts         timeouts          `json:"timeouts,omitzero"`
}

type joinControlPlane struct {
	LocalAPIEndpoint apiEndpoint `json:"localAPIEndpoint,omitzero"`
	CertificateKey   string      `json:"certificateKey,omitempty"`
}

type discovery struct {
	BootstrapToken    *tokenDiscovery `json:"bootstrapToken,omitempty"`
	File              *fileDiscovery  `json:"file,omitempty"`
	TLSBootstrapToken string          `json:"tlsBootstrapToken,omitempty"`
}

type tokenDiscovery struct {
	Token                    string   `json:"token"`
	APIServerEndpoint        string   `json:"apiServerEndpoint,omitempty"`
	CACertHashes             []string `json:"caCertHashes,omitempty"`
	UnsafeSkipCAVerification bool     `json:"unsafeSkipCAVerification,omitempty"`
}

type fileDiscovery struct {
	KubeConfigPath string `json:"kubeConfigPath"`
}

type resetConfiguration struct {
	metav1.TypeMeta       `json:",inline"`
	CleanupTmpDir         bool     `json:"cleanupTmpDir,omitempty"`
	CertificatesDir       string   `json:"certificatesDir,omitempty"`
	CRISocket             string   `json:"criSocket,omitempty"`
	PlanOnly              bool     `json:"dryRun,omitempty"`
	Force                 bool     `json:"force,omitempty"`
	IgnorePreflightErrors []string `json:"ignorePreflightErrors,omitempty"`
	SkipPhases            []string `json:"skipPhases,omitempty"`
	UnmountFlags          []string `json:"unmountFlags,omitempty"`
	Timeouts              timeouts `json:"timeouts,omitzero"`
}

type upgradeConfiguration struct {
	metav1.TypeMeta `json:",inline"`
	Apply           upgradeApply `json:"apply"`
	Diff            upgradeDiff  `json:"diff"`
	Node            upgradeNode  `json:"node"`
	Plan            upgradePlan  `json:"plan"`
	Timeouts        timeouts     `json:"timeouts,omitzero"`
}

type upgradeApply struct {
	KubernetesVersion         string            `json:"kubernetesVersion,omitempty"`
	AllowExperimentalUpgrades *bool             `json:"allowExperimentalUpgrades,omitempty"`
	AllowRCUpgrades           *bool             `json:"allowRCUpgrades,omitempty"`
	CertificateRenewal        *bool             `json:"certificateRenewal,omitempty"`
	PlanOnly                  *bool             `json:"dryRun,omitempty"`
	EtcdUpgrade               *bool             `json:"etcdUpgrade,omitempty"`
	ForceUpgrade              *bool             `json:"forceUpgrade,omitempty"`
	IgnorePreflightErrors     []string          `json:"ignorePreflightErrors,omitempty"`
	Patches                   patchesOptions    `json:"patches,omitzero"`
	PrintConfig               *bool             `json:"printConfig,omitempty"`
	SkipPhases                []string          `json:"skipPhases,omitempty"`
	ImagePullPolicy           corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	ImagePullSerial           *bool             `json:"imagePullSerial,omitempty"`
}

type upgradeDiff struct {
	KubernetesVersion string `json:"kubernetesVersion,omitempty"`
	ContextLines      int    `json:"contextLines,omitempty"`
}

type upgradeNode struct {
	CertificateRenewal    *bool             `json:"certificateRenewal,omitempty"`
	PlanOnly              *bool             `json:"dryRun,omitempty"`
	EtcdUpgrade           *bool             `json:"etcdUpgrade,omitempty"`
	IgnorePreflightErrors []string          `json:"ignorePreflightErrors,omitempty"`
	SkipPhases            []string          `json:"skipPhases,omitempty"`
	Patches               patchesOptions    `json:"patches,omitzero"`
	ImagePullPolicy       corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	ImagePullSerial       *bool             `json:"imagePullSerial,omitempty"`
}

type upgradePlan struct {
	KubernetesVersion         string   `json:"kubernetesVersion,omitempty"`
	AllowExperimentalUpgrades *bool    `json:"allowExperimentalUpgrades,omitempty"`
	AllowRCUpgrades           *bool    `json:"allowRCUpgrades,omitempty"`
	PlanOnly                  *bool    `json:"dryRun,omitempty"`
	EtcdUpgrade               *bool    `json:"etcdUpgrade,omitempty"`
	IgnorePreflightErrors     []string `json:"ignorePreflightErrors,omitempty"`
	PrintConfig               *bool    `json:"printConfig,omitempty"`
}
