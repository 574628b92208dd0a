package config

// How the documents of kubeadm.k8s.io/v1beta3 differ from those of v1beta4.

// newFields are those of v1beta4 that v1beta3 does not have, goneFields those that went before it, and mapFields those that
// were a mapping and are a list.
var (
	newFields = map[string][]string{
		"InitConfiguration": {"dryRun", "nodeRegistration.imagePullSerial", "timeouts"},
		"JoinConfiguration": {"dryRun", "nodeRegistration.imagePullSerial", "timeouts"},
		"ClusterConfiguration": {"apiServer.extraEnvs", "controllerManager.extraEnvs", "scheduler.extraEnvs", "etcd.local.extraEnvs",
			"etcd.external.httpEndpoints", "dns.disabled", "proxy", "encryptionAlgorithm", "certificateValidityPeriod", "caCertificateValidityPeriod"},
	}
	goneFields = map[string][]string{"ClusterConfiguration": {"useHyperKubeImage", "dns.type"}}
	mapFields  = map[string][]string{
		"InitConfiguration":    {"nodeRegistration.kubeletExtraArgs"},
		"JoinConfiguration":    {"nodeRegistration.kubeletExtraArgs"},
		"ClusterConfiguration": {"apiServer.extraArgs", "controllerManager.extraArgs", "scheduler.extraArgs", "etcd.local.extraArgs"},
	}
)
