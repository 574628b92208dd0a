package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Flag is a value from the command line or the environment. The zero value is one that was not given.
type Flag[T any] struct {
	Value  T
	Set    bool
	Origin string // for messages, such as "SLIPWAY_SERVICE_CIDR"; "" for the flag's own name
}

// Given returns a flag that is set to v.
func Given[T any](v T) Flag[T] { return Flag[T]{Value: v, Set: true} }

// Flags are the values that override the file's. The values are as the user wrote them; Load parses and checks them.
type Flags struct {
	AdvertiseAddress      Flag[string]        // --apiserver-advertise-address
	BindPort              Flag[int]           // --apiserver-bind-port
	NodeName              Flag[string]        // --node-name
	PodNetworkCIDR        Flag[string]        // --pod-network-cidr
	ServiceCIDR           Flag[string]        // --service-cidr
	ServiceDNSDomain      Flag[string]        // --service-dns-domain
	ControlPlaneEndpoint  Flag[string]        // --control-plane-endpoint
	KubernetesVersion     Flag[string]        // --kubernetes-version
	ImageRepository       Flag[string]        // --image-repository
	CertDir               Flag[string]        // --cert-dir
	CRISocket             Flag[string]        // --cri-socket
	Patches               Flag[string]        // --patches
	FeatureGates          Flag[string]        // --feature-gates, "A=true,B=false"; each gate overrides the file's of that name
	CertSANs              Flag[[]string]      // --apiserver-cert-extra-sans, added to the file's
	IgnorePreflightErrors Flag[[]string]      // --ignore-preflight-errors, added to the file's
	SkipPhases            Flag[[]string]      // --skip-phases
	UploadCerts           Flag[bool]          // --upload-certs
	CertificateKey        Flag[string]        // --certificate-key
	Token                 Flag[string]        // --token, of the file's first
	TokenTTL              Flag[time.Duration] // --token-ttl, of the file's first
}

// apply puts the flags over the documents, and notes where each field came from.
func (f Flags) apply(r *report, docs *documents) {
	init, cluster := &docs.init, &docs.cluster
	override(r, f.AdvertiseAddress, "--apiserver-advertise-address", "localAPIEndpoint.advertiseAddress", &init.LocalAPIEndpoint.AdvertiseAddress)
	override(r, f.BindPort, "--apiserver-bind-port", "localAPIEndpoint.bindPort", &init.LocalAPIEndpoint.BindPort)
	override(r, f.NodeName, "--node-name", "nodeRegistration.name", &init.NodeRegistration.Name)
	override(r, f.PodNetworkCIDR, "--pod-network-cidr", "networking.podSubnet", &cluster.Networking.PodSubnet)
	override(r, f.ServiceCIDR, "--service-cidr", "networking.serviceSubnet", &cluster.Networking.ServiceSubnet)
	override(r, f.ServiceDNSDomain, "--service-dns-domain", "networking.dnsDomain", &cluster.Networking.DNSDomain)
	override(r, f.ControlPlaneEndpoint, "--control-plane-endpoint", "controlPlaneEndpoint", &cluster.ControlPlaneEndpoint)
	override(r, f.KubernetesVersion, "--kubernetes-version", "kubernetesVersion", &cluster.KubernetesVersion)
	override(r, f.ImageRepository, "--image-repository", "imageRepository", &cluster.ImageRepository)
	override(r, f.CertDir, "--cert-dir", "certificatesDir", &cluster.CertificatesDir)
	override(r, f.CRISocket, "--cri-socket", "nodeRegistration.criSocket", &init.NodeRegistration.CRISocket)
	override(r, f.Patches, "--patches", "patches.directory", &init.Patches.Directory)
	override(r, f.SkipPhases, "--skip-phases", "skipPhases", &init.SkipPhases)
	extend(r, f.CertSANs, "--apiserver-cert-extra-sans", "apiServer.certSANs", &cluster.APIServer.CertSANs)
	extend(r, f.IgnorePreflightErrors, "--ignore-preflight-errors", "nodeRegistration.ignorePreflightErrors", &init.NodeRegistration.IgnorePreflightErrors)
	f.applyFeatureGates(r, cluster)
	override(r, f.UploadCerts, "--upload-certs", "uploadCerts", &docs.uploadCerts)
	override(r, f.CertificateKey, "--certificate-key", "certificateKey", &init.CertificateKey)
	f.applyToken(r, init)
}

// applyToken puts the flags of a token over the first of the file's, or makes it the only one.
func (f Flags) applyToken(r *report, init *initConfiguration) {
	if !f.Token.Set && !f.TokenTTL.Set {
		return
	}
	if len(init.BootstrapTokens) == 0 {
		init.BootstrapTokens = []bootstrapToken{{}}
	}
	first := &init.BootstrapTokens[0]
	override(r, f.Token, "--token", "bootstrapTokens[0].token", &first.Token)
	if f.TokenTTL.Set {
		r.setFrom("bootstrapTokens[0].ttl", f.TokenTTL.origin("--token-ttl"))
		first.TTL, first.Expires = &metav1.Duration{Duration: f.TokenTTL.Value}, nil
	}
}

func override[T any](r *report, f Flag[T], name, field string, into *T) {
	if f.Set {
		r.setFrom(field, f.origin(name))
		*into = f.Value
	}
}

func extend(r *report, f Flag[[]string], name, field string, into *[]string) {
	for _, v := range f.Value {
		if f.Set {
			r.setFrom(fmt.Sprintf("%s[%d]", field, len(*into)), f.origin(name))
			*into = append(*into, v)
		}
	}
}

func (f Flags) applyFeatureGates(r *report, cluster *clusterConfiguration) {
	if !f.FeatureGates.Set {
		return
	}
	source := f.FeatureGates.origin("--feature-gates")
	for _, pair := range strings.Split(f.FeatureGates.Value, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if name == "" && !ok {
			continue
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			r.problems = append(r.problems, &Problem{Source: source, Reason: fmt.Sprintf("%q: wanted NAME=true or NAME=false", pair)})
			continue
		}
		if cluster.FeatureGates == nil {
			cluster.FeatureGates = map[string]bool{}
		}
		r.setFrom("featureGates."+name, source)
		cluster.FeatureGates[name] = on
	}
}

// setFrom notes that a flag, and no longer the file, gives a field.
func (r *report) setFrom(field, flag string) {
	r.flags[field] = flag
	delete(r.unread, field)
}

func (f Flag[T]) origin(name string) string {
	if f.Origin != "" {
		return f.Origin
	}
	return name
}
