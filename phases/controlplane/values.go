package controlplane

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/staticpod"
	"github.com/slipway-k8s/slipway/templates"
)

// The ports and the address on which the components listen unless extra flags say otherwise. 127.0.0.1 holds on IPv6
// nodes too. kubeadm v1.36.3 constants/constants.go:411 with :414, phases/controlplane/manifests.go:327 with :374.
const (
	etcdClientPort        = 2379
	controllerManagerPort = 10257
	schedulerPort         = 10259
	bindAddress           = "127.0.0.1"
)

func apiServerValues(cfg *config.Cluster) (templates.APIServerValues, error) {
	extra := extras(cfg, cfg.APIServer)
	probe, err := staticpod.HTTPSProbe(cfg, cfg.AdvertiseAddress.String(), cfg.BindPort, extra.Args)
	if err != nil {
		return templates.APIServerValues{}, err
	}
	extra.Volumes = append(apiServerVolumes(cfg), extra.Volumes...)
	return templates.APIServerValues{
		Image:            cfg.Images.APIServer,
		AdvertiseAddress: cfg.AdvertiseAddress,
		BindPort:         cfg.BindPort,
		PKI:              cfg.Paths.PKI,
		ServiceSubnets:   join(cfg.ServiceSubnets),
		DNSDomain:        cfg.DNSDomain,
		Etcd:             etcdClient(cfg),
		Probe:            probe,
		Extra:            extra,
	}, nil
}

func controllerManagerValues(cfg *config.Cluster, ca SigningCA) (templates.ControllerManagerValues, error) {
	extra := extras(cfg, cfg.ControllerManager)
	probe, err := staticpod.HTTPSProbe(cfg, listenAddress(extra.Args), controllerManagerPort, extra.Args)
	if err != nil {
		return templates.ControllerManagerValues{}, err
	}
	extra.Volumes = append(caVolumes(cfg), extra.Volumes...)
	return templates.ControllerManagerValues{
		Image:          cfg.Images.ControllerManager,
		Kubeconfig:     cfg.Paths.Kubeconfig("controller-manager.conf"),
		PKI:            cfg.Paths.PKI,
		ClusterName:    cfg.ClusterName,
		PodSubnets:     join(cfg.PodSubnets),
		ServiceSubnets: join(cfg.ServiceSubnets),
		SigningCert:    ca.Cert,
		SigningKey:     ca.Key,
		Probe:          probe,
		Extra:          extra,
	}, nil
}

func schedulerValues(cfg *config.Cluster) (templates.SchedulerValues, error) {
	extra := extras(cfg, cfg.Scheduler)
	probe, err := staticpod.HTTPSProbe(cfg, listenAddress(extra.Args), schedulerPort, extra.Args)
	if err != nil {
		return templates.SchedulerValues{}, err
	}
	return templates.SchedulerValues{
		Image:      cfg.Images.Scheduler,
		Kubeconfig: cfg.Paths.Kubeconfig("scheduler.conf"),
		Probe:      probe,
		Extra:      extra,
	}, nil
}

// extras returns what the user adds to a component, after the host's proxy variables: the user's win.
func extras(cfg *config.Cluster, c config.Component) templates.Extra {
	extra := templates.Extra{Args: staticpod.Args(c.ExtraArgs)}
	for name, value := range cfg.Facts.ProxyEnv { // in any order: the merge sorts by name
		extra.Env = append(extra.Env, corev1.EnvVar{Name: name, Value: value})
	}
	extra.Env = append(extra.Env, c.ExtraEnvs...)
	for _, v := range c.ExtraVolumes {
		extra.Volumes = append(extra.Volumes, templates.Volume{
			Name: v.Name, HostPath: v.HostPath, MountPath: v.MountPath, ReadOnly: v.ReadOnly, Type: v.PathType,
		})
	}
	return extra
}

func listenAddress(args templates.Args) string {
	if address, ok := args.Last("bind-address"); ok {
		return address
	}
	return bindAddress
}

// etcdClient says how the API server reaches etcd: a local one over loopback in the node's address family, or at the
// client URLs that the user gave it.
func etcdClient(cfg *config.Cluster) templates.EtcdClient {
	if external := cfg.Etcd.External; external != nil {
		client := templates.EtcdClient{Servers: strings.Join(external.Endpoints, ","), CAFile: external.CAFile}
		if external.CertFile != "" && external.KeyFile != "" {
			client.CertFile, client.KeyFile = external.CertFile, external.KeyFile
		}
		return client
	}
	loopback := "127.0.0.1"
	if cfg.AdvertiseAddress.Is6() {
		loopback = "::1"
	}
	client := templates.EtcdClient{
		Servers:  "https://" + net.JoinHostPort(loopback, strconv.Itoa(etcdClientPort)),
		CAFile:   cfg.Paths.PKI + "/etcd/ca.crt",
		CertFile: cfg.Paths.PKI + "/apiserver-etcd-client.crt",
		KeyFile:  cfg.Paths.PKI + "/apiserver-etcd-client.key",
	}
	if urls, ok := staticpod.Args(cfg.Etcd.Local.ExtraArgs).Last("advertise-client-urls"); ok {
		client.Servers = urls
	}
	return client
}

func join(prefixes []netip.Prefix) string {
	var list []string
	for _, p := range prefixes {
		list = append(list, p.String())
	}
	return strings.Join(list, ",")
}
