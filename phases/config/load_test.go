package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata/config/good")

// testdata is where the files of these tests are. Comment lines at their head steer a test:
//
//	# flags: --name=value …   as on the command line; %20 stands for a space, a list is repeated
//	# env: --name=value …     the same, from SLIPWAY_* variables
//	# instance: NAME
//	# facts: none             a host of which nothing is known
//	# file: none              no --config
//	# want: text              one per problem, part of its message
//
// Beside NAME.yaml, NAME.patches holds its patches.
const testdata = "../../testdata/config"

// testFacts is the host that the files are loaded on.
func testFacts() HostFacts {
	return HostFacts{
		Hostname:         "Node-1",
		DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
		CADirs:           []string{"/etc/ca-certificates"},
		CgroupDriver:     "systemd",
	}
}

// options reads a test file and its header.
func options(t *testing.T, path string) (o Options, want []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o = Options{File: filepath.Base(path), Data: data, Facts: testFacts()}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "# "), ": ")
		switch {
		case !strings.HasPrefix(line, "# "):
		case key == "flags", key == "env":
			for _, word := range strings.Fields(value) {
				setFlag(t, &o.Flags, word, key == "env")
			}
		case key == "instance":
			o.Instance = value
		case key == "facts":
			o.Facts = HostFacts{}
		case key == "file":
			o.Data = nil
		case key == "want":
			want = append(want, value)
		}
	}
	patches := strings.TrimSuffix(path, filepath.Ext(path)) + ".patches"
	entries, err := os.ReadDir(patches)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(patches, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		o.Patches = append(o.Patches, PatchFile{e.Name(), data})
	}
	return o, want
}

