package mirror

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// authority issues certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
	end  time.Time // of what is signed; an hour from now if zero
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.n++
	template.SerialNumber = big.NewInt(a.n)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if !a.end.IsZero() {
		template.NotAfter = a.end
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// pair returns a certificate and its key as PEM.
func (a *authority) pair(cn string, groups ...string) (cert, key []byte) {
	c, k := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: cn, Organization: groups}, DNSNames: []string{"kubernetes"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}})
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pemOf("CERTIFICATE", c.Raw), pemOf("PRIVATE KEY", der)
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// writeKubeconfig writes a kubeconfig with everything inside, as kubeadm does.
func (a *authority) writeKubeconfig(path, server, cn string, groups ...string) {
	a.t.Helper()
	cert, key := a.pair(cn, groups...)
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "k", "user": "u"}}},
		"clusters": []any{map[string]any{"name": "k", "cluster": map[string]any{"server": server, "certificate-authority-data": pemOf("CERTIFICATE", a.cert.Raw)}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"client-certificate-data": cert, "client-key-data": key}}},
	})
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		a.t.Fatal(err)
	}
}

// fakeAPI is an API server that knows Nodes, Leases and Pods, and enforces what a real one enforces of nodes: the Node
// authorizer and NodeRestriction, v1.36.3 plugin/pkg/{auth/authorizer/node,admission/noderestriction}. It writes down
// every request that changes something.
type fakeAPI struct {
	t    *testing.T
	ca   *authority
	http *httptest.Server
	addr string

	mu      sync.Mutex
	changed *sync.Cond
	trace   []string       // what changes something
	all     map[string]int // every request
	version int
	node    *corev1.Node
	lease   *lease
	pods    map[string]*corev1.Pod
	log     []watchEvent
	hang    chan struct{}                          // while open, requests wait for it
	veto    func(verb string, p *corev1.Pod) error // a webhook
	mutate  func(p *corev1.Pod)                    // another
	minimum int64                                  // serial number of the oldest certificate that is taken
	events  map[string]*corev1.Event               // by "namespace/name"
	absent  map[string]bool                        // namespaces that are not there
	busy    func(r *http.Request) error            // 429 and 500, for any request
	hurry   func(*corev1.Pod)                      // a rival, told of each pod that is created
	refuses func(*corev1.Event) error
}

type watchEvent struct {
	version int
	kind    string
	pod     *corev1.Pod
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{t: t, ca: newAuthority(t), pods: map[string]*corev1.Pod{}, events: map[string]*corev1.Event{}, absent: map[string]bool{}, all: map[string]int{}, addr: "127.0.0.1:0"}
	f.changed = sync.NewCond(&f.mu)
	f.start()
	t.Cleanup(f.stop)
	return f
}

// start listens, at the same address as before.
func (f *fakeAPI) start() {
	listener, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.addr = listener.Addr().String()
	certPEM, keyPEM := f.ca.pair("kube-apiserver")
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(f.ca.cert)
	f.http = &httptest.Server{Listener: listener, EnableHTTP2: true, Config: &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)},
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}}
	f.http.StartTLS()
}

// stop is the server's sudden end.
func (f *fakeAPI) stop() {
	f.http.CloseClientConnections()
	f.http.Listener.Close()
	f.http.Config.Close()
	f.mu.Lock()
	f.changed.Broadcast()
	f.mu.Unlock()
}

func (f *fakeAPI) url() string { return "https://" + f.addr }

func fail(code int, reason, format string, args ...any) error {
	return &statusError{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	if r.URL.Query().Get("watch") != "" {
		f.watch(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	answer, err := f.answer(r, body)
	f.changed.Broadcast()
	f.mu.Unlock()
	if err != nil {
		refused := err.(*statusError)
		if refused.RetryAfter > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(refused.RetryAfter.Seconds())))
		}
		w.WriteHeader(refused.Code)
		answer = refused
	}
	_, _ = w.Write(encode(answer))
}

