package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	userAgent = "kube-probe/1.36"
	// maxBody is how many bytes of a response are read. Kubernetes v1.36.3 pkg/probe/http/http.go:35.
	maxBody = 10 << 10
	// maxRedirects is net/http's own.
	maxRedirects = 10
)

// httpHandler probes by GET. Every try dials anew: a kept connection would prove only that an old one still works.
// TLS sessions are resumed, since the certificate is not verified anyway and a full handshake is most of the cost.
func httpHandler(spec *corev1.Container, a *corev1.HTTPGetAction) handler {
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: dial, DisableKeepAlives: true, DisableCompression: true, // and no proxy
			TLSClientConfig: &tls.Config{
				InsecureSkipVerify: true, // as the kubelet: the certificate names who knows what
				ClientSessionCache: tls.NewLRUClientSessionCache(1),
				// Without the hybrid post-quantum exchange, which costs both sides more than the rest of the probe.
				CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
			},
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse // the redirect itself counts, as a success
			}
			if len(via) >= maxRedirects {
				return fmt.Errorf("stopped after %d redirects", maxRedirects)
			}
			return nil
		},
	}
	header := headerOf(a)
	var request *http.Request // for podIP from
	var from string
	return func(ctx context.Context, podIP string, timeout time.Duration) (string, error) {
		if request == nil || from != podIP {
			addr, err := address(spec, a.Host, podIP, a.Port)
			if err != nil {
				return "", err
			}
			if request, err = http.NewRequest(http.MethodGet, urlOf(a, addr), nil); err != nil {
				return "", err
			}
			request.Header, request.Host, from = header, header.Get("Host"), podIP
		}
		return get(client, request.WithContext(ctx), timeout)
	}
}

func get(client *http.Client, request *http.Request, timeout time.Duration) (string, error) {
	response, err := client.Do(request)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("GET %s: no answer within %s", request.URL, timeout), nil
	case err != nil:
		return clip(err.Error()), nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return "", fmt.Errorf("reading the response of %s: %w", request.URL, err)
	}
	if response.StatusCode >= http.StatusOK && response.StatusCode < http.StatusBadRequest {
		return "", nil
	}
	failed := fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode)
	if checks := failedChecks(string(body)); checks != "" {
		failed += " (" + checks + ")"
	}
	return failed, nil
}

// failedChecks returns which checks of a Kubernetes health endpoint failed. The rest of a body is never repeated: it
// may be anything, and messages travel further than probes.
func failedChecks(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		name, found := strings.CutPrefix(line, "[-]")
		if name, _, ok := strings.Cut(name, " failed"); found && ok && len(failed) < 5 && len(name) < 100 {
			failed = append(failed, name)
		}
	}
	return strings.Join(failed, ", ")
}

// dial makes connections that do not linger in TIME_WAIT for a minute each.
// Kubernetes v1.36.3 pkg/probe/dialer_others.go:30.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(1); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, err
}

func urlOf(a *corev1.HTTPGetAction, addr string) string {
	u, err := url.Parse(a.Path)
	if err != nil {
		u = &url.URL{Path: a.Path}
	}
	u.Scheme, u.Host = strings.ToLower(string(a.Scheme)), addr
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	return u.String()
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
