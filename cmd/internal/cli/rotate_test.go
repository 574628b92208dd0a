package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// rotated is a control plane's files and what a rotation does with them.
type rotated struct {
	t     *testing.T
	root  string
	out   bytes.Buffer
	trace []string // restarts, in their order
	api   *kubeapitest.Server
}

// newRotated returns the files that init writes.
func newRotated(t *testing.T) *rotated {
	t.Helper()
	d := &rotated{t: t, root: t.TempDir()}
	facts := filepath.Join(t.TempDir(), "facts.yaml")
	if err := os.WriteFile(facts, []byte("hostname: quay\ndefaultAddresses: [192.0.2.10]\ncgroupDriver: cgroupfs\nexecutable: /usr/local/bin/slipway\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	if code := Main(t.Context(), []string{"init", "--root", d.root, "--host-facts", facts}, Streams{In: strings.NewReader(""), Out: &d.out, Err: &errs}); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, errs.String())
	}
	return d
}

// rotator returns a fresh one over the files, as each run of the command has, through a store of the test's choice.
func (d *rotated) rotator(ca string, files artifact.Store) *rotator {
	d.out.Reset()
	r := newRotator(ca, files, config.NewPaths(""), &global{now: time.Now}, Streams{Out: &d.out, Err: &d.out})
	r.restart = func(_ context.Context, pods []string) error {
		for _, pod := range pods {
			d.trace = append(d.trace, strings.TrimPrefix(pod, "kube-"))
		}
		return nil
	}
	r.taken = func(_ context.Context, manifest []byte) error {
		d.trace = append(d.trace, "controller-manager by "+filepath.Base(regexp.MustCompile(`signing-cert-file=(\S+)`).FindStringSubmatch(string(manifest))[1]))
		return nil
	}
	if d.api != nil {
		r.cluster = func() (kubeapi.API, string, error) { return d.api.API(d.t, false), "quay", nil }
	}
	return r
}

func (d *rotated) read(path string) string {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.root, path))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(data)
}

// do takes a stage, as the command does.
func (d *rotated) do(ca string, stage func(*rotator, context.Context) error) error {
	return stage(d.rotator(ca, artifact.Disk{Root: d.root}), d.t.Context())
}

func (d *rotated) must(ca string, stage func(*rotator, context.Context) error) {
	d.t.Helper()
	if err := d.do(ca, stage); err != nil {
		d.t.Fatal(err)
	}
}

