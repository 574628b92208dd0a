package preflight

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Certificates returns what the phases certs and kubeconfig would refuse of what is on disk: damaged, foreign or
// expired files, and a clock that is before an authority's beginning. Each would end init half way.
func Certificates(files artifact.Store, cfg *config.Cluster, now time.Time) []Problem {
	var problems []Problem
	for _, check := range []struct {
		name string
		err  error
	}{{"Certificates", pki.Check(files, cfg, now)}, {"Kubeconfigs", kubeconfig.Check(files, cfg, now)}} {
		for _, err := range each(check.err) {
			problems = append(problems, fatal(check.name, "", "%s", err))
		}
	}
	return problems
}

// each takes a joined error apart.
func each(err error) []error {
	if err == nil {
		return nil
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, each(e)...)
		}
		return all
	}
	return []error{err}
}

// checkHostPaths looks for what extraVolumes name. Where the type says what there must be, the pod does not start without
// it. Where it says nothing, the runtime makes an empty directory, which is rarely what was meant.
func checkHostPaths(cfg *config.Cluster, seen *host.Inspection) []Problem {
	var problems []Problem
	for _, c := range []struct {
		name string
		of   config.Component
	}{{"apiServer", cfg.APIServer}, {"controllerManager", cfg.ControllerManager}, {"scheduler", cfg.Scheduler}} {
		for _, v := range c.of.ExtraVolumes {
			at := seen.Paths[v.HostPath]
			field := c.name + ".extraVolumes"
			switch {
			case strings.HasSuffix(string(v.PathType), "OrCreate"):
			case !at.Exists && v.PathType == corev1.HostPathUnset:
				problems = append(problems, warning("HostPath", "create it, or give the volume a pathType",
					"%s %q: %s does not exist on this machine, and the pod would get an empty directory", field, v.Name, v.HostPath))
			case !at.Exists:
				problems = append(problems, fatal("HostPath", "create it, or correct the volume",
					"%s %q: %s does not exist on this machine, and has to be a %s", field, v.Name, v.HostPath, v.PathType))
			case v.PathType == corev1.HostPathDirectory && !at.Dir && !at.Link:
				problems = append(problems, fatal("HostPath", "correct the volume", "%s %q: %s is no directory", field, v.Name, v.HostPath))
			case v.PathType == corev1.HostPathFile && at.Dir:
				problems = append(problems, fatal("HostPath", "correct the volume", "%s %q: %s is a directory, not a file", field, v.Name, v.HostPath))
			}
		}
	}
	return problems
}

// minEtcd is the oldest external etcd that kubeadm v1.36.3 takes (constants.MinExternalEtcdVersion).
var minEtcd = version.MustParseSemantic("3.5.24")

// checkExternalEtcd refuses an etcd that the API server cannot use.
func checkExternalEtcd(cfg *config.Cluster, seen *host.Inspection) []Problem {
	etcd := cfg.Etcd.External
	if etcd == nil {
		return nil
	}
	var problems []Problem
	for _, file := range []struct{ field, path string }{{"caFile", etcd.CAFile}, {"certFile", etcd.CertFile}, {"keyFile", etcd.KeyFile}} {
		if file.path != "" && !seen.Paths[file.path].Exists {
			problems = append(problems, fatal("ExternalEtcdClientCertificates", "bring it from the etcd cluster", "etcd.external.%s: %s does not exist", file.field, file.path))
		}
	}
	for _, v := range seen.EtcdVersions {
		has, err := version.ParseSemantic(v.Version)
		switch {
		case v.Err != "":
			problems = append(problems, fatal("ExternalEtcdVersion", "see that it runs and can be reached", "etcd at %s does not tell its version: %s", v.Endpoint, v.Err))
		case err != nil || has.LessThan(minEtcd):
			problems = append(problems, fatal("ExternalEtcdVersion", "upgrade etcd first", "etcd at %s is %s, and Kubernetes needs %s or newer", v.Endpoint, v.Version, minEtcd))
		}
	}
	return problems
}
