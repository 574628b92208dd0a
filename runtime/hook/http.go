package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	userAgent = "kube-lifecycle/1.36"
	// maxBody is how many bytes of a response are read. Kubernetes v1.36.3 pkg/kubelet/lifecycle/handlers.go:43.
	maxBody = 10 << 10
	// maxRedirects is net/http's own.
	maxRedirects = 10
)

// NewClient returns the client for httpGet hooks: it verifies no certificate and follows no redirect to another host,
// as the kubelet's, and keeps no connection. Kubernetes v1.36.3 pkg/kubelet/kubelet.go:594.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, // a hook runs once; and no proxy
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= maxRedirects {
				return fmt.Errorf("stopped after %d redirects", maxRedirects)
			}
			return nil
		},
	}
}

// get asks once. Every answer is a success, whatever its status code: the kubelet looks at none. A server that answers
// HTTPS in plain HTTP is asked again without TLS, and without the manifest's Authorization header.
func (r Runner) get(ctx context.Context, a *corev1.HTTPGetAction, container *corev1.Container, podIP string) error {
	request, err := requestOf(ctx, a, container, podIP)
	if err != nil {
		return err
	}
	err = r.do(request)
	if !isPlain(err) {
		return err
	}
	again := request.Clone(ctx)
	again.URL.Scheme = "http"
	again.Header.Del("Authorization")
	if r.do(again) != nil {
		return err // the first one's, as in a kubelet
	}
	return nil
}

func (r Runner) do(request *http.Request) error {
	if r.Client == nil {
		return errors.New("nothing to make requests with")
	}
	response, err := r.Client.Do(request)
	if err != nil {
		return short(err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxBody) // what it says does not matter, that it could be said does
	return nil
}

// short leaves the URL's query out of an error, which may hold a token.
func short(err error) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	where, _, _ := strings.Cut(u.URL, "?")
	return fmt.Errorf("%s %q: %w", u.Op, clip(where), u.Err)
}

// isPlain recognises net/http's error by its text: it has no value of its own.
func isPlain(err error) bool {
	return err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func requestOf(ctx context.Context, a *corev1.HTTPGetAction, container *corev1.Container, podIP string) (*http.Request, error) {
	host := a.Host
	if host == "" {
		host = podIP
	}
	if host == "" {
		return nil, errors.New("the pod has no address yet")
	}
	port, err := portNumber(container, a.Port)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), net.JoinHostPort(host, strconv.Itoa(port))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header = headerOf(a)
	request.Host = request.Header.Get("Host")
	return request, nil
}

// headerOf returns the manifest's headers with the kubelet's defaults. An empty Accept means none.
func headerOf(a *corev1.HTTPGetAction) http.Header {
	header := http.Header{}
	for _, h := range a.HTTPHeaders {
		header.Add(h.Name, h.Value)
	}
	if _, ok := header["User-Agent"]; !ok {
		header.Set("User-Agent", userAgent)
	}
	if accept, ok := header["Accept"]; !ok {
		header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		header.Del("Accept")
	}
	return header
}

// portNumber finds a named port among the container's; a name that is none may be a number.
func portNumber(container *corev1.Container, port intstr.IntOrString) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for _, p := range container.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
				break
			}
		}
	}
	if n <= 0 || n > 65535 {
		return 0, fmt.Errorf("port %q is neither a number nor a name among the container's ports", port.String())
	}
	return n, nil
}
