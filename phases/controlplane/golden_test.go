package controlplane_test

import (
	"context"
	"flag"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/artifact/artifacttest"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/kubelet"
)

var update = flag.Bool("update", false, "rewrite the golden trees")

// cluster returns what config.Load makes of an empty file on a host at 192.0.2.10.
func cluster() *config.Cluster {
	return &config.Cluster{
		Paths:             config.NewPaths(""),
		NodeName:          "cp-1",
		ClusterName:       "kubernetes",
		KubernetesVersion: "v1.36.3",
		AdvertiseAddress:  netip.MustParseAddr("192.0.2.10"),
		BindPort:          6443,
		ServiceSubnets:    []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
		DNSDomain:         "cluster.local",
		ImageRepository:   "registry.k8s.io",
		Images: config.Images{
			Etcd:              "registry.k8s.io/etcd:3.6.8-0",
			APIServer:         "registry.k8s.io/kube-apiserver:v1.36.3",
			ControllerManager: "registry.k8s.io/kube-controller-manager:v1.36.3",
			Scheduler:         "registry.k8s.io/kube-scheduler:v1.36.3",
		},
		Etcd:         config.Etcd{Local: &config.LocalEtcd{DataDir: "/var/lib/etcd"}},
		KeyAlgorithm: config.ECDSAP256,
		Timeouts:     config.Timeouts{ControlPlaneComponentHealthCheck: 4 * time.Minute},
		Facts:        config.HostFacts{CgroupDriver: "systemd"},
	}
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// variants are the clusters whose files are kept under testdata/golden.
var variants = map[string]func(*config.Cluster){
	"defaults": func(*config.Cluster) {},
	"flag-apiserver-advertise-address": func(c *config.Cluster) {
		c.AdvertiseAddress = netip.MustParseAddr("198.51.100.7")
	},
	"flag-apiserver-bind-port": func(c *config.Cluster) { c.BindPort = 7443 },
	"flag-node-name":           func(c *config.Cluster) { c.NodeName = "edge-7.example" },
	"flag-pod-network-cidr":    func(c *config.Cluster) { c.PodSubnets = prefixes("10.244.0.0/16") },
	"flag-service-cidr":        func(c *config.Cluster) { c.ServiceSubnets = prefixes("10.112.0.0/16") },
	"flag-service-dns-domain":  func(c *config.Cluster) { c.DNSDomain = "edge.example" },
	"flag-cert-dir":            func(c *config.Cluster) { c.Paths.PKI = "/srv/pki" },
	"flag-cri-socket":          func(c *config.Cluster) { c.CRISocket = "unix:///run/containerd/containerd.sock" },
	"control-plane-endpoint":   func(c *config.Cluster) { c.ControlPlaneEndpoint = "cp.example:8443" },
	"cluster-name":             func(c *config.Cluster) { c.ClusterName = "edge" },
	"dual-stack": func(c *config.Cluster) {
		c.ServiceSubnets = prefixes("10.96.0.0/16", "fd00:10:96::/112")
		c.PodSubnets = prefixes("10.244.0.0/16", "fd00:10:244::/56")
	},
	"ipv6": func(c *config.Cluster) {
		c.AdvertiseAddress = netip.MustParseAddr("2001:db8::10")
		c.ServiceSubnets = prefixes("fd00:10:96::/112")
		c.PodSubnets = prefixes("fd00:10:244::/56")
	},
	"external-etcd": func(c *config.Cluster) {
		c.Etcd = config.Etcd{External: &config.ExternalEtcd{
			Endpoints: []string{"https://198.51.100.1:2379", "https://198.51.100.2:2379"},
			CAFile:    "/etc/etcd/tls/ca.crt", CertFile: "/etc/etcd/tls/client/client.crt", KeyFile: "/srv/keys/client.key",
		}}
	},
	"external-etcd-plain": func(c *config.Cluster) {
		c.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"http://198.51.100.1:2379"}}}
	},
	"external-ca": func(*config.Cluster) {}, // onDisk puts the certificate there
	"extra-args": func(c *config.Cluster) {
		c.Etcd.Local.ExtraArgs = []config.Arg{{Name: "snapshot-count", Value: "5000"}, {Name: "quota-backend-bytes", Value: "8589934592"}}
		c.APIServer.ExtraArgs = []config.Arg{
			{Name: "service-account-issuer", Value: "https://issuer.example"},
			{Name: "service-account-issuer", Value: "https://kubernetes.default.svc.cluster.local"},
			{Name: "audit-log-path", Value: "-"},
		}
		c.ControllerManager.ExtraArgs = []config.Arg{{Name: "v", Value: "4"}}
		c.Scheduler.ExtraArgs = []config.Arg{{Name: "leader-elect", Value: "false"}}
	},
	"extra-envs": func(c *config.Cluster) {
		c.Etcd.Local.ExtraEnvs = []corev1.EnvVar{{Name: "ETCD_HEARTBEAT_INTERVAL", Value: "250"}}
		c.APIServer.ExtraEnvs = []corev1.EnvVar{{Name: "GODEBUG", Value: "http2client=0"}}
		c.ControllerManager.ExtraEnvs = []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "spec.nodeName"},
		}}}
	},
	"extra-volumes": func(c *config.Cluster) {
		c.APIServer.ExtraVolumes = []config.HostPathMount{
			{Name: "audit", HostPath: "/var/log/audit", MountPath: "/var/log/audit", PathType: corev1.HostPathDirectoryOrCreate},
			{Name: "k8s-certs", HostPath: "/srv/pki", MountPath: "/etc/kubernetes/pki", ReadOnly: true},
		}
		c.Scheduler.ExtraVolumes = []config.HostPathMount{
			{Name: "tracing", HostPath: "/etc/tracing.yaml", MountPath: "/etc/tracing.yaml", ReadOnly: true, PathType: corev1.HostPathFileOrCreate},
		}
	},
	"authorization-config": func(c *config.Cluster) {
		c.APIServer.ExtraArgs = []config.Arg{{Name: "authorization-config", Value: "/etc/kubernetes/authz.yaml"}}
	},
	"patch-strategic": func(c *config.Cluster) {
		c.Patches = []config.Patch{
			{Target: "kube-apiserver", Type: "strategic", File: "kube-apiserver.yaml", Data: []byte(`{"spec":{"containers":[{"name":"kube-apiserver","resources":{"requests":{"cpu":"1"}}}],"volumes":[{"name":"ca-certs","$patch":"delete"}]}}`)},
			{Target: "kubeletconfiguration", Type: "strategic", File: "kubeletconfiguration.yaml", Data: []byte(`{"maxPods":77}`)},
		}
	},
	"patch-merge": func(c *config.Cluster) {
		c.Patches = []config.Patch{{Target: "etcd", Type: "merge", File: "etcd+merge.yaml", Data: []byte(`{"metadata":{"annotations":{"example.org/owner":"edge"}},"spec":{"priority":null,"priorityClassName":null}}`)}}
	},
	"patch-json": func(c *config.Cluster) {
		c.Patches = []config.Patch{
			{Target: "kube-scheduler", Type: "json", File: "kube-scheduler1+json.json", Data: []byte(`[{"op":"replace","path":"/spec/containers/0/command/1","value":"--v=9"}]`)},
			{Target: "kube-scheduler", Type: "json", File: "kube-scheduler0+json.json", Data: []byte(`[{"op":"remove","path":"/spec/containers/0/command/1"}]`)},
		}
	},
	"key-ecdsa-p384": func(c *config.Cluster) { c.KeyAlgorithm = config.ECDSAP384 },
	"key-rsa-2048":   func(c *config.Cluster) { c.KeyAlgorithm = config.RSA2048 },
	"second-instance": func(c *config.Cluster) {
		c.Instance, c.Paths = "b", config.NewPaths("b")
		c.Etcd.Local.DataDir = "/var/lib/etcd-b"
		otherPorts(c)
	},
	"custom-ports":    otherPorts,
	"custom-data-dir": func(c *config.Cluster) { c.Etcd.Local.DataDir = "/srv/etcd" },
	"bind-addresses": func(c *config.Cluster) {
		c.ControllerManager.ExtraArgs = []config.Arg{{Name: "bind-address", Value: "0.0.0.0"}}
		c.Scheduler.ExtraArgs = []config.Arg{{Name: "bind-address", Value: "192.0.2.10"}}
	},
	"images": func(c *config.Cluster) {
		c.ImageRepository = "mirror.example/k8s"
		c.Images = config.Images{Etcd: "mirror.example/etcd:3.6.9-0", APIServer: "mirror.example/k8s/kube-apiserver:v1.36.3",
			ControllerManager: "mirror.example/k8s/kube-controller-manager:v1.36.3", Scheduler: "mirror.example/k8s/kube-scheduler:v1.36.3"}
	},
	"timeouts": func(c *config.Cluster) { c.Timeouts.ControlPlaneComponentHealthCheck = 6*time.Minute + 5*time.Second },
	"proxy": func(c *config.Cluster) {
		c.Facts.ProxyEnv = map[string]string{"HTTPS_PROXY": "http://proxy.example:3128", "no_proxy": "localhost", "NO_PROXY": "localhost"}
		c.APIServer.ExtraEnvs = []corev1.EnvVar{{Name: "NO_PROXY", Value: "10.0.0.0/8"}}
	},
	"ca-dirs-debian": func(c *config.Cluster) {
		c.Facts.CADirs = []string{"/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"}
	},
	"ca-dirs-rhel": func(c *config.Cluster) { c.Facts.CADirs = []string{"/etc/pki/ca-trust", "/etc/pki/tls/certs"} },
	"feature-gates": func(c *config.Cluster) {
		gates := []config.Arg{{Name: "feature-gates", Value: "SizeBasedListCostEstimate=false"}}
		c.FeatureGates = map[string]bool{"NodeLocalCRISocket": true}
		c.APIServer.ExtraArgs, c.ControllerManager.ExtraArgs, c.Scheduler.ExtraArgs = gates, gates, gates
		c.Kubelet = []byte(`{"featureGates":{"NodeSwap":true}}`)
	},
	"kubelet-document": func(c *config.Cluster) {
		c.Kubelet = []byte(`{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","cgroupDriver":"cgroupfs",
			"clusterDNS":["10.96.0.53"],"maxPods":42,"rotateCertificates":false,"syncFrequency":"30s","authentication":{"anonymous":{"enabled":true}},
			"evictionSoftGracePeriod":{"memory.available":"0s"}}`)
	},
	"systemd-resolved": func(c *config.Cluster) { c.Facts.ResolvConf = "/run/systemd/resolve/resolv.conf" },
	"cgroupfs":         func(c *config.Cluster) { c.Facts.CgroupDriver = "cgroupfs" },
}

