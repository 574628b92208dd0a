//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/phases/pki"
)

const clusterCA = "/etc/kubernetes/pki/ca.crt"

// TestRotateAuthorities replaces each authority of one control plane, and goes back from each stage, while clients and a
// worker that know only the former one go on up to the end of the overlap.
func TestRotateAuthorities(t *testing.T) {
	initialised(t, "--token", joinToken)
	eventually(t, time.Minute, "the control plane", healthy(t, controlPlane...))
	dir := t.TempDir()
	r := &rotation{outside: filepath.Join(dir, "outside.conf"), worker: newPaperNode(t, "pier", filepath.Join(dir, "former.conf")), dir: dir}
	saved, err := os.ReadFile("/etc/kubernetes/super-admin.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.outside, saved, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, *rotation)
	}{
		{"overlap", overlapGoesUnnoticed},
		{"finish is refused", finishIsRefused},
		{"finish is taken back", finishIsTakenBack},
		{"undo", undoGoesBackToTheStart},
		{"finish", finishDropsTheFormer},
		{"etcd-ca", etcdAuthority},
		{"front-proxy-ca", frontProxyAuthority},
	} {
		start := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.run(t, r) }) {
			return
		}
		t.Logf("%s took %v", step.name, time.Since(start).Round(time.Second))
	}
}

// rotation is who knows the cluster's former authority only.
type rotation struct {
	outside string // kubeconfig of an administrator
	worker  *paperNode
	dir     string // for further kubeconfigs
}

// asOutside is the administrator's kubectl.
func (r *rotation) asOutside(t *testing.T) result {
	t.Helper()
	return run(t, time.Minute, program("kubectl"), "--kubeconfig", r.outside, "--cache-dir", t.TempDir(), "get", "namespaces")
}

// stage takes a stage while a client asks without end, and logs what it took.
func stage(t *testing.T, kubeconfig string, args ...string) {
	t.Helper()
	words := "rotate-ca " + strings.Join(args, " ")
	p := poll(t, kubeconfig)
	r := slipway(t, append([]string{"certs", "rotate-ca"}, args...)...).must(t, "slipway certs "+words)
	t.Logf("%s took %v\n%s%s", words, r.took.Round(time.Millisecond), r.stderr, r.stdout)
	p.end(t, words, time.Minute) // one restart of the API server
}

func overlapGoesUnnoticed(t *testing.T, r *rotation) {
	former := onDisk(t, clusterCA)
	stage(t, r.outside, "begin")
	clusterInfoIsSigned(t)
	stage(t, r.outside, "switch")
	clusterInfoIsSigned(t)
	next := onDisk(t, clusterCA)
	if next.Equal(former) || servedAt(t, "127.0.0.1:6443").CheckSignatureFrom(next) != nil {
		t.Error("the API server does not serve what the next authority signed")
	}
	r.asOutside(t).must(t, "kubectl with the former authority, in the overlap")
	r.worker.reports(t)
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	clusterAnswers(t)
	eventually(t, 30*time.Second, "both authorities for pods", func() string {
		text := superKubectl(t, "-n", "kube-system", "get", "configmap", "kube-root-ca.crt", "-o", "jsonpath={.data.ca\\.crt}").stdout
		if strings.Count(text, "BEGIN CERTIFICATE") != 2 {
			return text
		}
		return ""
	})
}

// finishIsRefused: nothing is known of the worker, and nothing is done.
func finishIsRefused(t *testing.T, r *rotation) {
	before := ps(t)
	f := slipway(t, "certs", "rotate-ca", "finish")
	if f.code != 1 || !strings.Contains(f.stderr, "workers pier") || !strings.Contains(f.stderr, "slipway kubeconfig user --client-name system:node:NAME") {
		t.Fatalf("exit code %d\n%s%s", f.code, f.stderr, f.stdout)
	}
	t.Logf("refused within %v\n%s", f.took.Round(time.Millisecond), f.stderr)
	for _, name := range controlPlane {
		if after := ps(t)[name]; after.ID != before[name].ID {
			t.Errorf("%s was restarted", name)
		}
	}
}

