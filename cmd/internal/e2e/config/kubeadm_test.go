//go:build e2e

package config

import (
	"bytes"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
)

const repository = "../../../.."

// kubeadm runs the real one and returns what it prints.
func kubeadm(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), filepath.Join(repository, "bin/k8s/kubeadm"), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubeadm %s: %v\n%s", strings.Join(args, " "), err, &errs)
	}
	return out.String()
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repository, "testdata/config", dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files under %s: %v", dir, err)
	}
	return paths
}

func facts() config.HostFacts {
	return config.HostFacts{
		Hostname:         "node-1",
		DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
		CgroupDriver:     "systemd",
	}
}

func TestKubeadmAcceptsTheDefaults(t *testing.T) {
	for name, defaults := range map[string]func() ([]byte, error){
		"init": config.InitDefaults, "join": config.JoinDefaults, "reset": config.ResetDefaults, "upgrade": config.UpgradeDefaults,
		"kube-proxy": func() ([]byte, error) {
			init, err := config.InitDefaults()
			if err != nil {
				return nil, err
			}
			proxy, err := config.KubeProxyDefaults()
			return slices.Concat(init, []byte("---\n"), proxy), err
		},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := defaults()
			if err != nil {
				t.Fatal(err)
			}
			kubeadm(t, "config", "validate", "--config", file(t, data))
		})
	}
}

// TestDefaultsOfOtherCommandsAreKubeadms: its commands read them, so they say what its commands do by themselves.
func TestDefaultsOfOtherCommandsAreKubeadms(t *testing.T) {
	for name, defaults := range map[string]func() ([]byte, error){"join": config.JoinDefaults, "reset": config.ResetDefaults, "upgrade": config.UpgradeDefaults} {
		t.Run(name, func(t *testing.T) {
			data, err := defaults()
			if err != nil {
				t.Fatal(err)
			}
			hostname := regexp.MustCompile(`(?m)^  name: .*$`)
			want := hostname.ReplaceAllString(kubeadm(t, "config", "print", name+"-defaults"), "  name: node")
			if diff := cmp.Diff(want, string(data)); diff != "" {
				t.Errorf("- kubeadm, + slipway:\n%s", diff)
			}
		})
	}
}

// TestKubeadmAcceptsClusterConfiguration: what ConfigMap kubeadm-config holds is read by kubeadm join and upgrade.
func TestKubeadmAcceptsClusterConfiguration(t *testing.T) {
	for _, path := range files(t, "good") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(data, []byte("# file: none")) {
				data = nil
			}
			c, _, err := config.Load(config.Options{File: path, Data: data, Facts: facts()})
			if err != nil {
				t.Fatal(err)
			}
			shared, err := config.ClusterConfiguration(c)
			if err != nil {
				t.Fatal(err)
			}
			c.BootstrapTokens = nil // kubeadm gives a token that expires a ttl too, and then refuses both
			own, err := config.InitConfiguration(c)
			if err != nil {
				t.Fatal(err)
			}
			kubeadm(t, "config", "validate", "--config", file(t, slices.Concat(shared, []byte("---\n"), own)))
		})
	}
}

// TestMigrateAgreesWithKubeadm: kubeadm makes the same of the old file and of what slipway made of it. It draws tokens,
// and forgets one timeout of a file that is new already, which is compared by itself.
func TestMigrateAgreesWithKubeadm(t *testing.T) {
	token := regexp.MustCompile(`token: [a-z0-9]{6}\.[a-z0-9]{16}`)
	health := regexp.MustCompile(`(?m)^  controlPlaneComponentHealthCheck: (.*)$`)
	for _, path := range files(t, "v1beta3") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			migrated, _, err := config.Migrate(filepath.Base(path), data)
			if err != nil {
				t.Fatal(err)
			}
			ours := file(t, migrated)
			kubeadm(t, "config", "validate", "--config", ours)
			want, got := kubeadm(t, "config", "migrate", "--old-config", path), kubeadm(t, "config", "migrate", "--old-config", ours)
			if wanted, is := duration(t, health.FindStringSubmatch(want)), timeout(t, migrated); wanted != is {
				t.Errorf("controlPlaneComponentHealthCheck is %s, kubeadm makes it %s", is, wanted)
			}
			if !bytes.Contains(data, []byte("token:")) {
				want, got = token.ReplaceAllString(want, "token: drawn"), token.ReplaceAllString(got, "token: drawn")
			}
			want, got = health.ReplaceAllString(want, ""), health.ReplaceAllString(got, "")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("- kubeadm of the old file, + kubeadm of slipway's:\n%s", diff)
			}
		})
	}
}

func duration(t *testing.T, match []string) time.Duration {
	t.Helper()
	if match == nil {
		t.Fatal("kubeadm prints no controlPlaneComponentHealthCheck")
	}
	d, err := time.ParseDuration(match[1])
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// timeout is that of the first document that names one, or kubeadm's default.
func timeout(t *testing.T, stream []byte) time.Duration {
	t.Helper()
	for doc := range strings.SplitSeq(string(stream), "\n---\n") {
		var d struct {
			Timeouts struct{ ControlPlaneComponentHealthCheck string }
		}
		if err := yaml.Unmarshal([]byte(doc), &d); err != nil {
			t.Fatal(err)
		}
		if s := d.Timeouts.ControlPlaneComponentHealthCheck; s != "" {
			return duration(t, []string{"", s})
		}
	}
	return 4 * time.Minute
}
