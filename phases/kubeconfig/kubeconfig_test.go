package kubeconfig_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubeconfig/document"
	"github.com/slipway-k8s/slipway/phases/pki"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata/pki")

// now is when all tests happen.
var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const (
	day   = 24 * time.Hour
	admin = "/etc/kubernetes/admin.conf"
	caKey = "/etc/kubernetes/pki/ca.key"
	caCrt = "/etc/kubernetes/pki/ca.crt"
)

// state is one state of admin.conf, of the authority, or of the configuration.
type state struct {
	name   string
	do     func(t *testing.T, files artifact.Store)
	change func(*config.Cluster)
}

func states() []state {
	return []state{
		{name: "sound"},
		{name: "missing", do: remove(admin)},
		{name: "missing, authority's key kept elsewhere", do: remove(admin, "/etc/kubernetes/scheduler.conf", caKey)},
		{name: "authority missing", do: remove(caCrt)},
		{name: "expired", do: remade(now.Add(-366*day), admin)},
		{name: "expired, authority's key kept elsewhere", do: func(t *testing.T, files artifact.Store) {
			remade(now.Add(-366*day), admin)(t, files)
			remove(caKey)(t, files)
		}},
		{name: "not yet valid", do: remade(now.Add(day), admin)},
		{name: "of another cluster", do: func(t *testing.T, files artifact.Store) { copyFile(t, files, made(t, now), admin) }},
		{name: "with the authority's former certificate", do: func(t *testing.T, files artifact.Store) {
			remove(caCrt)(t, files)
			if err := runGroup(t, pki.New(), cluster(), files, now.Add(time.Minute), func(phases.Event) {}, "ca"); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "another port configured", change: func(c *config.Cluster) { c.BindPort = 7443 }},
		{name: "another endpoint configured", change: func(c *config.Cluster) { c.ControlPlaneEndpoint = "api.example.com:6443" }},
		{name: "another user's", do: func(t *testing.T, files artifact.Store) {
			data, _ := files.ReadFile("/etc/kubernetes/scheduler.conf")
			put(t, files, admin, data.Data)
		}},
		{name: "truncated", do: func(t *testing.T, files artifact.Store) {
			f, _ := files.ReadFile(admin)
			const field = "certificate-authority-data: "
			put(t, files, admin, f.Data[:bytes.Index(f.Data, []byte(field))+len(field)+10])
		}},
		{name: "empty", do: contents("")},
		{name: "of another kind", do: contents("apiVersion: v1\nkind: Pod\n")},
		{name: "not YAML", do: contents("a: b: c\n")},
		{name: "without a context", do: replaced("current-context: kubernetes-admin@kubernetes", "current-context: x")},
		{name: "without its cluster", do: replaced("    cluster: kubernetes", "    cluster: x")},
		{name: "without its user", do: replaced("    user: kubernetes-admin", "    user: x")},
		{name: "names a file that is not there", do: replaced("client-key-data: ", "client-key: missing.pem #")},
		{name: "with a token", do: func(t *testing.T, files artifact.Store) {
			replaced("client-certificate-data: ", "token: abc #")(t, files)
		}},
		{name: "without credentials", do: func(t *testing.T, files artifact.Store) {
			replaced("client-certificate-data: ", "x: #")(t, files)
		}},
		{name: "key missing", do: replaced("client-key-data: ", "x: #")},
	}
}

// TestAdmin pins what the step "admin" does and says in each state.
func TestAdmin(t *testing.T) {
	var b strings.Builder
	for _, s := range states() {
		files := made(t, now)
		if s.do != nil {
			s.do(t, files)
		}
		c := cluster()
		if s.change != nil {
			s.change(c)
		}
		before, _ := files.ReadFile(admin)
		checked := kubeconfig.Check(files, c, now)
		notes, err := run(t, c, files, now, "admin")
		if (checked == nil) != (err == nil) && s.name != "authority missing" {
			t.Errorf("%s: the check says %v, the step %v", s.name, checked, err)
		}
		after, _ := files.ReadFile(admin)
		switch {
		case err != nil:
			fmt.Fprintf(&b, "%s\n    error: %v\n", s.name, err)
		case bytes.Equal(before.Data, after.Data):
			fmt.Fprintf(&b, "%s\n    kept\n", s.name)
		default:
			fmt.Fprintf(&b, "%s\n    written%s\n", s.name, strings.Join(append([]string{""}, notes...), ", "))
			if _, err := run(t, c, files, now, "admin"); err != nil {
				t.Errorf("%s: what was written is refused: %v", s.name, err)
			}
		}
	}
	golden(t, "kubeconfigs.txt", b.String())
}

// Nothing is written before a person has cleared away what another cluster left.
func TestCheckRefusesLeftovers(t *testing.T) {
	files := made(t, now)
	remove(caCrt, caKey)(t, files)
	err := kubeconfig.Check(files, cluster(), now)
	if err == nil || strings.Count(err.Error(), "\n") != len(kubeconfig.Table())-1 {
		t.Errorf("want a reason for each file, got: %v", err)
	}
	if err := kubeconfig.Check(artifact.NewOverlay(artifact.Disk{Root: t.TempDir()}), cluster(), now); err != nil {
		t.Errorf("no files: %v", err)
	}
}

// A renewal touches the certificate and the key of one user, and nothing that a person has added.
func TestRenewalKeepsTheRest(t *testing.T) {
	files := made(t, now)
	remade(now.Add(-366*day), admin)(t, files)
	replaced("users:\n", "extensions: [{name: x}]\nusers:\n- name: other\n  user: {token: abc}\n")(t, files)
	before, _ := files.ReadFile(admin)
	if _, err := run(t, cluster(), files, now, "admin"); err != nil {
		t.Fatal(err)
	}
	after, _ := files.ReadFile(admin)
	for _, want := range []string{"name: x", "token: abc", "name: other", "current-context: kubernetes-admin@kubernetes"} {
		if !strings.Contains(string(after.Data), want) {
			t.Errorf("%q is gone from\n%s", want, after.Data)
		}
	}
	_, old, _ := document.Load(before.Data, "", nil)
	_, renewed, err := document.Load(after.Data, "", nil)
	if err != nil || bytes.Equal(old.User.ClientCertificateData, renewed.User.ClientCertificateData) {
		t.Errorf("not renewed: %v", err)
	}
	if after.Mode != 0o600 || !after.Secret {
		t.Errorf("mode %v, secret %v", after.Mode, after.Secret)
	}
}

// kubelets keep their certificate in a file of its own and rotate it there.
func TestNamedFilesAreRead(t *testing.T) {
	const path, pem = "/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/pki/kubelet-client-current.pem"
	files := made(t, now)
	f, _ := files.ReadFile(path)
	_, user, err := document.Load(f.Data, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, files, pem, slices.Concat(user.User.ClientCertificateData, user.User.ClientKeyData))
	text := string(f.Data)
	text = text[:strings.Index(text, "    client-certificate-data")] + "    client-certificate: " + pem + "\n    client-key: ../../" + pem + "\n"
	put(t, files, path, []byte(text))
	if _, err := run(t, cluster(), files, now, "kubelet"); err != nil {
		t.Fatal(err)
	}
	if f, _ := files.ReadFile(path); string(f.Data) != text {
		t.Errorf("changed to\n%s", f.Data)
	}
}

func TestServers(t *testing.T) {
	for endpoint, want := range map[string]string{
		"": "https://[fd00::5]:6443", "api.example.com": "https://api.example.com:6443", "api.example.com:443": "https://api.example.com:443",
		"[fd00::9]:443": "https://[fd00::9]:443", "fd00::9": "https://[fd00::9]:6443", "[fd00::9]": "https://[fd00::9]:6443", "192.0.2.1": "https://192.0.2.1:6443",
	} {
		c := cluster()
		c.AdvertiseAddress, c.ControlPlaneEndpoint = netip.MustParseAddr("fd00::5"), endpoint
		for _, w := range kubeconfig.Want(c, now) {
			if want := map[bool]string{true: want, false: "https://[fd00::5]:6443"}[w.Shared]; w.Server != want {
				t.Errorf("endpoint %q: %s points at %s, want %s", endpoint, w.File, w.Server, want)
			}
		}
	}
}

func cluster() *config.Cluster {
	return &config.Cluster{
		Paths: config.NewPaths(""), NodeName: "node-a", ClusterName: "kubernetes",
		AdvertiseAddress: netip.MustParseAddr("10.0.0.5"), BindPort: 6443,
		ServiceSubnets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}, DNSDomain: "cluster.local",
		Etcd: config.Etcd{External: &config.ExternalEtcd{}}, KeyAlgorithm: config.ECDSAP256,
		CertificateValidity: 365 * day, CAValidity: 3650 * day,
	}
}

