package config

import (
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// The recommended validities, and the defaults: kubeadm v1.36.3 constants.go.
const (
	defaultCertificateValidity = 365 * 24 * time.Hour
	defaultCAValidity          = 10 * 365 * 24 * time.Hour
)

// featureGates takes over the gates of kubeadm 1.36.
func (b *builder) featureGates() {
	known := []string{"NodeLocalCRISocket", "PublicKeysECDSA", "RootlessControlPlane"}
	gates := b.docs.cluster.FeatureGates
	for _, name := range slices.Sorted(maps.Keys(gates)) {
		field, on := "featureGates."+name, gates[name]
		switch name {
		case "NodeLocalCRISocket":
			if on {
				b.warnf(field, "has no effect: it is always on")
			} else {
				b.problemf(field, "%s cannot be turned off since Kubernetes 1.36; remove it", name)
			}
		case "PublicKeysECDSA":
			b.warnf(field, "is deprecated: use encryptionAlgorithm")
		case "RootlessControlPlane":
			if on {
				b.problemf(field, "%s is not supported: the control plane runs as root; remove it", name)
			}
		default:
			b.problemf(field, "%s is not a feature gate; there are %s%s", name, strings.Join(known, ", "), didYouMean(name, known))
		}
	}
	b.out.FeatureGates = maps.Clone(gates)
}

// certificates settles what the PKI is made of.
func (b *builder) certificates() {
	given := b.docs.cluster
	b.out.ClusterName = withDefault(given.ClusterName, "kubernetes")
	if strings.ContainsFunc(b.out.ClusterName, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		b.problemf("clusterName", "%q has spaces or characters that do not print", b.out.ClusterName)
	}
	b.out.KeyAlgorithm = b.keyAlgorithm()
	b.out.CertSANs = b.altNames("apiServer.certSANs", given.APIServer.CertSANs)
	b.validities()
}

// keyAlgorithm returns encryptionAlgorithm, or what the deprecated gate stands for.
func (b *builder) keyAlgorithm() KeyAlgorithm {
	const field = "encryptionAlgorithm"
	given := b.docs.cluster.EncryptionAlgorithm
	if given != "" {
		b.oneOf(field, string(given), string(RSA2048), string(RSA3072), string(RSA4096), string(ECDSAP256), string(ECDSAP384))
	}
	gate, ok := b.docs.cluster.FeatureGates["PublicKeysECDSA"]
	if !ok {
		return KeyAlgorithm(withDefault(string(given), string(ECDSAP256)))
	}
	algorithm := RSA2048
	if gate {
		algorithm = ECDSAP256
	}
	if given != "" && given != algorithm {
		b.problemf(field, "%q contradicts featureGates.PublicKeysECDSA, which asks for %q; remove the feature gate", given, algorithm)
	}
	return algorithm
}

func (b *builder) validities() {
	const leafField, caField = "certificateValidityPeriod", "caCertificateValidityPeriod"
	leaf := b.positive(leafField, b.docs.cluster.CertificateValidityPeriod, defaultCertificateValidity)
	ca := b.positive(caField, b.docs.cluster.CACertificateValidityPeriod, defaultCAValidity)
	if leaf > defaultCertificateValidity {
		b.warnf(leafField, "%s is longer than the recommended %s", leaf, defaultCertificateValidity)
	}
	if ca > defaultCAValidity {
		b.warnf(caField, "%s is longer than the recommended %s", ca, defaultCAValidity)
	}
	if leaf > ca {
		b.warnf(leafField, "%s is longer than the %s of the CA: certificates end with their CA", leaf, ca)
	}
	b.out.CertificateValidity, b.out.CAValidity = leaf, ca
}