func setFlag(t *testing.T, f *Flags, word string, env bool) {
	t.Helper()
	name, value, _ := strings.Cut(word, "=")
	value = strings.ReplaceAll(value, "%20", " ")
	texts := map[string]*Flag[string]{
		"--apiserver-advertise-address": &f.AdvertiseAddress, "--node-name": &f.NodeName, "--pod-network-cidr": &f.PodNetworkCIDR,
		"--service-cidr": &f.ServiceCIDR, "--service-dns-domain": &f.ServiceDNSDomain, "--control-plane-endpoint": &f.ControlPlaneEndpoint,
		"--kubernetes-version": &f.KubernetesVersion, "--image-repository": &f.ImageRepository, "--cert-dir": &f.CertDir,
		"--cri-socket": &f.CRISocket, "--patches": &f.Patches, "--feature-gates": &f.FeatureGates,
		"--certificate-key": &f.CertificateKey, "--token": &f.Token,
	}
	lists := map[string]*Flag[[]string]{
		"--apiserver-cert-extra-sans": &f.CertSANs, "--ignore-preflight-errors": &f.IgnorePreflightErrors, "--skip-phases": &f.SkipPhases,
	}
	origin := ""
	if env {
		origin = "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(name, "--"), "-", "_"))
	}
	switch {
	case texts[name] != nil:
		*texts[name] = Flag[string]{value, true, origin}
	case lists[name] != nil:
		*lists[name] = Flag[[]string]{append(lists[name].Value, value), true, origin}
	case name == "--apiserver-bind-port":
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		f.BindPort = Flag[int]{n, true, origin}
	case name == "--token-ttl":
		ttl, err := time.ParseDuration(value)
		if err != nil {
			t.Fatal(err)
		}
		f.TokenTTL = Flag[time.Duration]{ttl, true, origin}
	case name == "--upload-certs":
		f.UploadCerts = Flag[bool]{value != "false", true, origin}
	default:
		t.Fatalf("unknown flag %s", name)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.yaml", "*.json"} {
		found, err := filepath.Glob(filepath.Join(testdata, dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

func TestGoodFilesLoad(t *testing.T) {
	paths := files(t, "good")
	if len(paths) < 15 {
		t.Fatalf("only %d files under %s/good", len(paths), testdata)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, ".golden.json") {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			o, _ := options(t, path)
			cluster, warnings, err := Load(o)
			if err != nil {
				t.Fatal(err)
			}
			got := goldenText(t, cluster, warnings)
			golden := strings.TrimSuffix(path, filepath.Ext(path)) + ".golden.json"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-golden +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

// goldenText is a cluster as the golden files have it: durations and documents readable, the facts left out, and of the
// paths only those that are not the instance's own.
func goldenText(t *testing.T, c *Cluster, warnings []string) []byte {
	t.Helper()
	type patch struct {
		Target, Type, File string
		Data               json.RawMessage
	}
	var patches []patch
	for _, p := range c.Patches {
		patches = append(patches, patch{p.Target, p.Type, p.File, p.Data})
	}
	moved := map[string]string{}
	own, got := reflect.ValueOf(NewPaths(c.Instance)), reflect.ValueOf(c.Paths)
	for i := range own.NumField() {
		if own.Field(i).String() != got.Field(i).String() {
			moved[own.Type().Field(i).Name] = got.Field(i).String()
		}
	}
	document := func(data []byte) json.RawMessage {
		if data == nil {
			return []byte("null")
		}
		return data
	}
	type token struct {
		BootstrapToken
		TTL string
	}
	var tokens []token
	for _, t := range c.BootstrapTokens {
		tokens = append(tokens, token{t, t.TTL.String()})
	}
	data, err := json.MarshalIndent(struct {
		*Cluster
		Paths               map[string]string
		CertificateValidity string
		CAValidity          string
		Kubelet             json.RawMessage
		BootstrapTokens     []token
		KubeProxy           json.RawMessage
		Patches             []patch
		Timeouts            map[string]string
		Facts               *HostFacts `json:",omitempty"`
		Warnings            []string
	}{
		c, moved, c.CertificateValidity.String(), c.CAValidity.String(), document(c.Kubelet), tokens, document(c.KubeProxy), patches,
		map[string]string{
			"ControlPlaneComponentHealthCheck": c.Timeouts.ControlPlaneComponentHealthCheck.String(),
			"KubernetesAPICall":                c.Timeouts.KubernetesAPICall.String(), "EtcdAPICall": c.Timeouts.EtcdAPICall.String(),
		}, nil, warnings,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

func TestBadFilesAreRefused(t *testing.T) {
	paths := files(t, "bad")
	if len(paths) < 30 {
		t.Fatalf("only %d files under %s/bad", len(paths), testdata)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			o, want := options(t, path)
			cluster, _, err := Load(o)
			if err == nil {
				t.Fatalf("loaded, as %+v", cluster)
			}
			if cluster != nil {
				t.Error("there is a cluster beside the error")
			}
			wantProblems(t, err, want)
		})
	}
}

// wantProblems holds an error to the problems that a file's header names: these, and no others.
func wantProblems(t *testing.T, err error, want []string) {
	t.Helper()
	if got := len(strings.Split(err.Error(), "\n")); len(want) == 0 || got != len(want) {
		t.Errorf("%d problems, wanted %d", got, len(want))
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("no problem says %q", w)
		}
	}
	if t.Failed() {
		t.Logf("the error is:\n%s", err)
	}
}

func TestProblemsAreTypedAndSortedByLine(t *testing.T) {
	_, _, err := Load(Options{File: "f.yaml", Facts: testFacts(), Flags: Flags{ServiceCIDR: Given("x")}, Data: []byte(
		"apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nclusterName: a b\ndns: 1\nnetworking: {dnsDomain: _}\n")})
	var first *Problem
	if !errors.As(err, &first) || first.Line != 3 || first.Field != "clusterName" || first.Source != "f.yaml" {
		t.Errorf("the first problem is %+v", first)
	}
	var starts []string
	for line := range strings.Lines(err.Error()) {
		starts = append(starts, line[:8])
	}
	if diff := cmp.Diff([]string{"f.yaml:3", "f.yaml:4", "f.yaml:5", "--servic"}, starts); diff != "" {
		t.Errorf("-want +got:\n%s\n%s", diff, err)
	}
}

func TestClusterSharesNothingWithItsInputs(t *testing.T) {
	o, _ := options(t, filepath.Join(testdata, "good", "extra-args-envs-volumes.yaml"))
	o.Facts.ProxyEnv = map[string]string{"http_proxy": "http://p"}
	o.Flags.CertSANs = Given([]string{"a.example.com"})
	c, _, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	before := goldenText(t, c, nil)
	for i := range o.Data {
		o.Data[i] = 'x'
	}
	o.Flags.CertSANs.Value[0] = "changed"
	o.Facts.ProxyEnv["http_proxy"] = "changed"
	o.Facts.CADirs[0] = "changed"
	if !bytes.Equal(before, goldenText(t, c, nil)) || c.Facts.ProxyEnv["http_proxy"] != "http://p" || c.Facts.CADirs[0] == "changed" {
		t.Error("the cluster changed with its inputs")
	}
}

func TestPatchesDirectory(t *testing.T) {
	const head = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\npatches: {directory: /file}\n"
	for _, tc := range []struct {
		name, data string
		flag       Flag[string]
		want       string
		fails      bool
	}{
		{name: "none"},
		{name: "file", data: head, want: "/file"},
		{name: "flag over file", data: head, flag: Given("/flag"), want: "/flag"},
		{name: "other problems are Load's to report", data: head + "unknown: 1\n", want: "/file"},
		{name: "no YAML", data: "a: [\n", fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := Options{File: "f.yaml", Facts: testFacts(), Flags: Flags{Patches: tc.flag}}
			if tc.data != "" {
				o.Data = []byte(tc.data)
			}
			got, err := PatchesDirectory(o)
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"good", "bad"} {
		paths, _ := filepath.Glob(filepath.Join(testdata, dir, "*.yaml"))
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data, "", "etcd+json.yaml", []byte("- {op: remove, path: /spec}"))
		}
	}
	f.Add([]byte("a: &a [*a, *a]\n"), "10.0.0.0/16", "x", []byte("\x00"))
	f.Fuzz(func(t *testing.T, data []byte, cidr, patchName string, patch []byte) {
		o := Options{File: "f.yaml", Data: data, Facts: testFacts(), Patches: []PatchFile{{patchName, patch}}}
		if cidr != "" {
			o.Flags.ServiceCIDR, o.Flags.PodNetworkCIDR = Given(cidr), Given(cidr)
		}
		c, _, err := Load(o)
		if (c == nil) == (err == nil) {
			t.Fatalf("cluster %v, error %v", c, err)
		}
		if _, err := PatchesDirectory(o); err != nil && c != nil {
			t.Fatalf("Load took what PatchesDirectory refuses: %v", err)
		}
		if c != nil {
			again, data := readBack(t, c, o)
			want, got := goldenText(t, withoutSecrets(c), nil), goldenText(t, withoutSecrets(again), nil)
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Fatalf("- before, + read back from\n%s\n%s", data, diff)
			}
		}
	})
}