// otherPorts moves every port: what a second instance on one host needs.
func otherPorts(c *config.Cluster) {
	c.BindPort = 16443
	c.Etcd.Local.ExtraArgs = []config.Arg{
		{Name: "advertise-client-urls", Value: "https://192.0.2.10:12379"},
		{Name: "initial-advertise-peer-urls", Value: "https://192.0.2.10:12380"},
		{Name: "initial-cluster", Value: "cp-1=https://192.0.2.10:12380"},
		{Name: "listen-client-urls", Value: "https://127.0.0.1:12379,https://192.0.2.10:12379"},
		{Name: "listen-metrics-urls", Value: "http://127.0.0.1:12381"},
		{Name: "listen-peer-urls", Value: "https://192.0.2.10:12380"},
	}
	c.ControllerManager.ExtraArgs = []config.Arg{{Name: "secure-port", Value: "20257"}}
	c.Scheduler.ExtraArgs = []config.Arg{{Name: "secure-port", Value: "20259"}}
}

// onDisk is what a variant finds on the host.
var onDisk = map[string][]artifact.File{
	"external-ca": {{Path: "/etc/kubernetes/pki/ca.crt", Data: []byte("a certificate"), Mode: 0o644}},
	"external-etcd": {
		{Path: "/etc/etcd/tls", Mode: fs.ModeDir | 0o700},
		{Path: "/srv/keys", Mode: fs.ModeDir | 0o750},
	},
}

