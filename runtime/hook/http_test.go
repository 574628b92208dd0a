package hook

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target is an HTTP server that remembers the requests it got.
type target struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string
	host string
	port int
}

// serve answers with the status in the path, such as /500, or redirects where "to" says.
func serve(t *testing.T, tls bool) *target {
	t.Helper()
	s := &target{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		line := fmt.Sprintf("%s %s ua=%s accept=%q", r.Method, r.URL, r.UserAgent(), r.Header["Accept"])
		for _, h := range []string{"X-Token", "Authorization"} {
			if v := r.Header[h]; v != nil {
				line += fmt.Sprintf(" %s=%s", h, v)
			}
		}
		if !strings.HasPrefix(r.Host, "127.0.0.1:") {
			line += " host=" + r.Host
		}
		s.got = append(s.got, line)
		to := r.URL.Query().Get("to")
		if r.URL.Path == "/loop" {
			to = "/loop"
		}
		if to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
		if code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/")); err == nil {
			w.WriteHeader(code)
		}
	}))
	if tls {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.host = u.Hostname()
	if s.port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHTTPGet(t *testing.T) {
	plain, secure := serve(t, false), serve(t, true)
	header := func(name, value string) []corev1.HTTPHeader { return []corev1.HTTPHeader{{Name: name, Value: value}} }
	const by = `ua=kube-lifecycle/1.36 accept=["*/*"]`
	for name, tc := range map[string]struct {
		server *target
		get    corev1.HTTPGetAction
		podIP  string
		want   []string
		err    string
	}{
		"to the pod":             {server: plain, get: corev1.HTTPGetAction{Path: "/hook?a=b"}, podIP: "127.0.0.1", want: []string{"GET /hook?a=b " + by}},
		"to a host of its own":   {server: plain, get: corev1.HTTPGetAction{Host: "127.0.0.1"}, podIP: "192.0.2.1", want: []string{"GET / " + by}},
		"no address":             {server: plain, err: "the pod has no address yet"},
		"a port by name":         {server: plain, get: corev1.HTTPGetAction{Port: intstr.FromString("web")}, podIP: "127.0.0.1", want: []string{"GET / " + by}},
		"a port nobody has":      {server: plain, get: corev1.HTTPGetAction{Port: intstr.FromString("nope")}, podIP: "127.0.0.1", err: `port "nope" is neither`},
		"a port that is none":    {server: plain, get: corev1.HTTPGetAction{Port: intstr.FromInt32(70000)}, podIP: "127.0.0.1", err: `port "70000" is neither`},
		"an answer is a success": {server: plain, get: corev1.HTTPGetAction{Path: "/500"}, podIP: "127.0.0.1", want: []string{"GET /500 " + by}},
		"headers": {server: plain, get: corev1.HTTPGetAction{HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Token", Value: "1"}, {Name: "X-Token", Value: "2"}, {Name: "user-agent", Value: "me"}}},
			podIP: "127.0.0.1", want: []string{`GET / ua=me accept=["*/*"] X-Token=[1 2]`}},
		"no Accept":      {server: plain, get: corev1.HTTPGetAction{HTTPHeaders: header("Accept", "")}, podIP: "127.0.0.1", want: []string{"GET / ua=kube-lifecycle/1.36 accept=[]"}},
		"another Host":   {server: plain, get: corev1.HTTPGetAction{HTTPHeaders: header("Host", "example.test")}, podIP: "127.0.0.1", want: []string{"GET / " + by + " host=example.test"}},
		"HTTPS":          {server: secure, get: corev1.HTTPGetAction{Scheme: corev1.URISchemeHTTPS, HTTPHeaders: header("Authorization", "secret")}, podIP: "127.0.0.1", want: []string{"GET / " + by + " Authorization=[secret]"}},
		"HTTP for HTTPS": {server: secure, get: corev1.HTTPGetAction{Path: "/x"}, podIP: "127.0.0.1"}, // the server's own answer, 400
		"HTTPS falls back": {server: plain, get: corev1.HTTPGetAction{Path: "/x", Scheme: corev1.URISchemeHTTPS, HTTPHeaders: header("Authorization", "secret")},
			podIP: "127.0.0.1", want: []string{"GET /x " + by}},
		"a redirect within":  {server: plain, get: corev1.HTTPGetAction{Path: "/?to=/there"}, podIP: "127.0.0.1", want: []string{"GET /?to=/there " + by, "GET /there " + by}},
		"a redirect outside": {server: plain, get: corev1.HTTPGetAction{Path: "/?to=http://other.test/"}, podIP: "127.0.0.1", want: []string{"GET /?to=http://other.test/ " + by}},
		"two redirects": {server: plain, get: corev1.HTTPGetAction{Path: "/?to=%2F%3Fto%3D%252F500"}, podIP: "127.0.0.1",
			want: []string{"GET /?to=%2F%3Fto%3D%252F500 " + by, "GET /?to=%2F500 " + by, "GET /500 " + by}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.server.mu.Lock()
			tc.server.got = nil
			tc.server.mu.Unlock()
			if tc.get.Port == (intstr.IntOrString{}) {
				tc.get.Port = intstr.FromInt32(int32(tc.server.port))
			}
			c := &corev1.Container{Name: "web", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(tc.server.port)}}}
			err := Runner{Client: NewClient()}.Run(t.Context(), &corev1.LifecycleHandler{HTTPGet: &tc.get}, c, "1", tc.podIP)
			if got := fmt.Sprint(err); tc.err == "" && err != nil || !strings.Contains(got, tc.err) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			tc.server.mu.Lock()
			defer tc.server.mu.Unlock()
			if diff := cmp.Diff(tc.want, tc.server.got); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRedirectsEnd(t *testing.T) {
	s := serve(t, false)
	get := &corev1.HTTPGetAction{Path: "/loop", Port: intstr.FromInt32(int32(s.port))}
	err := Runner{Client: NewClient()}.get(t.Context(), get, etcd(), s.host)
	if err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") || len(s.got) != 10 {
		t.Errorf("%v after %d requests", err, len(s.got))
	}
}

func TestHTTPErrorsNameNoToken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port where nobody answers, once it is closed
	if err != nil {
		t.Fatal(err)
	}
	port := int32(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	get := &corev1.HTTPGetAction{Path: "/hook?token=geheim", Port: intstr.FromInt32(port)}
	err = Runner{Client: NewClient()}.get(t.Context(), get, etcd(), "127.0.0.1")
	if err == nil || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), "/hook") {
		t.Errorf("got %v", err)
	}
}
