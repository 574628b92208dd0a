// Package kubeletconfig makes the KubeletConfiguration that slipway's supervisor and a kubelet both read.
//
// It holds what the cluster determines; everything else is left to the user's own document and, failing that, to the
// kubelet's defaults. It reads no environment, clock or disk.
package kubeletconfig

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	apiVersion = "kubelet.config.k8s.io/v1beta1"
	kind       = "KubeletConfiguration"

	// Where a kubelet answers its own health check. kubeadm v1.36.3 componentconfigs/kubelet.go:49.
	healthzAddress = "127.0.0.1"
	healthzPort    = 10248
)

// Options are what the cluster and the host determine.
type Options struct {
	StaticPodPath            string   // the manifest directory
	ClusterDNS               []string // addresses
	ClusterDomain            string
	ClientCAFile             string
	CgroupDriver             string // "systemd" or "cgroupfs"
	ResolvConf               string // "" for the kubelet's default, /etc/resolv.conf
	ContainerRuntimeEndpoint string // "unix:///…"
}

// New returns the configuration for o, with user, a KubeletConfiguration as JSON or nil, laid over it: every field
// that the user sets wins. As with kubeadm an empty string counts as not set, for the kubelet cannot tell it apart.
func New(o Options, user []byte) (*kubeletv1beta1.KubeletConfiguration, error) {
	cfg := &kubeletv1beta1.KubeletConfiguration{}
	cfg.RotateCertificates = true // set before decoding: the one default that a plain false must be able to change
	if user != nil {
		if err := decodeInto(cfg, user); err != nil {
			return nil, fmt.Errorf("reading the user's KubeletConfiguration: %w", err)
		}
	}
	cfg.APIVersion, cfg.Kind = apiVersion, kind
	setDefault(&cfg.StaticPodPath, o.StaticPodPath)
	setDefault(&cfg.ClusterDomain, o.ClusterDomain)
	setDefault(&cfg.CgroupDriver, o.CgroupDriver)
	setDefault(&cfg.ContainerRuntimeEndpoint, o.ContainerRuntimeEndpoint)
	setDefault(&cfg.HealthzBindAddress, healthzAddress)
	setDefault(&cfg.HealthzPort, ptr.To[int32](healthzPort))
	setDefault(&cfg.Authentication.Anonymous.Enabled, ptr.To(false))
	setDefault(&cfg.Authentication.Webhook.Enabled, ptr.To(true))
	setDefault(&cfg.Authentication.X509.ClientCAFile, o.ClientCAFile)
	setDefault(&cfg.Authorization.Mode, kubeletv1beta1.KubeletAuthorizationModeWebhook)
	if cfg.ClusterDNS == nil {
		cfg.ClusterDNS = o.ClusterDNS
	}
	if o.ResolvConf != "" {
		setDefault(&cfg.ResolverConfig, &o.ResolvConf)
	}
	return cfg, nil
}

// setDefault sets a field that has its zero value.
func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Decode returns the configuration of a document, YAML or JSON. A field that a KubeletConfiguration does not have, or
// has twice, is an error; so is one that the kubelet of slipway's Kubernetes version does not know yet.
func Decode(document []byte) (*kubeletv1beta1.KubeletConfiguration, error) {
	data, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	var cfg kubeletv1beta1.KubeletConfiguration
	if err := decodeInto(&cfg, data); err != nil {
		return nil, err
	}
	return &cfg, nil
}

func decodeInto(cfg *kubeletv1beta1.KubeletConfiguration, data []byte) error {
	strict, err := kjson.UnmarshalStrict(data, cfg)
	if err := errors.Join(append(strict, err)...); err != nil {
		return err
	}
	if (cfg.APIVersion != "" && cfg.APIVersion != apiVersion) || (cfg.Kind != "" && cfg.Kind != kind) {
		return fmt.Errorf("%s %s is not a %s %s", cfg.APIVersion, cfg.Kind, apiVersion, kind)
	}
	if cfg.DefaultPodSysctls != nil {
		return errors.New(`field "defaultPodSysctls" is new in Kubernetes 1.37 and refused by a 1.36 kubelet: remove it`)
	}
	return nil
}

// Marshal returns cfg as YAML with sorted keys. What an empty configuration would print as well, such as durations
// of 0s, is left out: the kubelet reads both alike.
func Marshal(cfg *kubeletv1beta1.KubeletConfiguration) ([]byte, error) {
	document, err := fields(cfg)
	if err != nil {
		return nil, err
	}
	empty, err := fields(&kubeletv1beta1.KubeletConfiguration{})
	if err != nil {
		return nil, err
	}
	prune(document, empty)
	return yaml.Marshal(document)
}

// fields returns the JSON object of cfg.
func fields(cfg *kubeletv1beta1.KubeletConfiguration) (map[string]any, error) {
	data, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("marshalling a KubeletConfiguration: %w", err)
	}
	var object map[string]any
	// kjson keeps whole numbers as int64; float64 would print 1e+06 for a million.
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &object); err != nil {
		return nil, fmt.Errorf("reading a KubeletConfiguration back: %w", err)
	}
	return object, nil
}

// prune removes from document what empty has too, and objects that are left with nothing.
func prune(document, empty map[string]any) {
	for key, zero := range empty {
		inner, isObject := document[key].(map[string]any)
		if zeroObject, ok := zero.(map[string]any); ok && isObject {
			if prune(inner, zeroObject); len(inner) == 0 {
				delete(document, key)
			}
			continue
		}
		if reflect.DeepEqual(document[key], zero) {
			delete(document, key)
		}
	}
}