// run executes the rendering phases of a cluster on a host that has only what is given, and returns what they write.
func run(t *testing.T, cfg *config.Cluster, host []artifact.File) []artifact.File {
	t.Helper()
	disk := artifact.Disk{Root: t.TempDir()}
	for _, f := range host {
		if err := disk.Put(f); err != nil {
			t.Fatal(err)
		}
	}
	overlay := artifact.NewOverlay(disk)
	env := &phases.Env{Config: cfg, Files: overlay, Report: func(phases.Event) {}}
	for _, phase := range []phases.Phase{kubelet.New(), etcd.New(), controlplane.New()} {
		if err := execute(t.Context(), phase, env); err != nil {
			t.Fatalf("%s: %v", phase.Name, err)
		}
	}
	changes, err := overlay.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []artifact.File
	for _, c := range changes {
		if c.Op != artifact.Unchanged {
			files = append(files, *c.After)
		}
	}
	return files
}

func execute(ctx context.Context, phase phases.Phase, env *phases.Env) error {
	if phase.Run != nil {
		return phase.Run(ctx, env)
	}
	for _, child := range phase.Phases {
		if err := execute(ctx, child, env); err != nil {
			return err
		}
	}
	return nil
}

// TestClusterConfigurationRendersTheSame: what the cluster keeps of its configuration, and what the node keeps of its own,
// are all that the files come from, beside the patches and the KubeletConfiguration.
func TestClusterConfigurationRendersTheSame(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		t.Run(name, func(t *testing.T) {
			cfg := cluster()
			variants[name](cfg)
			shared, err := config.ClusterConfiguration(cfg)
			if err != nil {
				t.Fatal(err)
			}
			own, err := config.InitConfiguration(cfg)
			if err != nil {
				t.Fatal(err)
			}
			again, _, err := config.Load(config.Options{File: "kubeadm-config", Data: slices.Concat(shared, []byte("---\n"), own), Facts: cfg.Facts, Instance: cfg.Instance})
			if err != nil {
				t.Fatalf("%v\n%s", err, shared)
			}
			again.Kubelet, again.Patches = cfg.Kubelet, cfg.Patches
			want, got := texts(run(t, cfg, onDisk[name])), texts(run(t, again, onDisk[name]))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("- before, + read back from\n%s\n%s", shared, diff)
			}
		})
	}
}

// texts are the files' contents by path.
func texts(files []artifact.File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		out[f.Path] = string(f.Data)
	}
	return out
}

func TestGolden(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		t.Run(name, func(t *testing.T) {
			cfg := cluster()
			variants[name](cfg)
			artifacttest.CompareTree(t, filepath.Join("../../testdata/golden", name), run(t, cfg, onDisk[name]), *update)
		})
	}
}
