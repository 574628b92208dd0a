package apply

import (
	"errors"
	"flag"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/supervisor"
)

// workflow is the part of init's that writes files.
func workflow() phases.Workflow {
	deps := supervisor.Deps{
		ContainerdConfig: func(c *config.Cluster) ([]byte, error) { return []byte("pause " + c.Images.Pause + "\n"), nil },
		LookPath:         func(name string) (string, error) { return "/usr/bin/" + name, nil },
	}
	return phases.Workflow{Phases: []phases.Phase{supervisor.Config(deps), pki.New(), kubeconfig.New(), kubelet.New(), etcd.New(), controlplane.New()}}
}

// configured loads documents: each is a kind and lines.
func configured(t *testing.T, documents ...string) *config.Cluster {
	t.Helper()
	data := ""
	for _, d := range documents {
		kind, lines, _ := strings.Cut(d, "\n")
		version := "kubeadm.k8s.io/v1beta4"
		switch kind {
		case "KubeletConfiguration":
			version = "kubelet.config.k8s.io/v1beta1"
		case "KubeProxyConfiguration":
			version = "kubeproxy.config.k8s.io/v1alpha1"
		}
		data += "---\napiVersion: " + version + "\nkind: " + kind + "\n" + lines + "\n"
	}
	if data == "" {
		data = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
	}
	cfg, _, err := config.Load(config.Options{File: "f.yaml", Data: []byte(data), Facts: config.HostFacts{
		Hostname: "node-1", DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.10")}, CgroupDriver: "systemd", Executable: "/usr/bin/slipway",
	}})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// run runs the workflow over a store and returns the changes.
func run(t *testing.T, cfg *config.Cluster, files artifact.Store, flush artifact.Flush) []artifact.Change {
	t.Helper()
	var changes []artifact.Change
	env := &phases.Env{Config: cfg, Files: files, Host: host.NewNarrator(), Now: time.Now, Report: func(e phases.Event) {
		if e.Kind == phases.Changed {
			changes = append(changes, e.Change)
		}
	}}
	plan, err := workflow().Plan(nil, nil)
	if err == nil {
		err = plan.Run(t.Context(), env, flush)
	}
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

// installed returns a disk with the files of a control plane.
func installed(t *testing.T, cfg *config.Cluster) artifact.Disk {
	t.Helper()
	disk := artifact.Disk{Root: t.TempDir()}
	overlay := artifact.NewOverlay(disk)
	run(t, cfg, overlay, overlay.Commit)
	return disk
}

// planned returns what apply would do on the disk for a configuration.
func planned(t *testing.T, disk artifact.Store, cfg *config.Cluster) ([]Step, error) {
	t.Helper()
	was, err := OnDisk(disk, cfg.Paths)
	if err != nil {
		t.Fatal(err)
	}
	is, err := Configured(cfg, controlplane.LocalCA(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if err := Refuse(was, is); err != nil {
		return nil, err
	}
	overlay := artifact.NewOverlay(disk)
	return Plan(run(t, cfg, overlay, overlay.Preview), cfg.Paths, is), nil
}

// restarted names what the steps restart, in their order.
func restarted(steps []Step) []string {
	var names []string
	for _, s := range steps {
		if s.Kind != Write {
			names = append(names, s.name())
		}
	}
	return names
}

// example is a change of a field: documents with it, and what was there before where the defaults were not.
type example struct{ was, is []string }

func examples() map[string]example {
	cluster := func(was, is string) example {
		return example{[]string{"ClusterConfiguration\n" + was}, []string{"ClusterConfiguration\n" + is}}
	}
	initial := func(is string) example { return example{nil, []string{"InitConfiguration\n" + is}} }
	kubelet := func(is string) example {
		return example{nil, []string{"ClusterConfiguration\n", "KubeletConfiguration\n" + is}}
	}
	external := "etcd: {external: {endpoints: [https://192.0.2.8:2379], caFile: /x/ca, certFile: /x/c, keyFile: /x/k}}"
	in := func(old, new string) example { return cluster(external, strings.Replace(external, old, new, 1)) }
	all := map[string]example{
		"bootstrapTokens[].token":                   initial("bootstrapTokens: [{token: aaaaaa.0123456789abcdef}]"),
		"bootstrapTokens[].description":             initial("bootstrapTokens: [{description: x}]"),
		"bootstrapTokens[].ttl":                     initial("bootstrapTokens: [{ttl: 1h}]"),
		"bootstrapTokens[].expires":                 initial(`bootstrapTokens: [{expires: "2030-01-01T00:00:00Z"}]`),
		"bootstrapTokens[].usages":                  initial("bootstrapTokens: [{usages: [signing]}]"),
		"bootstrapTokens[].groups":                  initial("bootstrapTokens: [{groups: [system:bootstrappers:a]}]"),
		"dryRun":                                    initial("dryRun: true"),
		"nodeRegistration.name":                     initial("nodeRegistration: {name: other}"),
		"nodeRegistration.criSocket":                initial("nodeRegistration: {criSocket: unix:///run/x.sock}"),
		"nodeRegistration.taints":                   initial("nodeRegistration: {taints: []}"),
		"nodeRegistration.ignorePreflightErrors":    initial("nodeRegistration: {ignorePreflightErrors: [Swap]}"),
		"nodeRegistration.imagePullPolicy":          initial("nodeRegistration: {imagePullPolicy: Never}"),
		"nodeRegistration.imagePullSerial":          initial("nodeRegistration: {imagePullSerial: false}"),
		"localAPIEndpoint.advertiseAddress":         initial("localAPIEndpoint: {advertiseAddress: 192.0.2.11}"),
		"localAPIEndpoint.bindPort":                 initial("localAPIEndpoint: {bindPort: 443}"),
		"certificateKey":                            initial("certificateKey: " + strings.Repeat("0a", 32)),
		"skipPhases":                                initial("skipPhases: [preflight]"),
		"timeouts.controlPlaneComponentHealthCheck": initial("timeouts: {controlPlaneComponentHealthCheck: 1m}"),
		"timeouts.kubernetesAPICall":                initial("timeouts: {kubernetesAPICall: 2m}"),
		"timeouts.etcdAPICall":                      initial("timeouts: {etcdAPICall: 1m}"),

		"etcd.local.imageRepository":                    cluster("", "etcd: {local: {imageRepository: registry.example/e}}"),
		"etcd.local.imageTag":                           cluster("", "etcd: {local: {imageTag: 3.6.9-0}}"),
		"etcd.local.dataDir":                            cluster("", "etcd: {local: {dataDir: /srv/etcd}}"),
		"etcd.local.extraArgs[].name":                   cluster("etcd: {local: {extraArgs: [{name: a, value: '1'}]}}", "etcd: {local: {extraArgs: [{name: b, value: '1'}]}}"),
		"etcd.local.extraArgs[].value":                  cluster("etcd: {local: {extraArgs: [{name: a, value: '1'}]}}", "etcd: {local: {extraArgs: [{name: a, value: '2'}]}}"),
		"etcd.local.extraEnvs":                          cluster("", "etcd: {local: {extraEnvs: [{name: A, value: b}]}}"),
		"etcd.local.serverCertSANs":                     cluster("", "etcd: {local: {serverCertSANs: [etcd.example]}}"),
		"etcd.local.peerCertSANs":                       cluster("", "etcd: {local: {peerCertSANs: [etcd.example]}}"),
		"etcd.external.endpoints":                       in("[", "[https://192.0.2.9:2379, "),
		"etcd.external.httpEndpoints":                   in("],", "], httpEndpoints: [https://192.0.2.9:2381],"),
		"etcd.external.caFile":                          in("/x/ca", "/x/ca2"),
		"etcd.external.certFile":                        in("/x/c,", "/x/c2,"),
		"etcd.external.keyFile":                         in("/x/k", "/x/k2"),
		"networking.serviceSubnet":                      cluster("", "networking: {serviceSubnet: 10.112.0.0/16}"),
		"networking.podSubnet":                          cluster("", "networking: {podSubnet: 10.244.0.0/16}"),
		"networking.dnsDomain":                          cluster("", "networking: {dnsDomain: other.local}"),
		"kubernetesVersion":                             cluster("kubernetesVersion: v1.35.1", "kubernetesVersion: v1.36.3"),
		"controlPlaneEndpoint":                          cluster("", "controlPlaneEndpoint: api.example"),
		"apiServer.certSANs":                            cluster("", "apiServer: {certSANs: [api.example]}"),
		"dns.imageRepository":                           cluster("", "dns: {imageRepository: registry.example/dns}"),
		"dns.imageTag":                                  cluster("", "dns: {imageTag: v1.0.0}"),
		"dns.disabled":                                  cluster("", "dns: {disabled: true}"),
		"proxy.disabled":                                cluster("", "proxy: {disabled: true}"),
		"certificatesDir":                               cluster("", "certificatesDir: /srv/pki"),
		"imageRepository":                               cluster("", "imageRepository: registry.example/k8s"),
		"featureGates":                                  cluster("", "featureGates: {PublicKeysECDSA: false}"),
		"clusterName":                                   cluster("", "clusterName: other"),
		"encryptionAlgorithm":                           cluster("", "encryptionAlgorithm: ECDSA-P384"),
		"certificateValidityPeriod":                     cluster("", "certificateValidityPeriod: 1000h"),
		"caCertificateValidityPeriod":                   cluster("", "caCertificateValidityPeriod: 90000h"),
		"KubeletConfiguration":                          kubelet("containerLogMaxSize: 5Mi"),
		"KubeProxyConfiguration":                        {nil, []string{"ClusterConfiguration\n", "KubeProxyConfiguration\nmode: nftables"}},
		"KubeletConfiguration.staticPodPath":            kubelet("staticPodPath: /srv/manifests"),
		"KubeletConfiguration.containerRuntimeEndpoint": kubelet("containerRuntimeEndpoint: unix:///run/x.sock"),
		"KubeletConfiguration.cgroupDriver":             kubelet("cgroupDriver: cgroupfs"),
		"KubeletConfiguration.cgroupRoot":               kubelet("cgroupRoot: /other"),
		"KubeletConfiguration.clusterDomain":            kubelet("clusterDomain: other.local"),
	}
	for _, c := range []string{"apiServer", "controllerManager", "scheduler"} {
		volume := c + ": {extraVolumes: [{name: a, hostPath: /a, mountPath: /b}]}"
		volumes := func(old, new string) example { return cluster(volume, strings.Replace(volume, old, new, 1)) }
		all[c+".extraArgs[].name"] = cluster(c+": {extraArgs: [{name: a, value: '1'}]}", c+": {extraArgs: [{name: b, value: '1'}]}")
		all[c+".extraArgs[].value"] = cluster("", c+": {extraArgs: [{name: v, value: '2'}]}")
		all[c+".extraEnvs"] = cluster("", c+": {extraEnvs: [{name: A, value: b}]}")
		all[c+".extraVolumes[].name"] = volumes("name: a", "name: c")
		all[c+".extraVolumes[].hostPath"] = volumes("hostPath: /a", "hostPath: /c")
		all[c+".extraVolumes[].mountPath"] = volumes("mountPath: /b", "mountPath: /c")
		all[c+".extraVolumes[].readOnly"] = volumes("}]}", ", readOnly: true}]}")
		all[c+".extraVolumes[].pathType"] = volumes("}]}", ", pathType: DirectoryOrCreate}]}")
	}
	return all
}

// inline are fields that the configuration itself refuses, or that name a directory: nothing of them can be tried here.
var inline = []string{"patches.directory", "nodeRegistration.kubeletExtraArgs[].name", "nodeRegistration.kubeletExtraArgs[].value",
	"timeouts.kubeletHealthCheck", "timeouts.tlsBootstrap", "timeouts.discovery", "timeouts.upgradeManifests"}

// TestEveryFieldHasItsEffect changes each field on a control plane that is there, and compares what apply would do with
// what the table says.
func TestEveryFieldHasItsEffect(t *testing.T) {
	initial, cluster := config.Fields()
	all := append(initial, cluster...)
	table := map[string]Field{}
	for _, f := range Fields() {
		table[f.Path] = f
		if !slices.Contains(all, f.Path) && !strings.HasPrefix(f.Path, "Kube") {
			t.Errorf("no document has the field %s", f.Path)
		}
	}
	for _, path := range all {
		if _, ok := table[path]; !ok {
			t.Errorf("nothing says what a change of %s does", path)
		}
	}
	disks, outer := map[string]artifact.Disk{}, t
	tried := examples()
	for _, f := range Fields() {
		e, ok := tried[f.Path]
		if !ok {
			if !slices.Contains(inline, f.Path) {
				t.Errorf("no example of a change of %s", f.Path)
			}
			continue
		}
		t.Run(f.Path, func(t *testing.T) {
			key := strings.Join(e.was, "\n")
			if _, there := disks[key]; !there {
				disk := artifact.Disk{Root: outer.TempDir()}
				overlay := artifact.NewOverlay(disk)
				run(t, configured(t, e.was...), overlay, overlay.Commit)
				disks[key] = disk
			}
			steps, err := planned(t, disks[key], configured(t, e.is...))
			refused := errors.As(err, new(*Refusal))
			if refused != (f.Effect == Refused) {
				t.Fatalf("the table says %q; refused: %v", f, err)
			}
			if err == nil && f.Effect != Restarts && len(steps) > 0 {
				t.Errorf("the table says %q; there are the steps %v", f, steps)
			}
			if got := restarted(steps); !slices.Equal(got, f.Restarts) {
				t.Errorf("restarts %v, the table says %v", got, f.Restarts)
			}
			if field := f.Path; refused {
				if _, same, ok := strings.Cut(f.Note, "as "); ok {
					field = same
				}
				if !strings.HasPrefix(err.Error(), field+": cannot be changed from ") {
					t.Errorf("the refusal names another field: %v", err)
				}
			}
		})
	}
}

// TestDocumentation: docs/apply.md has every field, with the table's words.
func TestDocumentation(t *testing.T) {
	const path = "../../docs/apply.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, _, found := strings.Cut(string(data), "| Field | |\n|---|---|\n")
	if !found {
		t.Fatalf("%s has no table of fields", path)
	}
	want := head + "| Field | |\n|---|---|\n"
	for _, f := range Fields() {
		want += "| `" + f.Path + "` | " + f.String() + " |\n"
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(data) {
		t.Errorf("%s is not what the table says; rewrite it with: go test ./phases/apply -update", path)
	}
}

var update = flag.Bool("update", false, "rewrite the table in docs/apply.md")