// TestRotationRestarts: what is restarted in each stage, and in which order. The API server trusts both authorities
// before anybody shows it what the next has signed, and ca.crt never holds two while the controller manager signs from it.
func TestRotationRestarts(t *testing.T) {
	d := newRotated(t)
	var got strings.Builder
	for _, ca := range authorityNames {
		for _, s := range []struct {
			name string
			run  func(*rotator, context.Context) error
		}{
			{"begin", (*rotator).begin}, {"switch", (*rotator).change}, {"switch", (*rotator).change}, {"undo", (*rotator).undo},
			{"undo", (*rotator).undo}, {"advance", (*rotator).advance}, {"finish", (*rotator).finish},
		} {
			d.trace = nil
			d.must(ca, s.run)
			fmt.Fprintf(&got, "%s %s: %s\n", ca, s.name, strings.Join(d.trace, ", "))
		}
	}
	const want = `etcd-ca begin: etcd, apiserver
etcd-ca switch: etcd, apiserver
etcd-ca switch: etcd, apiserver
etcd-ca undo: etcd, apiserver
etcd-ca undo: etcd, apiserver
etcd-ca advance: etcd, apiserver, etcd, apiserver
etcd-ca finish: etcd, apiserver
front-proxy-ca begin: apiserver, controller-manager
front-proxy-ca switch: apiserver, controller-manager
front-proxy-ca switch: apiserver, controller-manager
front-proxy-ca undo: apiserver, controller-manager
front-proxy-ca undo: apiserver, controller-manager
front-proxy-ca advance: apiserver, controller-manager, apiserver, controller-manager
front-proxy-ca finish: apiserver, controller-manager
ca begin: controller-manager by ca-former.crt, apiserver, controller-manager, scheduler
ca switch: apiserver, controller-manager by ca-next.crt, scheduler
ca switch: apiserver, controller-manager, scheduler
ca undo: apiserver, controller-manager by ca-former.crt, scheduler
ca undo: apiserver, controller-manager by ca.crt, scheduler
ca advance: controller-manager by ca-former.crt, apiserver, controller-manager, scheduler, apiserver, controller-manager by ca-next.crt, scheduler
ca finish: apiserver, controller-manager by ca.crt, scheduler
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error(diff)
	}
}

// weak is a disk that takes so many more writes.
type weak struct {
	artifact.Store
	left *int
}

var errBroken = errors.New("the machine went down")

func (w weak) Put(f artifact.File) error {
	if *w.left--; *w.left < 0 {
		return errBroken
	}
	return w.Store.Put(f)
}

func (w weak) Remove(path string) error {
	if *w.left--; *w.left < 0 {
		return errBroken
	}
	return w.Store.Remove(path)
}

// TestEachStageGoesOnAfterACrash ends each command after each of its writes, and runs the same command again: it ends
// where it would have ended, no further and no less.
func TestEachStageGoesOnAfterACrash(t *testing.T) {
	d := newRotated(t)
	manifest := d.read("/etc/kubernetes/manifests/kube-controller-manager.yaml")
	authority := d.read("/etc/kubernetes/pki/ca.crt")
	var before artifact.Store = artifact.Disk{Root: d.root} // each command; what is written stays in memory
	broken := 0
	for _, s := range []struct {
		name string
		run  func(*rotator, context.Context) error
		want renewal.Stage
	}{
		{"begin", (*rotator).begin, renewal.Trusted}, {"switch", (*rotator).change, renewal.Switched},
		{"undo", (*rotator).undo, renewal.Trusted}, {"undo again", (*rotator).undo, renewal.Settled},
		{"advance", (*rotator).advance, renewal.Switched}, {"finish", (*rotator).finish, renewal.Settled},
	} {
		step := 1
		if s.name == "advance" {
			step = 7 // its writes are those of begin and switch
		}
		for at, crashed := 0, true; crashed; at += step {
			files, left := artifact.NewOverlay(before), at
			err := s.run(d.rotator("ca", weak{files, &left}), t.Context())
			if crashed = errors.Is(err, errBroken); crashed {
				broken++
				err = s.run(d.rotator("ca", files), t.Context())
			}
			if err != nil {
				t.Fatalf("%s, after %d writes: %v", s.name, at, err)
			}
			r := d.rotator("ca", files)
			stage, err := r.Stage()
			if err != nil || stage != s.want {
				t.Fatalf("%s, after %d writes: it is %s, not %s: %v", s.name, at, stage, s.want, err)
			}
			if begun, err := r.Begun(); err != nil || begun != (s.want != renewal.Settled) {
				t.Fatalf("%s, after %d writes: files of the rotation: %v, %v", s.name, at, begun, err)
			}
			f, err := files.ReadFile("/etc/kubernetes/manifests/kube-controller-manager.yaml")
			if want := string(r.SigningManifest([]byte(manifest), s.want)); err != nil || string(f.Data) != want {
				t.Fatalf("%s, after %d writes: the controller manager signs from elsewhere: %v\n%s", s.name, at, err, cmp.Diff(want, string(f.Data)))
			}
			if f, err := files.ReadFile(r.OwnPath()); s.name == "undo again" && (err != nil || string(f.Data) != authority) {
				t.Fatalf("%s, after %d writes: the authority is not as before: %v", s.name, at, err)
			}
			if !crashed {
				before = files
			}
		}
	}
	if broken < 50 {
		t.Errorf("it was broken %d times only", broken)
	}
}

// A stage that cannot be planned to its end must leave the files of the one before: half of a stage trusts nobody.
func TestHalfAPlanIsNotWritten(t *testing.T) {
	root := t.TempDir()
	r := &rotator{overlay: artifact.NewOverlay(artifact.Disk{Root: root})}
	if err := r.overlay.Put(artifact.File{Path: "/ca.crt", Data: []byte("next"), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("the key is not here")
	if err := r.commit(t.Context(), failed); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "ca.crt")); !os.IsNotExist(err) {
		t.Errorf("the file was written: %v", err)
	}
	if err := r.commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "ca.crt")); err != nil {
		t.Error(err)
	}
}

// blind is a disk one file of which cannot be read.
type blind struct {
	artifact.Store
	path string
}

func (b blind) ReadFile(path string) (artifact.File, error) {
	if path == b.path {
		return artifact.File{}, errBroken
	}
	return b.Store.ReadFile(path)
}

// A file that cannot be read is not one that is not there.
func TestUnreadableFileStopsTheRotation(t *testing.T) {
	d := newRotated(t)
	for _, tc := range []struct {
		ca, path string
		run      func(*rotator, context.Context) error
	}{
		{"ca", "/etc/kubernetes/manifests/kube-controller-manager.yaml", (*rotator).begin},
		{"ca", "/etc/kubernetes/pki/ca-next.crt", (*rotator).undo},
		{"ca", "/etc/kubernetes/pki/ca-former.key", (*rotator).undo},
		{"ca", "/etc/kubernetes/scheduler.conf", (*rotator).begin},
		{"etcd-ca", "/etc/kubernetes/pki/etcd/ca-cross.crt", (*rotator).undo},
	} {
		before := d.read("/etc/kubernetes/pki/ca.crt")
		if err := tc.run(d.rotator(tc.ca, blind{artifact.Disk{Root: d.root}, tc.path}), t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("%s: got %v", tc.path, err)
		}
		if d.read("/etc/kubernetes/pki/ca.crt") != before {
			t.Errorf("%s: the authority was changed", tc.path)
		}
	}
}

const (
	infoPath  = "/api/v1/namespaces/kube-public/configmaps/cluster-info"
	leasePath = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/dock"
)

// put makes an object in the cluster.
func (d *rotated) put(o map[string]any) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	if err := d.api.API(d.t, false).Create(ctx, &unstructured.Unstructured{Object: o}, unreported); err != nil {
		d.t.Fatal(err)
	}
}

// inCluster gives the files a cluster with cluster-info and a worker, dock, that is alive.
func (d *rotated) inCluster() {
	d.t.Helper()
	d.api = kubeapitest.New(d.t)
	d.put(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"namespace": "kube-public", "name": "cluster-info"},
		"data": map[string]any{"kubeconfig": "kind: Config\nclusters: [{name: '', cluster: {server: 'https://192.0.2.10:6443'}}]\n"}})
	ready := []any{map[string]any{"type": "Ready", "status": "True"}}
	for _, name := range []string{"quay", "dock"} {
		d.put(map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name}, "status": map[string]any{"conditions": ready}})
	}
	d.put(map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"namespace": "kube-node-lease", "name": "dock"},
		"spec": map[string]any{"renewTime": "0"}})
}

// certify answers a request of dock's kubelet as the controller manager does.
func (d *rotated) certify() {
	d.t.Helper()
	a, err := pki.OpenAuthority(artifact.Disk{Root: d.root}, config.NewPaths(""), "ca", time.Now())
	if err != nil {
		d.t.Fatal(err)
	}
	key, err := pki.GenerateKey(config.ECDSAP256)
	if err != nil {
		d.t.Fatal(err)
	}
	cert, err := a.Issue(pki.ClientRequest("system:node:dock", []string{"system:nodes"}, time.Now(), time.Hour), key.Public())
	if err != nil {
		d.t.Fatal(err)
	}
	d.put(map[string]any{"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": map[string]any{"name": "csr-1"},
		"spec":   map[string]any{"signerName": "kubernetes.io/kube-apiserver-client-kubelet"},
		"status": map[string]any{"certificate": base64.StdEncoding.EncodeToString(cert)}})
}

// report has dock renew its lease until the returned function is called.
func (d *rotated) report() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
				d.api.Update(d.t, leasePath, "kubelet", func(o *unstructured.Unstructured) {
					unstructured.SetNestedField(o.Object, fmt.Sprint(n), "spec", "renewTime")
				})
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}

// told is whether cluster-info has what is trusted here.
func (d *rotated) told(certificates int) {
	d.t.Helper()
	bundle := d.read("/etc/kubernetes/pki/ca.crt")
	if n := strings.Count(bundle, "BEGIN"); n != certificates {
		d.t.Errorf("%d authorities are trusted, not %d", n, certificates)
	}
	text, _, _ := unstructured.NestedString(d.api.Object(infoPath).Object, "data", "kubeconfig")
	if !strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(bundle))) {
		d.t.Errorf("cluster-info names another authority:\n%s", text)
	}
}

// refused wants an error that has all of the words, the hint's included.
func (d *rotated) refused(err error, words ...string) {
	d.t.Helper()
	if err == nil {
		d.t.Fatal("no error")
	}
	text := err.Error()
	if h := (*hinted)(nil); errors.As(err, &h) {
		text += "\n" + h.hint
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			d.t.Errorf("it does not say %q:\n%s", w, text)
		}
	}
}

// TestFinishLooksAtWorkers: an authority that a worker may need is not dropped.
func TestFinishLooksAtWorkers(t *testing.T) {
	d := newRotated(t)
	d.inCluster()
	d.must("ca", (*rotator).begin)
	d.told(2)
	d.must("ca", (*rotator).change)
	d.told(2)

	d.trace = nil
	d.refused(d.do("ca", (*rotator).finish), "cannot be shown to have a certificate of the next authority: workers dock",
		"slipway kubeconfig user --client-name system:node:NAME", "kubectl delete node NAME", "--force")
	if len(d.trace) > 0 {
		t.Errorf("it restarts %q", d.trace)
	}
	d.told(2)

	d.api.Refuse = func(*http.Request) error { return apierrors.NewUnauthorized("no") }
	d.refused(d.do("ca", (*rotator).finish), "the other nodes cannot be looked at: listing Node", "slipway status", "--force")
	d.api.Refuse = nil

	forced := d.rotator("ca", artifact.Disk{Root: d.root})
	forced.force, forced.patience = true, 100*time.Millisecond
	d.refused(forced.finish(t.Context()), "these nodes do not report when only one authority is trusted: dock: both are trusted again", "slipway kubeconfig user")
	if stage, err := forced.Stage(); err != nil || stage != renewal.Switched {
		t.Errorf("it is %s, %v", stage, err)
	}
	if !strings.Contains(d.read("/etc/kubernetes/manifests/kube-controller-manager.yaml"), "signing-cert-file=/etc/kubernetes/pki/ca-next.crt") {
		t.Error("the controller manager does not sign from a file with one certificate")
	}
	d.told(2)

	d.certify() // it may still trust the former authority alone, and then falls silent
	certified := d.rotator("ca", artifact.Disk{Root: d.root})
	certified.patience = 100 * time.Millisecond
	d.refused(certified.finish(t.Context()), "dock: both are trusted again")
	d.told(2)
	stop := d.report()
	d.must("ca", (*rotator).finish)
	stop()
	d.told(1)
	if !strings.Contains(d.out.String(), "waiting up to 30s until these nodes report: dock") || !strings.Contains(d.out.String(), "stage 3 of 3 is done") {
		t.Error(d.out.String())
	}
}

// TestUndoLooksAtWorkers: they may have joined while the next authority signed.
func TestUndoLooksAtWorkers(t *testing.T) {
	d := newRotated(t)
	d.inCluster()
	d.must("ca", (*rotator).begin)
	r := d.rotator("ca", artifact.Disk{Root: d.root})
	r.patience = 100 * time.Millisecond
	d.refused(r.undo(t.Context()), "these nodes do not report when only one authority is trusted: dock: both are trusted again")
	if stage, err := r.Stage(); err != nil || stage != renewal.Trusted {
		t.Errorf("it is %s, %v", stage, err)
	}
	d.told(2)
	stop := d.report()
	d.must("ca", (*rotator).undo)
	stop()
	d.told(1)
}

// TestUnreachableAPIServer: a stage whose files are done says what is missing, and the same command completes it.
func TestUnreachableAPIServer(t *testing.T) {
	d := newRotated(t)
	d.inCluster()
	for _, s := range []struct {
		run          func(*rotator, context.Context) error
		certificates int
	}{{(*rotator).begin, 2}, {(*rotator).change, 2}, {(*rotator).undo, 2}, {(*rotator).undo, 1}} {
		stop := d.report()
		refuse := func(r *http.Request) error {
			if strings.Contains(r.URL.Path, "cluster-info") {
				return apierrors.NewUnauthorized("no")
			}
			return nil
		}
		d.api.Refuse = refuse
		d.refused(d.do("ca", s.run), "the files here are done, and joining machines are not told what to trust: reading ConfigMap kube-public/cluster-info", "slipway status")
		d.api.Refuse = nil
		d.must("ca", s.run)
		stop()
		d.told(s.certificates)
	}
	// The other authorities are not the cluster's.
	d.api.Log()
	for _, stage := range []func(*rotator, context.Context) error{(*rotator).advance, (*rotator).finish} {
		d.must("etcd-ca", stage)
	}
	if log := d.api.Log(); len(log) > 0 {
		t.Errorf("for etcd's authority the cluster is asked: %q", log)
	}
}
