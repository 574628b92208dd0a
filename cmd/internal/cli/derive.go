package cli

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// derived is where a Cluster comes from that no user describes: a node's own files.
type derived struct {
	plane *plane.Plane
	files interface {
		ReadFile(path string) (artifact.File, error)
	}
	move          plane.Move
	facts         config.HostFacts
	instance      string
	configuration []byte // kubeadm's ClusterConfiguration, as the cluster keeps it; nil where it does not
	ignored       []string
}

// cluster returns what the phases need to know of the node after the move. The manifests themselves are not rendered from
// it: they are carried over as they are, with what a user has changed in them.
func (d derived) cluster() (*config.Cluster, []string, error) {
	options := config.Options{Facts: d.facts, Instance: d.instance, File: "the node's own configuration", Flags: config.Flags{
		AdvertiseAddress: config.Given(d.move.To.String()), BindPort: config.Given(int(d.plane.Port)),
		NodeName: config.Given(d.move.ToName), CertDir: config.Given(d.plane.Paths.PKI),
		IgnorePreflightErrors: config.Given(d.ignored),
	}}
	kubelet, socket, err := d.kubelet()
	if err != nil {
		return nil, nil, err
	}
	if socket != "" {
		options.Flags.CRISocket = config.Given(socket)
	}
	if d.configuration != nil {
		options.Data = fmt.Appendf(nil, "%s\n---\n%s", d.move.Text(string(d.configuration)), kubelet)
		if cluster, warnings, err := config.Load(options); err == nil {
			d.complete(cluster)
			return cluster, warnings, nil
		} // an editor spoilt it: the manifests have what is needed, too
	}
	generated, err := d.generated()
	if err != nil {
		return nil, nil, err
	}
	options.Data = fmt.Appendf(nil, "%s\n---\n%s", generated, kubelet)
	cluster, warnings, err := config.Load(options)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the node's configuration off its files: %w", err)
	}
	d.complete(cluster)
	return cluster, warnings, nil
}

// kubelet returns the node's KubeletConfiguration without what depends on the machine, and the socket of a runtime that
// the user brought.
func (d derived) kubelet() (document []byte, socket string, err error) {
	f, err := d.files.ReadFile(d.plane.Paths.KubeletConfig)
	if err != nil {
		return nil, "", fmt.Errorf("reading the KubeletConfiguration: %w", err)
	}
	fields := map[string]any{}
	if err := yaml.Unmarshal(f.Data, &fields); err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", f.Path, err)
	}
	if endpoint, _ := fields["containerRuntimeEndpoint"].(string); endpoint != "unix://"+d.plane.Paths.ContainerdSocket {
		socket = endpoint
	}
	for _, name := range []string{"containerRuntimeEndpoint", "cgroupDriver", "resolvConf", "staticPodPath"} {
		delete(fields, name)
	}
	document, err = yaml.Marshal(fields)
	return document, socket, err
}

// generated returns a ClusterConfiguration of what the manifests' flags say.
func (d derived) generated() ([]byte, error) {
	api, manager := d.plane.Components[plane.APIServer], d.plane.Components[plane.ControllerManager]
	networking := map[string]string{}
	if v, ok := api.Flag("service-cluster-ip-range"); ok {
		networking["serviceSubnet"] = v
	}
	if v, ok := manager.Flag("cluster-cidr"); ok {
		networking["podSubnet"] = v
	}
	if v, ok := api.Flag("service-account-issuer"); ok {
		if domain, ok := strings.CutPrefix(v, "https://kubernetes.default.svc."); ok {
			networking["dnsDomain"] = domain
		}
	}
	fields := map[string]any{
		"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration", "networking": networking, "kubernetesVersion": d.plane.Version,
	}
	if v, ok := manager.Flag("cluster-name"); ok {
		fields["clusterName"] = v
	}
	if endpoint := d.endpoint(); endpoint != "" {
		fields["controlPlaneEndpoint"] = endpoint
	}
	return json.Marshal(fields)
}

// endpoint is the stable endpoint that admin.conf points at; "" where that is the node itself.
func (d derived) endpoint() string {
	read := func(path string) ([]byte, error) {
		f, err := d.files.ReadFile(path)
		return f.Data, err
	}
	path := d.plane.Paths.Kubeconfig("admin.conf")
	data, err := read(path)
	if err != nil {
		return ""
	}
	c, _, err := document.Load(data, d.plane.Paths.Kubernetes, read)
	if err != nil {
		return ""
	}
	hostport := strings.TrimPrefix(strings.TrimSuffix(c.Server, "/"), "https://")
	if host, _, err := net.SplitHostPort(hostport); err != nil || host == d.move.From.String() || host == d.move.To.String() {
		return ""
	}
	return hostport
}

// complete takes over what the files know better than a configuration: images, places, and names that certificates have.
func (d derived) complete(c *config.Cluster) {
	for name, into := range map[string]*string{
		plane.Etcd: &c.Images.Etcd, plane.APIServer: &c.Images.APIServer, plane.ControllerManager: &c.Images.ControllerManager, plane.Scheduler: &c.Images.Scheduler,
	} {
		if component := d.plane.Components[name]; component != nil {
			*into = component.Image
		}
	}
	c.CertSANs = d.names(c.CertSANs, "apiserver.crt")
	if d.plane.Member != nil && c.Etcd.Local != nil {
		c.Etcd.Local.DataDir = d.plane.Member.DataDir
		c.Etcd.Local.ServerCertSANs = d.names(c.Etcd.Local.ServerCertSANs, "etcd/server.crt")
		c.Etcd.Local.PeerCertSANs = d.names(c.Etcd.Local.PeerCertSANs, "etcd/peer.crt")
	}
}

// names adds the names of a certificate on disk, after the move, to those that are wanted.
func (d derived) names(wanted []string, file string) []string {
	f, err := d.files.ReadFile(d.plane.Paths.PKI + "/" + file)
	if err != nil {
		return wanted // the phase that makes it will tell
	}
	block, _ := pem.Decode(f.Data)
	if block == nil {
		return wanted
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return wanted
	}
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	out := slices.Clone(wanted)
	for _, n := range d.move.Names(names) {
		if !slices.Contains(out, n) && n != d.move.To.String() && n != d.move.ToName {
			out = append(out, n)
		}
	}
	return out
}
