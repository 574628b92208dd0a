package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

func podWith(name string, command ...string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Command: command}}}}
}

func TestEndpointsOf(t *testing.T) {
	paths := config.Paths{PKI: "/p"}
	etcd := map[endpoint]bool{}
	for _, e := range endpointsOf(podWith("etcd-n1", "etcd", "--listen-client-urls=https://127.0.0.1:2379,https://192.0.2.1:2379", "--listen-peer-urls=https://192.0.2.1:2380", "--listen-metrics-urls=http://127.0.0.1:2381"), paths) {
		etcd[e] = true
	}
	want := map[endpoint]bool{{"127.0.0.1:2379", "/p/etcd/server.crt"}: true, {"192.0.2.1:2379", "/p/etcd/server.crt"}: true, {"192.0.2.1:2380", "/p/etcd/peer.crt"}: true}
	if diff := cmp.Diff(want, etcd, cmp.AllowUnexported(endpoint{})); diff != "" {
		t.Errorf("etcd (-want +got):\n%s", diff)
	}
	for _, tc := range []struct{ command, want string }{
		{"--advertise-address=192.0.2.1 --secure-port=7443", "192.0.2.1:7443"},
		{"--advertise-address=192.0.2.1 --bind-address=::", "192.0.2.1:6443"},
		{"--advertise-address=192.0.2.1 --bind-address=127.0.0.1", "127.0.0.1:6443"},
	} {
		got := endpointsOf(podWith("kube-apiserver-n1", strings.Fields("kube-apiserver "+tc.command)...), paths)
		if len(got) != 1 || got[0] != (endpoint{tc.want, "/p/apiserver.crt"}) {
			t.Errorf("%s: %v", tc.command, got)
		}
	}
	if got := endpointsOf(podWith("kube-scheduler-n1"), paths); got != nil {
		t.Errorf("the scheduler has %v", got)
	}
}

// TestServesNew compares what a server shows with the file.
func TestServesNew(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	host, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	paths := config.Paths{PKI: t.TempDir()}
	check := servesNew(podWith("kube-apiserver-n1", "--advertise-address="+host, "--secure-port="+port), paths)
	put := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(paths.PKI, "apiserver.crt"), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(pki.EncodeCertificates(server.Certificate()))
	if err := check(t.Context()); err != nil {
		t.Error(err)
	}
	other, _, err := pki.NewAuthorityLike(server.Certificate(), noon) // RSA, 2048 bits
	if err != nil {
		t.Fatal(err)
	}
	put(other)
	if err := check(t.Context()); err == nil || !strings.Contains(err.Error(), "serves the certificate with serial") {
		t.Errorf("another certificate: %v", err)
	}
	server.Close()
	if err := check(t.Context()); err == nil || !strings.Contains(err.Error(), "asking "+server.Listener.Addr().String()+" for its certificate") {
		t.Errorf("nobody serves: %v", err)
	}
}