// made returns what init leaves when it runs at the given time.
func made(t *testing.T, at time.Time) artifact.Store {
	t.Helper()
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	if err := runGroup(t, pki.New(), cluster(), files, at, nil, "ca"); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, cluster(), files, at); err != nil {
		t.Fatal(err)
	}
	return files
}

// run runs the steps whose name is in only, or all, and returns the notes.
func run(t *testing.T, c *config.Cluster, files artifact.Store, at time.Time, only ...string) ([]string, error) {
	t.Helper()
	var notes []string
	err := runGroup(t, kubeconfig.New(), c, files, at, func(e phases.Event) { notes = append(notes, e.Text) }, only...)
	return notes, err
}

func runGroup(t *testing.T, group phases.Phase, c *config.Cluster, files artifact.Store, at time.Time, report func(phases.Event), only ...string) error {
	t.Helper()
	env := &phases.Env{Config: c, Files: files, Now: func() time.Time { return at }, Report: report}
	for _, p := range group.Phases {
		if len(only) > 0 && !slices.Contains(only, p.Name) {
			continue
		}
		if err := p.Run(t.Context(), env); err != nil {
			return err
		}
	}
	return nil
}

func remove(paths ...string) func(*testing.T, artifact.Store) {
	return func(t *testing.T, files artifact.Store) {
		for _, p := range paths {
			if err := files.Remove(p); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func contents(text string) func(*testing.T, artifact.Store) {
	return func(t *testing.T, files artifact.Store) { put(t, files, admin, []byte(text)) }
}

// replaced changes one place in admin.conf.
func replaced(old, text string) func(*testing.T, artifact.Store) {
	return func(t *testing.T, files artifact.Store) {
		f, err := files.ReadFile(admin)
		if err != nil || !strings.Contains(string(f.Data), old) {
			t.Fatalf("%q is not in %s: %v", old, admin, err)
		}
		put(t, files, admin, []byte(strings.Replace(string(f.Data), old, text, 1)))
	}
}

// remade writes a file as it would have been written at another time.
func remade(at time.Time, path string) func(*testing.T, artifact.Store) {
	return func(t *testing.T, files artifact.Store) {
		a, err := pki.LoadAuthority(files, cluster().Paths, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range kubeconfig.Want(cluster(), at) {
			if w.Path != path {
				continue
			}
			key, err := pki.GenerateKey(config.ECDSAP256)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := a.Issue(w.Request, key.Public())
			if err != nil {
				t.Fatal(err)
			}
			keyPEM, err := pki.EncodeKey(key)
			if err != nil {
				t.Fatal(err)
			}
			data, err := document.New(w.Cluster, w.Server, w.Request.CommonName, a.CertPEM(), cert, keyPEM).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			put(t, files, path, data)
		}
	}
}

func copyFile(t *testing.T, to, from artifact.Store, path string) {
	t.Helper()
	f, err := from.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	put(t, to, path, f.Data)
}

func put(t *testing.T, files artifact.Store, path string, data []byte) {
	t.Helper()
	if err := files.Put(artifact.File{Path: path, Data: data, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name string, got string) {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "pki", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if d := diff.Diff(path, want, "got", []byte(got)); len(d) > 0 {
		t.Errorf("%s\nrun `go test ./phases/kubeconfig -update` if this is intended", d)
	}
}
