package cli

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/etcd"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// TestClusterIsReadOffItsOwnFiles renders a node's files and reads the cluster back off them, at another address.
func TestClusterIsReadOffItsOwnFiles(t *testing.T) {
	facts := config.HostFacts{Hostname: "edge1", DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, CgroupDriver: "systemd", ResolvConf: "/run/systemd/resolve/resolv.conf"}
	was, _, err := config.Load(config.Options{Facts: facts, File: "cluster.yaml", Data: []byte(`apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: harbour
imageRepository: registry.example/k8s
networking: {serviceSubnet: 10.50.0.0/16, podSubnet: 10.60.0.0/16, dnsDomain: harbour.local}
etcd: {local: {dataDir: /srv/etcd}}
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
maxPods: 77
`), Flags: config.Flags{BindPort: config.Given(7443)}})
	if err != nil {
		t.Fatal(err)
	}
	disk := artifact.Disk{Root: t.TempDir()}
	files, err := etcd.Manifests(was)
	if err != nil {
		t.Fatal(err)
	}
	more, err := controlplane.Manifests(was, controlplane.SigningCA{})
	if err != nil {
		t.Fatal(err)
	}
	settings, err := kubelet.File(was)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(append(files, more...), settings) {
		if err := disk.Put(f); err != nil {
			t.Fatal(err)
		}
	}
	p, err := plane.Read(disk, was.Paths)
	if err != nil {
		t.Fatal(err)
	}
	written, err := config.ClusterConfiguration(was)
	if err != nil {
		t.Fatal(err)
	}
	for name, configuration := range map[string][]byte{"kubeadm-config": written, "flags alone": nil, "spoilt": []byte("{")} {
		t.Run(name, func(t *testing.T) {
			elsewhere := facts
			elsewhere.CgroupDriver, elsewhere.ResolvConf = "cgroupfs", ""
			d := derived{plane: p, files: disk, facts: elsewhere, configuration: configuration,
				move: plane.Move{From: was.AdvertiseAddress, To: netip.MustParseAddr("192.0.2.2"), FromName: "edge1", ToName: "edge2"}}
			c, _, err := d.cluster()
			if err != nil {
				t.Fatal(err)
			}
			if c.NodeName != "edge2" || c.AdvertiseAddress != d.move.To || c.BindPort != 7443 || c.CRISocket != "" {
				t.Errorf("node %q at %s:%d, socket %q", c.NodeName, c.AdvertiseAddress, c.BindPort, c.CRISocket)
			}
			if c.ClusterName != was.ClusterName || c.DNSDomain != was.DNSDomain || !slices.Equal(c.ServiceSubnets, was.ServiceSubnets) || !slices.Equal(c.PodSubnets, was.PodSubnets) {
				t.Errorf("cluster %q, domain %q, services %v, pods %v", c.ClusterName, c.DNSDomain, c.ServiceSubnets, c.PodSubnets)
			}
			if c.Images.Etcd != was.Images.Etcd || c.Images.APIServer != was.Images.APIServer || c.Etcd.Local.DataDir != "/srv/etcd" {
				t.Errorf("images %+v, data in %q", c.Images, c.Etcd.Local.DataDir)
			}
			here, err := kubelet.File(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := disk.Put(artifact.File{Path: filepath.Join("/tmp", "config.yaml"), Data: here.Data, Mode: 0o600}); err != nil {
				t.Fatal(err)
			}
			got, err := readKubeletConfig(filepath.Join(disk.Root, "/tmp/config.yaml"))
			if err != nil || got.MaxPods != 77 || got.CgroupDriver != "cgroupfs" || got.ResolverConfig != nil {
				t.Errorf("the KubeletConfiguration here: %v\n%s", err, here.Data)
			}
		})
	}
}
