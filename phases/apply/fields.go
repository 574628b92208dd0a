package apply

import "strings"

// Effect says what apply does about a field of the configuration.
type Effect int

const (
	Restarts  Effect = iota // the components that Field.Restarts names run with the new value
	Refused                 // another value is refused
	Later                   // nothing that runs changes: the value is for what is made next
	OfThisRun               // it says how apply itself goes about it
	Elsewhere               // it is for init alone; another command changes it
)

// Field is one of the configuration's fields and what a change of it does.
type Field struct {
	Path     string // as config.Fields has it, or "KubeletConfiguration.FIELD"
	Effect   Effect
	Restarts []string // in the order in which they are; "containerd" and "supervisor" end no pod
	Note     string   // what else there is to know, or the right way
}

// String is the effect in words, as docs/apply.md has it.
func (f Field) String() string {
	var text string
	switch f.Effect {
	case Restarts:
		text = "restarts " + strings.Join(f.Restarts, ", ")
	case Refused:
		text = "refused"
	case Later:
		text = "later"
	case OfThisRun:
		text = "this run"
	case Elsewhere:
		text = "elsewhere"
	}
	if f.Note != "" {
		text += ": " + f.Note
	}
	return text
}

// Fields returns every field of kubeadm's InitConfiguration and ClusterConfiguration, those of the other documents that
// have an effect of their own, and what apply does about each.
func Fields() []Field {
	const (
		etcd, apiServer, controllerManager, scheduler = "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"
		tokens                                        = "slipway token"
		addOns                                        = "slipway init phase addon"
		notHere                                       = "slipway refuses the field itself"
	)
	all := []string{etcd, apiServer, controllerManager, scheduler}
	fields := []Field{
		{"bootstrapTokens[].token", Elsewhere, nil, tokens},
		{"bootstrapTokens[].description", Elsewhere, nil, tokens},
		{"bootstrapTokens[].ttl", Elsewhere, nil, tokens},
		{"bootstrapTokens[].expires", Elsewhere, nil, tokens},
		{"bootstrapTokens[].usages", Elsewhere, nil, tokens},
		{"bootstrapTokens[].groups", Elsewhere, nil, tokens},
		{"dryRun", OfThisRun, nil, "as --dry-run"},
		{"nodeRegistration.name", Refused, nil, ""},
		{"nodeRegistration.criSocket", Refused, nil, ""},
		{"nodeRegistration.taints", Elsewhere, nil, "kubectl taint"},
		{"nodeRegistration.kubeletExtraArgs[].name", Elsewhere, nil, notHere},
		{"nodeRegistration.kubeletExtraArgs[].value", Elsewhere, nil, notHere},
		{"nodeRegistration.ignorePreflightErrors", OfThisRun, nil, ""},
		{"nodeRegistration.imagePullPolicy", OfThisRun, nil, "for images that this apply needs"},
		{"nodeRegistration.imagePullSerial", OfThisRun, nil, "for images that this apply needs"},
		{"localAPIEndpoint.advertiseAddress", Refused, nil, "slipway readdress"},
		{"localAPIEndpoint.bindPort", Refused, nil, ""},
		{"certificateKey", Elsewhere, nil, "slipway init phase upload-certs"},
		{"skipPhases", OfThisRun, nil, "what those phases write is left alone"},
		{"patches.directory", Restarts, nil, "what the patches change"},
		{"timeouts.controlPlaneComponentHealthCheck", Restarts, all, "it is in the startup probes"},
		{"timeouts.kubeletHealthCheck", Elsewhere, nil, notHere},
		{"timeouts.kubernetesAPICall", OfThisRun, nil, ""},
		{"timeouts.etcdAPICall", OfThisRun, nil, "which makes no call to etcd"},
		{"timeouts.tlsBootstrap", Elsewhere, nil, notHere},
		{"timeouts.discovery", Elsewhere, nil, notHere},
		{"timeouts.upgradeManifests", Elsewhere, nil, notHere},

		{"etcd.local.imageRepository", Restarts, []string{etcd}, ""},
		{"etcd.local.imageTag", Restarts, []string{etcd}, "an older minor version is refused"},
		{"etcd.local.dataDir", Refused, nil, "slipway etcd snapshot"},
		{"etcd.local.extraArgs[].name", Restarts, []string{etcd}, ""},
		{"etcd.local.extraArgs[].value", Restarts, []string{etcd}, ""},
		{"etcd.local.extraEnvs", Restarts, []string{etcd}, ""},
		{"etcd.local.serverCertSANs", Restarts, []string{etcd}, "a name that goes stays in the certificate until it is renewed"},
		{"etcd.local.peerCertSANs", Restarts, []string{etcd}, "a name that goes stays in the certificate until it is renewed"},
		{"etcd.external.endpoints", Restarts, []string{apiServer}, "one of those in use must stay; from or to a local etcd is refused"},
		{"etcd.external.httpEndpoints", Later, nil, ""},
		{"etcd.external.caFile", Restarts, []string{apiServer}, ""},
		{"etcd.external.certFile", Restarts, []string{apiServer}, ""},
		{"etcd.external.keyFile", Restarts, []string{apiServer}, ""},
		{"networking.serviceSubnet", Refused, nil, "ServiceCIDR objects add addresses"},
		{"networking.podSubnet", Restarts, []string{controllerManager}, "where there was none; another is refused"},
		{"networking.dnsDomain", Refused, nil, ""},
		{"kubernetesVersion", Restarts, []string{apiServer, controllerManager, scheduler}, "an older version, and more than one minor version up, is refused"},
		{"controlPlaneEndpoint", Refused, nil, "apiServer.certSANs adds a name to the certificate"},
		{"apiServer.certSANs", Restarts, []string{apiServer}, "a name that goes stays in the certificate until it is renewed"},
		{"dns.imageRepository", Elsewhere, nil, addOns},
		{"dns.imageTag", Elsewhere, nil, addOns},
		{"dns.disabled", Elsewhere, nil, addOns},
		{"proxy.disabled", Elsewhere, nil, addOns},
		{"certificatesDir", Refused, nil, ""},
		{"imageRepository", Restarts, append([]string{"containerd"}, all...), ""},
		{"featureGates", Later, nil, "new keys"},
		{"clusterName", Restarts, []string{controllerManager}, "kubeconfigs keep the name that they have"},
		{"encryptionAlgorithm", Later, nil, "new keys"},
		{"certificateValidityPeriod", Later, nil, "slipway certs renew"},
		{"caCertificateValidityPeriod", Later, nil, "new authorities"},

		{"KubeletConfiguration", Restarts, []string{"supervisor"}, "all fields but those below"},
		{"KubeletConfiguration.staticPodPath", Refused, nil, ""},
		{"KubeletConfiguration.containerRuntimeEndpoint", Refused, nil, "as nodeRegistration.criSocket"},
		{"KubeletConfiguration.cgroupDriver", Refused, nil, ""},
		{"KubeletConfiguration.cgroupRoot", Refused, nil, ""},
		{"KubeletConfiguration.clusterDomain", Refused, nil, "as networking.dnsDomain"},
		{"KubeProxyConfiguration", Elsewhere, nil, addOns},
	}
	for _, c := range []struct{ document, pod string }{{"apiServer", apiServer}, {"controllerManager", controllerManager}, {"scheduler", scheduler}} {
		for _, field := range []string{"extraArgs[].name", "extraArgs[].value", "extraEnvs", "extraVolumes[].name", "extraVolumes[].hostPath",
			"extraVolumes[].mountPath", "extraVolumes[].readOnly", "extraVolumes[].pathType"} {
			fields = append(fields, Field{c.document + "." + field, Restarts, []string{c.pod}, ""})
		}
	}
	return fields
}
