package pki_test

import (
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

var kubeadm = flag.String("kubeadm", "", "path of a kubeadm v1.36: rewrites testdata/pki/kubeadm-*.txt from what it makes")

// variant is one input, for slipway as a change to the default cluster and for kubeadm as documents.
type variant struct {
	name    string
	change  func(*config.Cluster)
	init    string // fields of InitConfiguration
	cluster string // fields of ClusterConfiguration
}

// instanceVariant has no counterpart in kubeadm.
const instanceVariant = "instance"

func variants() []variant {
	return []variant{
		{name: "defaults", change: func(*config.Cluster) {}, cluster: "encryptionAlgorithm: ECDSA-P256"},
		{name: "rsa-2048", change: func(c *config.Cluster) { c.KeyAlgorithm = config.RSA2048 }},
		{name: "ecdsa-p384", change: func(c *config.Cluster) { c.KeyAlgorithm = config.ECDSAP384 }, cluster: "encryptionAlgorithm: ECDSA-P384"},
		{name: "endpoint", cluster: "encryptionAlgorithm: ECDSA-P256\ncontrolPlaneEndpoint: api.example.com:8443\n" +
			"apiServer: {certSANs: [extra.example.com, '*.wild.example.com', 192.0.2.7, api.example.com, 10.0.0.5]}",
			change: func(c *config.Cluster) {
				c.ControlPlaneEndpoint = "api.example.com:8443"
				c.CertSANs = []string{"extra.example.com", "*.wild.example.com", "192.0.2.7", "api.example.com", "10.0.0.5"}
			}},
		{name: "endpoint-without-port", init: "localAPIEndpoint: {advertiseAddress: 10.0.0.5, bindPort: 7443}",
			cluster: "encryptionAlgorithm: ECDSA-P256\ncontrolPlaneEndpoint: 192.0.2.9",
			change:  func(c *config.Cluster) { c.ControlPlaneEndpoint, c.BindPort = "192.0.2.9", 7443 }},
		{name: "dual-stack", cluster: "encryptionAlgorithm: ECDSA-P256\nnetworking: {serviceSubnet: '10.96.0.0/16,fd00:96::/112'}",
			change: func(c *config.Cluster) {
				c.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")}
			}},
		{name: "ipv6", init: "localAPIEndpoint: {advertiseAddress: 'fd00::5'}",
			cluster: "encryptionAlgorithm: ECDSA-P256\nnetworking: {serviceSubnet: 'fd00:96::/112'}\ncontrolPlaneEndpoint: '[fd00::9]:6443'",
			change: func(c *config.Cluster) {
				c.AdvertiseAddress = netip.MustParseAddr("fd00::5")
				c.ServiceSubnets = []netip.Prefix{netip.MustParsePrefix("fd00:96::/112")}
				c.ControlPlaneEndpoint = "[fd00::9]:6443"
			}},
		{name: "external-etcd", cluster: "encryptionAlgorithm: ECDSA-P256\netcd: {external: {endpoints: ['https://192.0.2.1:2379'], caFile: /x/ca, certFile: /x/crt, keyFile: /x/key}}",
			change: func(c *config.Cluster) {
				c.Etcd = config.Etcd{External: &config.ExternalEtcd{Endpoints: []string{"https://192.0.2.1:2379"}}}
			}},
		{name: "etcd-names", cluster: "encryptionAlgorithm: ECDSA-P256\netcd: {local: {serverCertSANs: [etcd.example.com, 192.0.2.3], peerCertSANs: [peer.example.com, 192.0.2.4]}}",
			change: func(c *config.Cluster) {
				c.Etcd.Local.ServerCertSANs = []string{"etcd.example.com", "192.0.2.3"}
				c.Etcd.Local.PeerCertSANs = []string{"peer.example.com", "192.0.2.4"}
			}},
		{name: "names-and-validity", cluster: "encryptionAlgorithm: ECDSA-P256\nclusterName: harbour\nnetworking: {dnsDomain: k8s.example.com}\n" +
			"certificateValidityPeriod: 24h\ncaCertificateValidityPeriod: 240h",
			change: func(c *config.Cluster) {
				c.ClusterName, c.DNSDomain = "harbour", "k8s.example.com"
				c.CertificateValidity, c.CAValidity = 24*time.Hour, 240*time.Hour
			}},
		{name: instanceVariant, change: func(c *config.Cluster) { c.Paths = config.NewPaths("b") }},
	}
}

// difference is one value more than kubeadm has, on purpose.
type difference struct{ path, field, adds, why string }

// intended differences are those of docs/pki.md. (The default key algorithm is one too; the variants set it.)
func intended() []difference {
	const why = "the API server is reachable on its own node without knowing the node's address"
	return []difference{
		{"/etc/kubernetes/pki/apiserver.crt", "dns", "localhost", why},
		{"/etc/kubernetes/pki/apiserver.crt", "ip", "127.0.0.1", why},
		{"/etc/kubernetes/pki/apiserver.crt", "ip", "::1", why},
	}
}

// TestParityWithKubeadm compares with the profile of what kubeadm made from the same input. The profiles are rewritten
// by `go test ./phases/pki -run Parity -kubeadm PATH`.
func TestParityWithKubeadm(t *testing.T) {
	generate := threeKeys()
	seen := map[difference]bool{}
	for _, v := range variants() {
		if v.name == instanceVariant {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			path := filepath.Join("..", "..", "testdata", "pki", "kubeadm-"+v.name+".txt")
			if *kubeadm != "" {
				if err := os.WriteFile(path, []byte(runKubeadm(t, v)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			theirs, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := newMemory()
			if _, err := runWith(t, pki.NewKeys(generate, 0, 1), cluster(v.change), files, now); err != nil {
				t.Fatal(err)
			}
			compare(t, string(theirs), profile(t, files.files, now), seen)
		})
	}
	for _, d := range intended() {
		if !seen[d] {
			t.Errorf("intended difference %q in %s of %s was not seen: remove it from the list and from docs/pki.md", d.adds, d.field, d.path)
		}
	}
}

func compare(t *testing.T, theirs string, ours map[string][]field, seen map[difference]bool) {
	t.Helper()
	adjusted := map[string][]field{}
	for path, fields := range ours {
		for _, f := range fields {
			for _, d := range intended() {
				if d.path == path && d.field == f.name {
					values := strings.Fields(f.value)
					if i := slices.Index(values, d.adds); i >= 0 {
						f.value, seen[d] = strings.Join(slices.Delete(values, i, i+1), " "), true
					}
				}
			}
			adjusted[path] = append(adjusted[path], f)
		}
	}
	if got := render(adjusted); got != theirs {
		t.Errorf("apart from the intended differences, slipway made\n%s\nand kubeadm\n%s", got, theirs)
	}
}

// runKubeadm returns the profile of what kubeadm makes, as if it had been made below /etc/kubernetes.
func runKubeadm(t *testing.T, v variant) string {
	t.Helper()
	dir := t.TempDir()
	init := v.init
	if init == "" {
		init = "localAPIEndpoint: {advertiseAddress: 10.0.0.5}"
	}
	doc := fmt.Sprintf("apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {name: node-a, criSocket: 'unix:///none'}\n%s\n---\n"+
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.3\ncertificatesDir: %s/pki\n%s\n", init, dir, v.cluster)
	input := filepath.Join(t.TempDir(), "kubeadm.yaml")
	if err := os.WriteFile(input, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"certs", "all"}, {"kubeconfig", "all", "--kubeconfig-dir", dir}} {
		cmd := exec.CommandContext(t.Context(), *kubeadm, append(append([]string{"init", "phase"}, args...), "--config", input)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, out)
		}
	}
	files := map[string]artifact.File{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		path = "/etc/kubernetes" + strings.TrimPrefix(path, dir)
		files[path] = artifact.File{Path: path, Data: data, Mode: info.Mode()}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(files["/etc/kubernetes/pki/ca.crt"].Data)
	if err != nil {
		t.Fatal(err)
	}
	return render(profile(t, files, certs[0].NotBefore.Add(5*time.Minute)))
}