func (f *fakeAPI) answer(r *http.Request, body []byte) (any, error) {
	f.all[r.Method+" "+r.URL.Path]++
	if f.busy != nil {
		if err := f.busy(r); err != nil {
			return nil, err
		}
	}
	peer := r.TLS.PeerCertificates[0]
	if peer.SerialNumber.Int64() < f.minimum {
		return nil, fail(401, "Unauthorized", "Unauthorized")
	}
	me, isNode := strings.CutPrefix(peer.Subject.CommonName, "system:node:")
	if !isNode || !slices.Contains(peer.Subject.Organization, "system:nodes") {
		return nil, fail(403, "Forbidden", "%s is no node", peer.Subject.CommonName)
	}
	path := r.URL.Path
	if r.Method != http.MethodGet && !strings.Contains(path, "/leases") && !strings.Contains(path, "/events") {
		f.trace = append(f.trace, r.Method+" "+path)
	}
	switch {
	case strings.HasPrefix(path, "/api/v1/nodes"):
		return f.nodes(r.Method, path, me, body)
	case strings.HasPrefix(path, leasesPath):
		return f.leases(r.Method, me, body)
	case path == "/api/v1/pods":
		if r.URL.Query().Get("fieldSelector") != "spec.nodeName="+me {
			return nil, fail(403, "Forbidden", "can only list/watch pods with spec.nodeName field selector")
		}
		list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(f.version)}}
		for _, p := range f.pods {
			if p.Spec.NodeName == me {
				list.Items = append(list.Items, *p)
			}
		}
		return list, nil
	}
	if strings.Contains(path, "/events") {
		return f.eventRequest(r.Method, strings.TrimPrefix(path, "/api/v1/namespaces/"), body)
	}
	return f.podRequest(r.Method, strings.TrimPrefix(path, "/api/v1/namespaces/"), me, body)
}

func (f *fakeAPI) next() string { f.version++; return fmt.Sprint(f.version) }

func (f *fakeAPI) nodes(method, path, me string, body []byte) (any, error) {
	switch {
	case method == http.MethodPost:
		if f.node != nil {
			return nil, fail(409, "AlreadyExists", "node exists")
		}
		var n corev1.Node
		if err := json.Unmarshal(body, &n); err != nil || n.Name != me {
			return nil, fail(403, "Forbidden", "node %q is not allowed to modify node %q (%v)", me, n.Name, err)
		}
		n.ResourceVersion = f.next()
		n.UID = types.UID("node-" + n.ResourceVersion)
		f.node = &n
		return f.node, nil
	case f.node == nil:
		return nil, fail(404, "NotFound", "node not found")
	case method == http.MethodPatch:
		n, err := patched(f.node, body)
		if err != nil {
			return nil, err
		}
		if !slices.Equal(taints(n), taints(f.node)) {
			return nil, fail(403, "Forbidden", "node %q is not allowed to modify taints", me)
		}
		n.ResourceVersion = f.next()
		f.node = n
	}
	return f.node, nil
}

func taints(n *corev1.Node) []string {
	var all []string
	for _, t := range n.Spec.Taints {
		all = append(all, t.ToString())
	}
	return all
}

func patched[T any](old *T, patch []byte) (*T, error) {
	var zero T
	out, err := strategicpatch.StrategicMergePatch(encode(old), patch, zero)
	if err != nil {
		return nil, fail(400, "BadRequest", "%s", err)
	}
	if err := json.Unmarshal(out, &zero); err != nil {
		return nil, fail(400, "BadRequest", "%s", err)
	}
	return &zero, nil
}

func (f *fakeAPI) leases(method, me string, body []byte) (any, error) {
	if method == http.MethodGet {
		if f.lease == nil {
			return nil, fail(404, "NotFound", "lease not found")
		}
		return f.lease, nil
	}
	var l lease
	if err := json.Unmarshal(body, &l); err != nil || l.Name != me {
		return nil, fail(403, "Forbidden", "can only access node lease with the same name as the requesting node (%v)", err)
	}
	if method == http.MethodPut && f.lease == nil {
		return nil, fail(404, "NotFound", "lease not found")
	}
	if method == http.MethodPut && l.ResourceVersion != f.lease.ResourceVersion {
		return nil, fail(409, "Conflict", "the object has been modified")
	}
	l.ResourceVersion = f.next()
	f.lease = &l
	f.changed.Broadcast()
	return f.lease, nil
}

