package staticpod

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/templates"
)

func TestStartupFailuresCoverTheTimeout(t *testing.T) {
	for _, tc := range []struct {
		timeout time.Duration
		want    int32
	}{{4 * time.Minute, 24}, {6*time.Minute + 5*time.Second, 37}, {time.Second, 1}, {0, 1}} {
		cfg := &config.Cluster{Timeouts: config.Timeouts{ControlPlaneComponentHealthCheck: tc.timeout}}
		if got := StartupFailures(cfg); got != tc.want {
			t.Errorf("%v: got %d failures, want %d", tc.timeout, got, tc.want)
		}
	}
}

func TestHTTPSProbe(t *testing.T) {
	for _, tc := range []struct {
		name, host string
		args       templates.Args
		want       templates.Probe
		err        string
	}{
		{name: "as it is", host: "192.0.2.10", want: templates.Probe{Host: "192.0.2.10", Port: 10257}},
		{name: "unspecified IPv4 is the node's address", host: "0.0.0.0", want: templates.Probe{Port: 10257}},
		{name: "unspecified IPv6 is the node's address", host: "::", want: templates.Probe{Port: 10257}},
		{name: "the last secure-port counts", host: "::1", args: templates.Args{{Name: "secure-port", Value: "x"}, {Name: "secure-port", Value: "20257"}}, want: templates.Probe{Host: "::1", Port: 20257}},
		{name: "no number", args: templates.Args{{Name: "secure-port", Value: "https"}}, err: `extraArgs "secure-port": "https" is not a port from 1 to 65535: the probes need one`},
		{name: "no serving at all", args: templates.Args{{Name: "secure-port", Value: "0"}}, err: `extraArgs "secure-port": "0" is not a port`},
		{name: "too large", args: templates.Args{{Name: "secure-port", Value: "65536"}}, err: `extraArgs "secure-port": "65536" is not a port`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := HTTPSProbe(&config.Cluster{}, tc.host, 10257, tc.args)
			if tc.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			tc.want.Scheme, tc.want.StartupFailures = corev1.URISchemeHTTPS, 1
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v, -want +got:\n%s", err, diff)
			}
		})
	}
}

// podWith returns a manifest whose pod mounts the sources.
func podWith(t *testing.T, cfg *config.Cluster, sources map[string]corev1.HostPathType) Manifest {
	t.Helper()
	pod := &corev1.Pod{}
	pod.Name = "kube-apiserver"
	for path, kind := range sources {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: path, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}})
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	m, err := New(cfg, pod)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPutMakesTheSourcesThatAPodWouldMake(t *testing.T) {
	cfg := &config.Cluster{Paths: config.NewPaths("")}
	disk := artifact.Disk{Root: t.TempDir()}
	for _, f := range []artifact.File{
		{Path: "/srv/there", Mode: fs.ModeDir | 0o700},
		{Path: "/srv/there.yaml", Data: []byte("user's"), Mode: 0o600},
		{Path: cfg.Paths.Manifests, Mode: fs.ModeDir | 0o755},
	} {
		if err := disk.Put(f); err != nil {
			t.Fatal(err)
		}
	}
	m := podWith(t, cfg, map[string]corev1.HostPathType{
		"/srv/there":                          corev1.HostPathDirectoryOrCreate,
		"/srv/there.yaml":                     corev1.HostPathFileOrCreate,
		"/srv/missing":                        corev1.HostPathDirectoryOrCreate,
		"/srv/missing/inner":                  corev1.HostPathDirectoryOrCreate,
		"/srv/missing.yaml":                   corev1.HostPathFileOrCreate,
		"/srv/expected":                       corev1.HostPathDirectory,
		"/srv/anything":                       corev1.HostPathUnset,
		"/etc/kubernetes/pki":                 corev1.HostPathDirectoryOrCreate,
		"/etc/kubernetes/scheduler.conf":      corev1.HostPathFileOrCreate,
		"/etc/kubernetes-other/scheduler.txt": corev1.HostPathFileOrCreate,
	})
	overlay := artifact.NewOverlay(disk)
	if err := m.Put(&phases.Env{Config: cfg, Files: overlay}); err != nil {
		t.Fatal(err)
	}
	changes, err := overlay.Preview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		if c.Op != artifact.Unchanged {
			got = append(got, c.After.Mode.String()+" "+c.After.Path)
		}
	}
	want := []string{
		"drwxr-xr-x /etc/kubernetes-other",
		"-rw-r--r-- /etc/kubernetes-other/scheduler.txt",
		"drwxr-xr-x /srv/missing",
		"-rw-r--r-- /srv/missing.yaml",
		"drwxr-xr-x /srv/missing/inner",
		"-rw------- /etc/kubernetes/manifests/kube-apiserver.yaml",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// failing is a store that cannot be read.
type failing struct{ artifact.Store }

func (failing) ReadFile(string) (artifact.File, error) {
	return artifact.File{}, errors.New("permission denied")
}

func TestPutDirTellsWhatItCouldNotLookAt(t *testing.T) {
	err := PutDir(failing{}, "/var/lib/etcd", 0o700)
	if err == nil || err.Error() != `looking at "/var/lib/etcd": permission denied` {
		t.Errorf("got %v", err)
	}
}
