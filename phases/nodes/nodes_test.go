package nodes_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/nodes"
	"github.com/slipway-k8s/slipway/phases/pki"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// limited ends long after the test should have.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("gave up after 10s"))
	t.Cleanup(cancel)
	return ctx
}

// create puts an object into the server.
func create(t *testing.T, s *kubeapitest.Server, o map[string]any) {
	t.Helper()
	if err := s.API(t, false).Create(limited(t), &unstructured.Unstructured{Object: o}, func(kubeapi.Report) {}); err != nil {
		t.Fatal(err)
	}
}

func node(t *testing.T, s *kubeapitest.Server, name, ready string, labels map[string]any) {
	t.Helper()
	o := map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": name, "labels": labels}}
	if ready != "" {
		o["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": ready}}}
	}
	create(t, s, o)
}

// request puts an answered request for a node's certificate into the server.
func request(t *testing.T, s *kubeapitest.Server, name, signer string, certificate []byte) {
	t.Helper()
	create(t, s, map[string]any{
		"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": map[string]any{"name": name},
		"spec":   map[string]any{"signerName": signer},
		"status": map[string]any{"certificate": base64.StdEncoding.EncodeToString(certificate)},
	})
}

// authority is one with a name, as all have the same.
func authority(t *testing.T, like *pki.Authority) *pki.Authority {
	t.Helper()
	var cert *x509.Certificate
	if like == nil {
		key, err := pki.GenerateKey(config.ECDSAP256)
		if err != nil {
			t.Fatal(err)
		}
		cert = &x509.Certificate{PublicKey: key.Public(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour)}
		cert.Subject.CommonName = "kubernetes"
	} else {
		cert = like.Certs[0]
	}
	certPEM, keyPEM, err := pki.NewAuthorityLike(cert, now)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := pki.ParseCertificates(certPEM)
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.ParseKey(keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &pki.Authority{Certs: certs, Key: key}
}

func certificate(t *testing.T, a *pki.Authority, user string, life time.Duration) []byte {
	t.Helper()
	key, err := pki.GenerateKey(config.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(pki.ClientRequest(user, []string{"system:nodes"}, now, life), key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

const kubeletSigner = "kubernetes.io/kube-apiserver-client-kubelet"

func TestOthers(t *testing.T) {
	s := kubeapitest.New(t)
	former := authority(t, nil)
	next := authority(t, former)
	node(t, s, "quay", "True", map[string]any{"node-role.kubernetes.io/control-plane": ""})
	node(t, s, "dock", "True", nil)
	node(t, s, "pier", "False", nil)    // its kubelet says so
	node(t, s, "wreck", "Unknown", nil) // nobody has heard of it
	node(t, s, "keel", "", nil)         // nor ever did
	node(t, s, "buoy", "True", nil)
	node(t, s, "helm", "True", map[string]any{"node-role.kubernetes.io/control-plane": ""})
	request(t, s, "csr-1", kubeletSigner, certificate(t, next, "system:node:dock", time.Hour))
	request(t, s, "csr-2", kubeletSigner, certificate(t, former, "system:node:pier", time.Hour))
	request(t, s, "csr-3", "example.com/other", certificate(t, next, "system:node:buoy", time.Hour))
	request(t, s, "csr-4", kubeletSigner, certificate(t, next, "system:node:wreck", -time.Minute))
	request(t, s, "csr-5", kubeletSigner, []byte("damaged"))
	request(t, s, "csr-6", kubeletSigner, nil) // it waits
	others, err := nodes.Others(limited(t), s.API(t, false), "quay", next.Certs[0], now)
	if err != nil {
		t.Fatal(err)
	}
	want := []nodes.Node{
		{Name: "buoy", Alive: true}, {Name: "dock", Alive: true, Certified: true}, {Name: "helm", ControlPlane: true, Alive: true},
		{Name: "keel"}, {Name: "pier", Alive: true}, {Name: "wreck"},
	}
	if diff := cmp.Diff(want, others); diff != "" {
		t.Error(diff)
	}
	s.Refuse = func(r *http.Request) error {
		if strings.Contains(r.URL.Path, "certificates") {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "certificatesigningrequests"}, "", errors.New("no"))
		}
		return nil
	}
	if _, err := nodes.Others(limited(t), s.API(t, false), "quay", next.Certs[0], now); err == nil || !strings.Contains(err.Error(), "listing CertificateSigningRequest") {
		t.Errorf("refused: %v", err)
	}
}

const leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"

// TestSilent: of three nodes one renews its lease, one's lease is changed by somebody else, one has none.
func TestSilent(t *testing.T) {
	s := kubeapitest.New(t)
	for _, name := range []string{"dock", "pier"} {
		create(t, s, map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": map[string]any{"namespace": "kube-node-lease", "name": name}, "spec": map[string]any{"renewTime": "2026-03-01T12:00:00.000000Z"}})
	}
	renew := func(n int) {
		s.Update(t, leases+"dock", "kubelet", func(o *unstructured.Unstructured) {
			unstructured.SetNestedField(o.Object, fmt.Sprintf("2026-03-01T11:00:%02d.000000Z", n%60), "spec", "renewTime") // its clock is an hour late
		})
		s.Update(t, leases+"pier", "somebody", func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"n": fmt.Sprint(n)}) })
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-tick.C:
				renew(n)
			case <-stop:
				return
			}
		}
	}()
	silent, err := nodes.Silent(limited(t), s.API(t, false), []string{"pier", "dock", "wreck"}, 500*time.Millisecond)
	close(stop)
	<-stopped
	if diff := cmp.Diff([]string{"pier", "wreck"}, silent); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

// What ends the wait is told apart: a server that refuses, and a user who has had enough, say nothing of the nodes.
func TestSilentDoesNotBlameNodes(t *testing.T) {
	s := kubeapitest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if silent, err := nodes.Silent(ctx, s.API(t, false), []string{"dock"}, time.Minute); len(silent) > 0 || !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "waiting for the reports of dock") {
		t.Errorf("interrupted: %q, %v", silent, err)
	}
	s.Refuse = func(*http.Request) error { return apierrors.NewUnauthorized("no") }
	if silent, err := nodes.Silent(limited(t), s.API(t, false), []string{"dock"}, time.Minute); len(silent) > 0 || err == nil {
		t.Errorf("refused: %q, %v", silent, err)
	}
}