// finishIsTakenBack: by force it is tried, the worker falls silent, and has the overlap back.
func finishIsTakenBack(t *testing.T, r *rotation) {
	next := onDisk(t, clusterCA)
	p := poll(t, "/etc/kubernetes/super-admin.conf") // it trusts both, and has the next one's certificate
	f := slipway(t, "certs", "rotate-ca", "finish", "--force")
	p.end(t, "a finish that is taken back, to a client that knows both", time.Minute)
	if f.code != 1 || !strings.Contains(f.stderr, "these nodes do not report when only one authority is trusted: pier: both are trusted again") {
		t.Fatalf("exit code %d\n%s%s", f.code, f.stderr, f.stdout)
	}
	t.Logf("taken back within %v\n%s", f.took.Round(time.Millisecond), f.stderr)
	r.worker.reports(t)
	r.asOutside(t).must(t, "kubectl with the former authority, after the overlap came back")
	if !onDisk(t, clusterCA).Equal(next) {
		t.Error("another authority signs")
	}
	clusterInfoIsSigned(t)
	if ready := superKubectl(t, "get", "node", "pier", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`).stdout; ready != "True" {
		t.Errorf("the worker was given up meanwhile: Ready is %q", ready)
	}
}

// undoGoesBackToTheStart: both stages are undone, and the authority is the one of the beginning.
func undoGoesBackToTheStart(t *testing.T, r *rotation) {
	former := onDisk(t, "/etc/kubernetes/pki/ca-former.crt")
	stage(t, r.outside, "undo")
	if !onDisk(t, clusterCA).Equal(former) || servedAt(t, "127.0.0.1:6443").CheckSignatureFrom(former) != nil {
		t.Error("the API server does not serve what the former authority signed")
	}
	clusterInfoIsSigned(t)
	stage(t, r.outside, "undo")
	clusterInfoIsSigned(t)
	othersTrust(t, "client-ca-file", clusterCA, 1)
	r.asOutside(t).must(t, "kubectl with the former authority, after both stages were undone")
	r.worker.reports(t)
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	clusterAnswers(t)
	slipway(t, "diff").must(t, "slipway diff after the rotation was undone")
	if u := slipway(t, "certs", "rotate-ca", "undo"); u.code != 1 || !strings.Contains(u.stderr, "there is nothing to undo") {
		t.Errorf("undo once more: exit code %d\n%s", u.code, u.stderr)
	}
}

// finishDropsTheFormer: the worker is given what slipway says, its kubelet asks for a certificate, and that is enough.
func finishDropsTheFormer(t *testing.T, r *rotation) {
	stage(t, r.outside)
	r.worker.stop()
	r.worker = newPaperNode(t, "pier", filepath.Join(r.dir, "next.conf"))
	r.worker.renewCertificate(t)
	stage(t, "/etc/kubernetes/super-admin.conf", "finish")
	clusterInfoIsSigned(t)
	if o := r.asOutside(t); o.code == 0 {
		t.Error("a client with a certificate of the former authority is still let in")
	}
	othersTrust(t, "client-ca-file", clusterCA, 1)
	r.worker.reports(t)
	r.worker.stop()
	superKubectl(t, "delete", "node", "pier").must(t, "kubectl delete node")
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	clusterAnswers(t)
	slipway(t, "diff").must(t, "slipway diff after the rotation")
}

// allStages goes back and forth with an authority that does not leave the control plane. check is told how many
// certificates are trusted.
func allStages(t *testing.T, authority, file string, check func(trusted int)) {
	t.Helper()
	former := onDisk(t, file)
	admin := "/etc/kubernetes/super-admin.conf"
	for _, s := range []struct {
		args    []string
		trusted int
		former  bool // signs
	}{
		{[]string{"begin"}, 2, true}, {[]string{"switch"}, 2, false}, {[]string{"undo"}, 2, true}, {[]string{"undo"}, 1, true},
		{nil, 2, false}, {[]string{"finish"}, 1, false},
	} {
		stage(t, admin, append(s.args, "--authority", authority)...)
		if onDisk(t, file).Equal(former) != s.former {
			t.Errorf("%s: the wrong authority signs", s.args)
		}
		check(s.trusted)
	}
	eventually(t, time.Minute, "health", healthy(t, controlPlane...))
	clusterAnswers(t)
	slipway(t, "diff").must(t, "slipway diff after the rotation")
}

func etcdAuthority(t *testing.T, _ *rotation) {
	const ca = "/etc/kubernetes/pki/etcd/ca.crt"
	allStages(t, "etcd-ca", ca, func(int) {
		if err := servedAt(t, "127.0.0.1:2379").CheckSignatureFrom(onDisk(t, ca)); err != nil {
			t.Errorf("etcd serves what the authority has not signed: %v", err)
		}
	})
}

func frontProxyAuthority(t *testing.T, _ *rotation) {
	allStages(t, "front-proxy-ca", "/etc/kubernetes/pki/front-proxy-ca.crt", func(trusted int) {
		othersTrust(t, "requestheader-client-ca-file", "/etc/kubernetes/pki/front-proxy-ca.crt", trusted)
	})
}

// othersTrust checks what aggregated API servers, the controller manager and the scheduler are told to trust: what is in
// the file, so many certificates, and nothing else. The API server writes it soon after its start.
func othersTrust(t *testing.T, key, file string, trusted int) {
	t.Helper()
	eventually(t, time.Minute, "what others are told to trust", func() string {
		told, err := pki.ParseCertificates([]byte(superKubectl(t, "-n", "kube-system", "get", "configmap", "extension-apiserver-authentication", "-o", "jsonpath={.data."+key+"}").stdout))
		if err != nil {
			return err.Error()
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		want, err := pki.ParseCertificates(data)
		if err != nil {
			return err.Error()
		}
		if len(told) != trusted || len(want) != trusted {
			return fmt.Sprintf("%d certificates are told, %d in the file, %d wanted", len(told), len(want), trusted)
		}
		for _, c := range want {
			if !slices.ContainsFunc(told, c.Equal) {
				return fmt.Sprintf("the one with serial %x is not told", c.SerialNumber)
			}
		}
		return ""
	})
}

// paperNode is a worker as far as the API sees it: a Node, and a Lease that is renewed every second with the kubelet's
// own credentials, a new connection each.
type paperNode struct {
	name    string
	client  *http.Client
	server  string
	ended   bool
	stopped chan struct{}
	done    chan struct{}
	renewed chan time.Time // the last renewal, while nobody looks
}

// newPaperNode gives a worker the kubelet.conf that slipway prints for it now, and has it register.
func newPaperNode(t *testing.T, name, conf string) *paperNode {
	t.Helper()
	r := slipway(t, "kubeconfig", "user", "--client-name", "system:node:"+name, "--org", "system:nodes").must(t, "slipway kubeconfig user")
	if err := os.WriteFile(conf, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &paperNode{name: name, stopped: make(chan struct{}), done: make(chan struct{}), renewed: make(chan time.Time, 1)}
	n.client, n.server = clientOf(t, conf)
	for path, body := range map[string]string{
		"/api/v1/nodes": `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "` + name + `"}}`,
		n.leases():      `{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "` + name + `"}, "spec": {"holderIdentity": "` + name + `", "leaseDurationSeconds": 40}}`,
	} {
		if code, answer, err := n.send("POST", path, "application/json", body); err != nil || code != http.StatusCreated && code != http.StatusConflict {
			t.Fatalf("POST %s: %d, %v\n%s", path, code, err, answer)
		}
	}
	ready := `{"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "it is"}]}}`
	if code, answer, err := n.send("PATCH", "/api/v1/nodes/"+name+"/status", "application/strategic-merge-patch+json", ready); err != nil || code != http.StatusOK {
		t.Fatalf("the node's status: %d, %v\n%s", code, err, answer)
	}
	go n.report()
	t.Cleanup(n.stop)
	n.reports(t)
	return n
}

