package uploadconfig

import (
	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
)

// clusterConfiguration returns what a joining node needs of the ClusterConfiguration.
func clusterConfiguration(c *config.Cluster) ([]byte, error) {
	networking := map[string]any{"dnsDomain": c.DNSDomain, "serviceSubnet": subnets(c.ServiceSubnets)}
	if len(c.PodSubnets) > 0 {
		networking["podSubnet"] = subnets(c.PodSubnets)
	}
	doc := map[string]any{
		"apiVersion": "kubeadm.k8s.io/v1beta4", "kind": "ClusterConfiguration",
		"clusterName": c.ClusterName, "kubernetesVersion": c.KubernetesVersion, "imageRepository": c.ImageRepository,
		"certificatesDir": c.Paths.PKI, "networking": networking,
	}
	if c.ControlPlaneEndpoint != "" {
		doc["controlPlaneEndpoint"] = c.ControlPlaneEndpoint
	}
	switch {
	case c.Etcd.Local != nil:
		doc["etcd"] = map[string]any{"local": map[string]any{"dataDir": c.Etcd.Local.DataDir}}
	case c.Etcd.External != nil:
		e := c.Etcd.External
		doc["etcd"] = map[string]any{"external": map[string]any{"endpoints": e.Endpoints, "caFile": e.CAFile, "certFile": e.CertFile, "keyFile": e.KeyFile}}
	}
	return yaml.Marshal(doc)
}

func subnets(list []netip.Prefix) string {
	var s []string
	for _, p := range list {
		s = append(s, fmt.Sprint(p))
	}
	return strings.Join(s, ",")
}
