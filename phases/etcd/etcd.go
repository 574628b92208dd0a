// Package etcd holds the phase that writes the manifest of a local etcd member.
package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/staticpod"
	"github.com/slipway-k8s/slipway/templates"
)

// metricsPort serves metrics and health over plain HTTP, on loopback only. kubeadm v1.36.3 constants/constants.go:97.
const metricsPort = 2381

// New returns the phase "etcd".
func New() phases.Phase {
	return phases.Phase{
		Name:  "etcd",
		Short: "Write the static pod manifest of a local etcd",
		Phases: []phases.Phase{{
			Name:  "local",
			Short: "Write the static pod manifest of a single etcd member on this node",
			Long:  "Write the static pod manifest of a single etcd member on this node, and make its data directory.\nWith an external etcd there is nothing to write.",
			Run:   runLocal,
		}},
	}
}

func runLocal(_ context.Context, env *phases.Env) error {
	local := env.Config.Etcd.Local
	if local == nil {
		env.Report(phases.Event{Kind: phases.Note, Text: "etcd is external: no manifest is written for it"})
		return nil
	}
	m, err := manifest(env.Config)
	if err != nil {
		return err
	}
	if err := staticpod.PutTree(env.Files, local.DataDir, 0o700); err != nil {
		return err
	}
	return m.Put(env)
}

// Manifests returns etcd's manifest, or nothing where etcd is external. It depends on cfg alone.
func Manifests(cfg *config.Cluster) ([]artifact.File, error) {
	if cfg.Etcd.Local == nil {
		return nil, nil
	}
	m, err := manifest(cfg)
	if err != nil {
		return nil, err
	}
	return []artifact.File{m.File}, nil
}

func manifest(cfg *config.Cluster) (staticpod.Manifest, error) {
	v, err := values(cfg)
	if err != nil {
		return staticpod.Manifest{}, fmt.Errorf("planning etcd: %w", err)
	}
	pod, err := templates.Etcd(v)
	if err != nil {
		return staticpod.Manifest{}, fmt.Errorf("rendering etcd: %w", err)
	}
	return staticpod.New(cfg, pod)
}

func values(cfg *config.Cluster) (templates.EtcdValues, error) {
	local := cfg.Etcd.Local
	args := staticpod.Args(local.ExtraArgs)
	probe, err := probe(cfg.AdvertiseAddress, args)
	if err != nil {
		return templates.EtcdValues{}, err
	}
	probe.StartupFailures = staticpod.StartupFailures(cfg)
	return templates.EtcdValues{
		Image:            cfg.Images.Etcd,
		NodeName:         cfg.NodeName,
		AdvertiseAddress: cfg.AdvertiseAddress,
		PKI:              cfg.Paths.PKI,
		DataDir:          local.DataDir,
		Probe:            probe,
		Extra:            templates.Extra{Args: args, Env: local.ExtraEnvs},
	}, nil
}

// probe returns where etcd answers its health checks: at the first of its metrics URLs, which the user may move.
func probe(advertise netip.Addr, args templates.Args) (templates.Probe, error) {
	p := templates.Probe{Host: "127.0.0.1", Port: metricsPort, Scheme: corev1.URISchemeHTTP}
	if advertise.Is6() {
		p.Host = "::1"
	}
	urls, ok := args.Last("listen-metrics-urls")
	if !ok {
		return p, nil
	}
	first, _, _ := strings.Cut(urls, ",")
	u, err := url.Parse(first)
	if err != nil {
		return p, fmt.Errorf("extraArgs \"listen-metrics-urls\": %w", err)
	}
	if u.Scheme == "https" {
		p.Scheme = corev1.URISchemeHTTPS
	}
	if u.Hostname() != "" {
		p.Host = u.Hostname()
	}
	if u.Port() != "" {
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return p, fmt.Errorf("extraArgs \"listen-metrics-urls\": %q is not a port from 1 to 65535", u.Port())
		}
		p.Port = int32(port)
	}
	return p, nil
}
