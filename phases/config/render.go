package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// ClusterConfiguration returns the cluster as a kubeadm v1beta4 document: what all control-plane nodes share, for
// ConfigMap kubeadm-config. Read back, beside the same InitConfiguration, it makes the same Cluster. What kubeadm and
// slipway have different defaults for is always in it.
func ClusterConfiguration(c *Cluster) ([]byte, error) {
	d := clusterConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeadmVersion, Kind: "ClusterConfiguration"},
		Networking: networking{
			ServiceSubnet: joinPrefixes(c.ServiceSubnets), PodSubnet: joinPrefixes(c.PodSubnets), DNSDomain: c.DNSDomain,
		},
		KubernetesVersion:           c.KubernetesVersion,
		ControlPlaneEndpoint:        c.ControlPlaneEndpoint,
		APIServer:                   apiServer{component: componentDocument(c.APIServer), CertSANs: c.CertSANs},
		ControllerManager:           componentDocument(c.ControllerManager),
		Scheduler:                   componentDocument(c.Scheduler),
		DNS:                         dnsDocument(c),
		Proxy:                       proxyAddon{Disabled: c.ProxyDisabled},
		CertificatesDir:             c.Paths.PKI,
		ImageRepository:             c.ImageRepository,
		FeatureGates:                c.FeatureGates,
		ClusterName:                 c.ClusterName,
		EncryptionAlgorithm:         c.KeyAlgorithm,
		CertificateValidityPeriod:   durationDocument(c.CertificateValidity),
		CACertificateValidityPeriod: durationDocument(c.CAValidity),
	}
	if local := c.Etcd.Local; local != nil {
		repository, tag := imageParts(c.Images.Etcd, "etcd")
		d.Etcd.Local = &localEtcd{
			imageMeta: imageMeta{unless(c.ImageRepository, repository), unless(etcdTag, tag)},
			DataDir:   local.DataDir, ExtraArgs: argDocuments(local.ExtraArgs), ExtraEnvs: local.ExtraEnvs,
			ServerCertSANs: local.ServerCertSANs, PeerCertSANs: local.PeerCertSANs,
		}
	}
	if e := c.Etcd.External; e != nil {
		d.Etcd.External = &externalEtcd{Endpoints: e.Endpoints, CAFile: e.CAFile, CertFile: e.CertFile, KeyFile: e.KeyFile}
		if !slices.Equal(e.HTTPEndpoints, e.Endpoints) { // kubeadm before 1.35 does not know the field
			d.Etcd.External.HTTPEndpoints = e.HTTPEndpoints
		}
	}
	return document(d)
}

// InitConfiguration returns what is this node's own as a kubeadm v1beta4 document. It holds no secrets: tokens have no
// token, so that one is made when it is read, and the certificate key is left out.
func InitConfiguration(c *Cluster) ([]byte, error) { return document(initDocument(c)) }

func initDocument(c *Cluster) initConfiguration {
	d := initConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeadmVersion, Kind: "InitConfiguration"},
		PlanOnly: c.PlanOnly,
		NodeRegistration: nodeRegistration{
			Name: c.NodeName, CRISocket: c.CRISocket, Taints: c.Taints, IgnorePreflightErrors: c.IgnorePreflightErrors,
			ImagePullPolicy: c.ImagePullPolicy, ImagePullSerial: &c.ImagePullSerial,
		},
		LocalAPIEndpoint: apiEndpoint{AdvertiseAddress: c.AdvertiseAddress.String(), BindPort: int(c.BindPort)},
		SkipPhases:       c.SkipPhases,
		Timeouts: timeouts{
			ControlPlaneComponentHealthCheck: durationDocument(c.Timeouts.ControlPlaneComponentHealthCheck),
			KubernetesAPICall:                durationDocument(c.Timeouts.KubernetesAPICall),
			EtcdAPICall:                      durationDocument(c.Timeouts.EtcdAPICall),
		},
	}
	for _, t := range c.BootstrapTokens {
		out := bootstrapToken{Description: t.Description, Usages: t.Usages, Groups: t.Groups}
		if t.Expires.IsZero() {
			out.TTL = &metav1.Duration{Duration: t.TTL}
		} else {
			out.Expires = &metav1.Time{Time: t.Expires}
		}
		d.BootstrapTokens = append(d.BootstrapTokens, out)
	}
	return d
}

func document(d any) ([]byte, error) {
	data, err := yaml.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("writing %T: %w", d, err)
	}
	return data, nil
}

func componentDocument(c Component) component {
	out := component{ExtraArgs: argDocuments(c.ExtraArgs), ExtraEnvs: c.ExtraEnvs}
	for _, v := range c.ExtraVolumes {
		out.ExtraVolumes = append(out.ExtraVolumes, hostPathMount(v))
	}
	return out
}

func argDocuments(args []Arg) []arg {
	var out []arg
	for _, a := range args {
		out = append(out, arg(a))
	}
	return out
}

// dnsDocument names the image of CoreDNS only where it is not that of the version: an upgrade is to change it.
func dnsDocument(c *Cluster) dnsAddon {
	repository, tag := imageParts(c.Images.CoreDNS, "coredns")
	if repository == defaultRepository+"/coredns" { // as coreDNSImage has put it there
		repository = defaultRepository
	}
	return dnsAddon{
		imageMeta: imageMeta{unless(c.ImageRepository, repository), unless(coreDNSTag(c.KubernetesVersion), tag)},
		Disabled:  c.DNSDisabled,
	}
}

// imageParts takes a reference that images made apart again: REPOSITORY/NAME:TAG. An image that is not used has no parts.
func imageParts(ref, name string) (repository, tag string) {
	i := strings.LastIndex(ref, "/"+name+":")
	if i < 0 {
		return "", ""
	}
	return ref[:i], ref[i+len("/"+name+":"):]
}

// unless returns a value, or "" where it is the one that an empty field stands for.
func unless(byDefault, value string) string {
	if value == byDefault {
		return ""
	}
	return value
}

// durationDocument leaves out a duration that was never settled.
func durationDocument(d time.Duration) *metav1.Duration {
	if d == 0 {
		return nil
	}
	return &metav1.Duration{Duration: d}
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var out []string
	for _, p := range prefixes {
		out = append(out, p.String())
	}
	return strings.Join(out, ",")
}