// podRequest serves NAMESPACE/pods[/NAME[/status]].
func (f *fakeAPI) podRequest(method, path, me string, body []byte) (any, error) {
	parts := strings.Split(path, "/")
	if method == http.MethodPost {
		return f.createPod(me, body)
	}
	name := parts[0] + "/" + parts[2]
	p := f.pods[name]
	if p == nil || p.Spec.NodeName != me {
		if method == http.MethodGet {
			return nil, fail(403, "Forbidden", "no relationship found between node %q and this object", me)
		}
		if p == nil {
			return nil, fail(404, "NotFound", "pods %q not found", name)
		}
		return nil, fail(403, "Forbidden", "node %q can only change pods with spec.nodeName set to itself", me)
	}
	switch method {
	case http.MethodGet:
		return p, nil
	case http.MethodDelete:
		var o metav1.DeleteOptions
		if err := json.Unmarshal(body, &o); err != nil {
			return nil, fail(400, "BadRequest", "%s", err)
		}
		if o.Preconditions == nil || o.Preconditions.UID == nil || *o.Preconditions.UID != p.UID {
			return nil, fail(409, "Conflict", "the UID in the precondition does not match the UID in record")
		}
		if o.GracePeriodSeconds == nil || *o.GracePeriodSeconds != 0 {
			f.t.Errorf("DELETE %s with grace", name)
		}
		f.drop(name)
		return p, nil
	case http.MethodPatch:
		if len(parts) != 4 || parts[3] != "status" {
			return nil, fail(403, "Forbidden", "a node can only create and delete mirror pods")
		}
		n, err := patched(p, body)
		if err != nil {
			return nil, err
		}
		if n.UID != p.UID {
			return nil, fail(409, "Conflict", "uid mismatch")
		}
		if string(encode(n.Labels)) != string(encode(p.Labels)) {
			return nil, fail(403, "Forbidden", "node %q cannot update labels through pod status", me)
		}
		f.store(name, n)
		return n, nil
	}
	return nil, fail(405, "MethodNotAllowed", "%s", method)
}

// eventRequest serves NAMESPACE/events[/NAME]. A node may create, update and patch events, and not read them. Kubernetes
// v1.36.3 plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go:216.
func (f *fakeAPI) eventRequest(method, path string, body []byte) (any, error) {
	defer f.changed.Broadcast()
	namespace, _, _ := strings.Cut(path, "/")
	switch {
	case f.absent[namespace]:
		return nil, fail(404, "NotFound", "namespaces %q not found", namespace)
	case method == http.MethodPost:
		var e corev1.Event
		if err := json.Unmarshal(body, &e); err != nil || e.Namespace != namespace || e.InvolvedObject.Namespace != "" && e.InvolvedObject.Namespace != namespace {
			return nil, fail(422, "Invalid", "involvedObject.namespace: does not match event.namespace (%v)", err)
		}
		if f.refuses != nil {
			if err := f.refuses(&e); err != nil {
				return nil, err
			}
		}
		if f.events[namespace+"/"+e.Name] != nil {
			return nil, fail(409, "AlreadyExists", "events %q already exists", e.Name)
		}
		f.events[namespace+"/"+e.Name] = &e
		return e, nil
	case method == http.MethodPatch:
		name := strings.Replace(path, "/events/", "/", 1)
		if f.events[name] == nil {
			return nil, fail(404, "NotFound", "events %q not found", name)
		}
		e, err := patched(f.events[name], body)
		if err == nil {
			f.events[name] = e
		}
		return e, err
	}
	return nil, fail(403, "Forbidden", "cannot %s events", method)
}

