package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readBack loads what is rendered of a cluster, as the options did that made it.
func readBack(t *testing.T, c *Cluster, o Options) (*Cluster, []byte) {
	t.Helper()
	shared, err := ClusterConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	own, err := InitConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Concat(shared, []byte("---\n"), own)
	for _, doc := range [][]byte{c.Kubelet, c.KubeProxy} {
		if doc != nil {
			data = slices.Concat(data, []byte("---\n"), doc, []byte("\n"))
		}
	}
	o.File, o.Data, o.Flags = "rendered.yaml", data, Flags{UploadCerts: Given(c.UploadCerts), CertificateKey: o.Flags.CertificateKey}
	again, _, err := Load(o)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return again, data
}

// withoutSecrets is a cluster as it is read back: its documents hold none.
func withoutSecrets(c *Cluster) *Cluster {
	out := *c
	out.CertificateKey, out.BootstrapTokens = "", slices.Clone(c.BootstrapTokens)
	for i := range out.BootstrapTokens {
		out.BootstrapTokens[i].ID, out.BootstrapTokens[i].Secret = "", ""
	}
	return &out
}

func TestRenderedDocumentsMakeTheSameCluster(t *testing.T) {
	for _, path := range files(t, "good") {
		if strings.HasSuffix(path, ".golden.json") {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			o, _ := options(t, path)
			c, _, err := Load(o)
			if err != nil {
				t.Fatal(err)
			}
			again, data := readBack(t, c, o)
			want, got := goldenText(t, withoutSecrets(c), nil), goldenText(t, withoutSecrets(again), nil)
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("- before, + read back from\n%s\n%s", data, diff)
			}
			for _, token := range c.BootstrapTokens {
				if token.Secret != "" && strings.Contains(string(data), token.Secret) {
					t.Error("a token is in the documents")
				}
			}
			if c.CertificateKey != "" && strings.Contains(string(data), c.CertificateKey) {
				t.Error("the certificate key is in the documents")
			}
		})
	}
}

func TestClusterConfigurationKeepsTheUsersForm(t *testing.T) {
	const given = `apiServer:
  certSANs:
  - api.example.com
  extraArgs:
  - name: v
    value: "4"
  - name: audit-log-path
    value: ""
  extraVolumes:
  - hostPath: /var/log/audit
    mountPath: /var/log/audit
    name: audit
    pathType: DirectoryOrCreate
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 720h0m0s
certificatesDir: /srv/pki
clusterName: edge
controlPlaneEndpoint: api.example.com:6443
controllerManager:
  extraEnvs:
  - name: GODEBUG
    value: "yes"
dns:
  imageTag: v1.14.1
encryptionAlgorithm: ECDSA-P384
etcd:
  local:
    dataDir: /srv/etcd
    imageRepository: mirror.example.com/etcd
imageRepository: mirror.example.com/k8s
kind: ClusterConfiguration
kubernetesVersion: v1.36.1
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16,fd01::/48
  serviceSubnet: 10.96.0.0/12,fd00::/108
`
	c, _, err := Load(Options{File: "f.yaml", Data: []byte(given), Facts: testFacts()})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ClusterConfiguration(c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(given, string(got)); diff != "" {
		t.Errorf("- given, + rendered:\n%s", diff)
	}
}