func (n *paperNode) leases() string {
	return "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
}

func (n *paperNode) send(method, path, kind, body string) (int, string, error) {
	req, err := http.NewRequest(method, n.server+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", kind)
	resp, err := n.client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// report renews the Lease until stop, which waits for it.
func (n *paperNode) report() {
	defer close(n.done)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		now := time.Now()
		body := fmt.Sprintf(`{"spec": {"renewTime": %q}}`, now.UTC().Format("2006-01-02T15:04:05.000000Z"))
		if code, _, err := n.send("PATCH", n.leases()+"/"+n.name, "application/merge-patch+json", body); err == nil && code == http.StatusOK {
			select {
			case <-n.renewed:
			default:
			}
			n.renewed <- now
		}
		select {
		case <-ticker.C:
		case <-n.stopped:
			return
		}
	}
}

// reports waits until the node reports anew.
func (n *paperNode) reports(t *testing.T) {
	t.Helper()
	since := time.Now()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case at := <-n.renewed:
			if at.After(since) {
				return
			}
		case <-deadline:
			t.Fatalf("node %s does not report", n.name)
		}
	}
}

func (n *paperNode) stop() {
	if !n.ended {
		n.ended = true
		close(n.stopped)
		<-n.done
	}
}

// renewCertificate does what a kubelet does that starts with a certificate in its kubelet.conf: it asks for one of its own.
func (n *paperNode) renewCertificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + n.name, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": map[string]any{"name": "csr-" + n.name},
		"spec": map[string]any{"signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": []string{"digital signature", "client auth"},
			"request": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})},
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, answer, err := n.send("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "application/json", string(body)); err != nil || code != http.StatusCreated {
		t.Fatalf("the request: %d, %v\n%s", code, err, answer)
	}
	eventually(t, time.Minute, "the worker's certificate", func() string {
		r := superKubectl(t, "get", "csr", "csr-"+n.name, "-o", "jsonpath={.status}")
		if !strings.Contains(r.stdout, `"certificate":`) {
			return r.stdout + r.stderr
		}
		return ""
	})
}