func (f *fakeAPI) createPod(me string, body []byte) (any, error) {
	var p corev1.Pod
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, fail(400, "BadRequest", "%s", err)
	}
	name := p.Namespace + "/" + p.Name
	switch yes := true; {
	case f.absent[p.Namespace]:
		return nil, fail(404, "NotFound", "namespaces %q not found", p.Namespace)
	case p.Annotations[corev1.MirrorPodAnnotationKey] == "":
		return nil, fail(403, "Forbidden", "pod does not have %q annotation", corev1.MirrorPodAnnotationKey)
	case p.Spec.NodeName != me:
		return nil, fail(403, "Forbidden", "node %q can only create pods with spec.nodeName set to itself", me)
	case f.node == nil || len(p.OwnerReferences) != 1 || string(encode(p.OwnerReferences[0])) !=
		string(encode(metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: me, UID: f.node.UID, Controller: &yes})):
		return nil, fail(403, "Forbidden", "node %q can only create pods with an owner reference set to itself", me)
	case f.pods[name] != nil:
		return nil, fail(409, "AlreadyExists", "pods %q already exists", name)
	}
	if f.veto != nil {
		if err := f.veto("create", &p); err != nil {
			return nil, err
		}
	}
	if f.mutate != nil {
		f.mutate(&p)
	}
	p.UID = types.UID(fmt.Sprint("pod-", f.version+1))
	p.Status = corev1.PodStatus{Phase: corev1.PodPending}
	f.store(name, &p)
	if f.hurry != nil {
		defer f.hurry(f.pods[name].DeepCopy())
	}
	return &p, nil
}

func (f *fakeAPI) store(name string, p *corev1.Pod) {
	kind := "MODIFIED"
	if f.pods[name] == nil {
		kind = "ADDED"
	}
	p.ResourceVersion = f.next()
	f.pods[name] = p
	f.log = append(f.log, watchEvent{f.version, kind, p.DeepCopy()})
	f.changed.Broadcast()
}

func (f *fakeAPI) drop(name string) {
	p := f.pods[name].DeepCopy()
	delete(f.pods, name)
	p.ResourceVersion = f.next()
	f.log = append(f.log, watchEvent{f.version, "DELETED", p})
	f.changed.Broadcast()
}

func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request) {
	var from int
	if _, err := fmt.Sscan(r.URL.Query().Get("resourceVersion"), &from); err != nil {
		f.t.Errorf("watch from %q", r.URL.RawQuery)
	}
	flusher := w.(http.Flusher)
	flusher.Flush()
	ctx := r.Context()
	go func() { <-ctx.Done(); f.mu.Lock(); f.changed.Broadcast(); f.mu.Unlock() }()
	for {
		f.mu.Lock()
		var due []watchEvent
		for {
			for _, e := range f.log {
				if e.version > from {
					due = append(due, e)
				}
			}
			if len(due) > 0 || ctx.Err() != nil {
				break
			}
			f.changed.Wait()
		}
		f.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		for _, e := range due {
			from = e.version
			b := encode(map[string]any{"type": e.kind, "object": e.pod})
			if _, err := w.Write(bytes.Join([][]byte{b, []byte("\n")}, nil)); err != nil {
				return
			}
		}
		flusher.Flush()
	}
}

// edit is an administrator's change of a pod.
func (f *fakeAPI) edit(name string, change func(*corev1.Pod)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pods[name].DeepCopy()
	change(p)
	f.store(name, p)
}

// await returns once the state satisfies ok.
func (f *fakeAPI) await(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.AfterFunc(10*time.Second, func() { f.mu.Lock(); f.changed.Broadcast(); f.mu.Unlock() })
	began := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !ok() {
		if time.Since(began) > 10*time.Second {
			f.t.Fatalf("waited in vain for %s; requests so far:\n%s", what, strings.Join(f.trace, "\n"))
		}
		f.changed.Wait()
	}
	deadline.Stop()
}

// takeTrace returns the requests since the last time.
func (f *fakeAPI) takeTrace() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.trace, "\n")
	f.trace = nil
	return s
}

// takeAll returns how often everything was asked for since the last time.
func (f *fakeAPI) takeAll() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.all
	f.all = map[string]int{}
	return all
}

func minutes(m float64) time.Duration { return time.Duration(m * float64(time.Minute)) }

func tempKubeconfig(t *testing.T) string { return filepath.Join(t.TempDir(), "kubelet.conf") }
