package controlplane

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/templates"
)

// caCerts is mounted by the templates.
const caCerts = "/etc/ssl/certs"

// caVolumes returns the host's other CA directories, to which the links in /etc/ssl/certs may point.
func caVolumes(cfg *config.Cluster) []templates.Volume {
	var volumes []templates.Volume
	for _, dir := range cfg.Facts.CADirs {
		volumes = append(volumes, readOnly(strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"), dir))
	}
	return volumes
}

// apiServerVolumes returns the host's other CA directories and those of an external etcd's certificates.
func apiServerVolumes(cfg *config.Cluster) []templates.Volume {
	volumes := caVolumes(cfg)
	if cfg.Etcd.External == nil {
		return volumes
	}
	mounted := append([]string{caCerts, cfg.Paths.PKI}, cfg.Facts.CADirs...)
	for i, dir := range etcdCertDirs(cfg.Etcd.External, mounted) {
		volumes = append(volumes, readOnly(fmt.Sprintf("etcd-certs-%d", i), dir))
	}
	return volumes
}

// etcdCertDirs returns the directories that hold the files, sorted, without any that lies below another or below one
// that is mounted already.
func etcdCertDirs(etcd *config.ExternalEtcd, mounted []string) []string {
	var dirs []string
	for _, file := range []string{etcd.CAFile, etcd.CertFile, etcd.KeyFile} {
		if file != "" {
			dirs = append(dirs, filepath.Dir(file))
		}
	}
	slices.Sort(dirs)
	var outer []string
	for _, dir := range slices.Compact(dirs) {
		if !below(dir, mounted) && !below(dir, outer) {
			outer = append(outer, dir)
		}
	}
	return outer
}

// below reports whether dir is one of parents or lies below one.
func below(dir string, parents []string) bool {
	return slices.ContainsFunc(parents, func(parent string) bool {
		return dir == parent || strings.HasPrefix(dir, strings.TrimSuffix(parent, "/")+"/")
	})
}

func readOnly(name, dir string) templates.Volume {
	return templates.Volume{Name: name, HostPath: dir, MountPath: dir, ReadOnly: true, Type: corev1.HostPathDirectoryOrCreate}
}
