package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func portOf(t *testing.T, server *httptest.Server) int {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestHTTP(t *testing.T) {
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") })
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, strings.Repeat("x", 1<<20)) })
	mux.HandleFunc("/404", http.NotFound)
	mux.HandleFunc("/livez", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
		io.WriteString(w, "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: not finished\nlivez check failed\nsecret\n")
	})
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/404", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-release })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		want := http.Header{"User-Agent": {"kube-probe/1.36"}, "Accept": {"*/*"}, "X-Probe": {"1"}, "Connection": {"close"}}
		if diff := cmp.Diff(want, r.Header); diff != "" || r.Host != "etcd.example" {
			t.Errorf("host %q, headers -want +got:\n%s", r.Host, diff)
		}
	})
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	defer close(release)

	for _, scheme := range []corev1.URIScheme{"", corev1.URISchemeHTTP, corev1.URISchemeHTTPS} {
		server := plain
		if scheme == corev1.URISchemeHTTPS {
			server = secure
		}
		spec := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "probe-port", ContainerPort: int32(portOf(t, server))}}}
		for _, c := range []struct {
			path, want string
			timeout    time.Duration
		}{
			{path: "/ok"}, {path: "ok"}, {path: "/big"}, {path: "/elsewhere"}, {path: "/headers"},
			{path: "/404", want: "HTTP probe failed with statuscode: 404"},
			{path: "/here", want: "HTTP probe failed with statuscode: 404"},
			{path: "/livez", want: "HTTP probe failed with statuscode: 500 (etcd, poststarthook/rbac)"},
			{path: "/loop", want: "stopped after 10 redirects"},
			{path: "/slow", timeout: 100 * time.Millisecond, want: "no answer within 100ms"},
		} {
			t.Run(string(scheme)+c.path, func(t *testing.T) {
				try := httpHandler(spec, &corev1.HTTPGetAction{
					Scheme: scheme, Path: c.path, Port: intstr.FromString("probe-port"),
					HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "etcd.example"}, {Name: "X-Probe", Value: "1"}},
				})
				timeout := c.timeout
				if timeout == 0 {
					timeout = 10 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				got, err := try(ctx, "127.0.0.1", timeout)
				if err != nil || !strings.Contains(got, c.want) || (c.want == "") != (got == "") {
					t.Errorf("%q, %v; want %q", got, err, c.want)
				}
			})
		}
	}
}

// TestTLSSessionsAreResumed: an idle probe must not pay for a full handshake each time.
func TestTLSSessionsAreResumed(t *testing.T) {
	var resumed, connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS.DidResume {
			resumed.Add(1)
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.StartTLS()
	defer server.Close()
	try := httpHandler(&corev1.Container{}, &corev1.HTTPGetAction{Scheme: corev1.URISchemeHTTPS, Port: intstr.FromInt(portOf(t, server))})
	for range 5 {
		if failed, err := try(t.Context(), "127.0.0.1", time.Second); failed != "" || err != nil {
			t.Fatal(failed, err)
		}
	}
	if connections.Load() != 5 || resumed.Load() != 4 {
		t.Errorf("%d connections, %d resumed; want 5 and 4", connections.Load(), resumed.Load())
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	try := tcpHandler(&corev1.Container{}, &corev1.TCPSocketAction{Port: intstr.FromInt(port)})
	if failed, err := try(t.Context(), "127.0.0.1", time.Second); failed != "" || err != nil {
		t.Error(failed, err)
	}
	if _, err := try(t.Context(), "", time.Second); err == nil {
		t.Error("a pod without an address was judged")
	}
	l.Close()
	if failed, err := try(t.Context(), "127.0.0.1", time.Second); !strings.Contains(failed, "refused") || err != nil {
		t.Error(failed, err)
	}
}

func TestGRPC(t *testing.T) {
	service := "etcd"
	var asked []string
	deps := Deps{GRPC: func(_ context.Context, addr, service string) error {
		asked = append(asked, addr+" "+service)
		if len(asked) > 1 {
			return errors.New("NOT_SERVING")
		}
		return nil
	}}
	c := &container{set: &Set{deps: deps}, spec: &corev1.Container{}}
	try := newHandler(c, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 2379, Service: &service}}})
	for _, want := range []string{"", "NOT_SERVING"} {
		if failed, err := try(t.Context(), "fd00::1", time.Second); failed != want || err != nil {
			t.Errorf("%q, %v; want %q", failed, err, want)
		}
	}
	if asked[0] != "[fd00::1]:2379 etcd" {
		t.Errorf("asked %q", asked[0])
	}
}

func TestExecExpandsLiteralVariables(t *testing.T) {
	got := expand(
		[]string{"etcdctl", "--endpoints=$(HOST):$(PORT)", "$(UNKNOWN)", "$$(HOST)", "$", "$(OPEN", "$x", "$(FIELD)"},
		[]corev1.EnvVar{{Name: "HOST", Value: "127.0.0.1"}, {Name: "PORT", Value: "23$(TAIL)"}, {Name: "FIELD", ValueFrom: &corev1.EnvVarSource{}}},
	)
	want := []string{"etcdctl", "--endpoints=127.0.0.1:23$(TAIL)", "$(UNKNOWN)", "$(HOST)", "$", "$(OPEN", "$x", "$(FIELD)"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownPort(t *testing.T) {
	_, err := address(&corev1.Container{}, "", "127.0.0.1", intstr.FromString("metrics"))
	if err == nil || !strings.Contains(err.Error(), `port "metrics" is neither`) {
		t.Error(err)
	}
}

// BenchmarkIdle is the cost of one try, both sides: at one a second for four pods, four times ns/op is the load.
func BenchmarkIdle(b *testing.B) {
	for _, scheme := range []corev1.URIScheme{corev1.URISchemeHTTP, corev1.URISchemeHTTPS} {
		b.Run(string(scheme), func(b *testing.B) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			if scheme == corev1.URISchemeHTTPS {
				server.StartTLS()
			} else {
				server.Start()
			}
			defer server.Close()
			u, _ := url.Parse(server.URL)
			port, _ := strconv.Atoi(u.Port())
			try := httpHandler(&corev1.Container{}, &corev1.HTTPGetAction{Scheme: scheme, Port: intstr.FromInt(port)})
			b.ReportAllocs()
			for b.Loop() {
				if failed, err := try(b.Context(), "127.0.0.1", time.Second); failed != "" || err != nil {
					b.Fatal(failed, err)
				}
			}
		})
	}
}
