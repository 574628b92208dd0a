package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	mergePatch = "application/strategic-merge-patch+json"
	// longestAnswer is above the 3 MiB that an object may have in etcd.
	longestAnswer = 4 << 20
)

// client speaks to one API server over one connection. It is no client-go: that costs this process a third of its
// memory.
type client struct {
	http    *http.Client
	server  string
	timeout time.Duration
}

func newClient(c *credentials, p pace) *client {
	timeout := p.request
	dialer := &net.Dialer{Timeout: p.dial, KeepAlive: 30 * time.Second}
	transport := &http.Transport{
		TLSClientConfig: c.tls, DialContext: dialer.DialContext, TLSHandshakeTimeout: timeout, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		// A watch that hears nothing may be a dead connection: ask, every so often.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 3 * timeout, PingTimeout: timeout},
	}
	if c.proxy != nil {
		transport.Proxy = http.ProxyURL(c.proxy)
	}
	return &client{http: &http.Client{Transport: transport}, server: c.server, timeout: timeout}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// statusError is the API server's refusal.
type statusError struct {
	Code    int    `json:"code"`
	Reason  string `json:"reason"` // AlreadyExists, Conflict, Expired, …
	Message string `json:"message"`

	RetryAfter time.Duration `json:"-"` // of the header; 0 without one
}

func (e *statusError) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Code) }

// isCode tells whether err is a refusal with one of the codes.
func isCode(err error, codes ...int) bool {
	var refused *statusError
	if !errors.As(err, &refused) {
		return false
	}
	for _, code := range codes {
		if refused.Code == code {
			return true
		}
	}
	return false
}

// retryAfter is how long the server asks to be left alone, 0 when it does not.
func retryAfter(err error) time.Duration {
	var refused *statusError
	if !errors.As(err, &refused) {
		return 0
	}
	return refused.RetryAfter
}

// lostError is a request without an answer.
type lostError struct{ err error }

func (e *lostError) Error() string { return e.err.Error() }
func (e *lostError) Unwrap() error { return e.err }

// away tells whether err means that the connection is of no use any more: the server did not answer, or does not know
// us. A single request that takes too long is not that: behind it may be somebody's slow webhook.
func away(err error) bool {
	var lost *lostError
	return isCode(err, http.StatusUnauthorized) || errors.As(err, &lost) && !errors.Is(err, context.DeadlineExceeded)
}

func (c *client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, "", nil, into)
}

func (c *client) post(ctx context.Context, path string, body, into any) error {
	return c.do(ctx, http.MethodPost, path, "application/json", encode(body), into)
}

func (c *client) put(ctx context.Context, path string, body, into any) error {
	return c.do(ctx, http.MethodPut, path, "application/json", encode(body), into)
}

func (c *client) patch(ctx context.Context, path string, body []byte, into any) error {
	return c.do(ctx, http.MethodPatch, path, mergePatch, body, into)
}

func (c *client) delete(ctx context.Context, path string, body any) error {
	return c.do(ctx, http.MethodDelete, path, "application/json", encode(body), nil)
}

// do sends a request and decodes the answer. The error is a *statusError when the server answered with one.
func (c *client) do(ctx context.Context, method, path, contentType string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, longestAnswer))
	} else {
		err = json.NewDecoder(io.LimitReader(resp.Body, longestAnswer)).Decode(into)
	}
	if err != nil {
		return &lostError{fmt.Errorf("reading the answer to %s %s: %w", method, path, err)}
	}
	return nil
}

// send returns an answer of success; its body is the caller's to close.
func (c *client) send(ctx context.Context, method, path, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "slipway")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &lostError{err} // *url.Error names method and address
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	refused := &statusError{}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, &lostError{fmt.Errorf("reading the answer to %s %s: %w", method, path, err)}
	}
	if json.Unmarshal(text, refused) != nil || refused.Message == "" {
		refused.Message = strings.TrimSpace(resp.Status + " " + string(text[:min(len(text), 200)]))
	}
	refused.Code = resp.StatusCode
	// A date instead of seconds, which the API server never sends, is as good as nothing.
	if n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		refused.RetryAfter = time.Duration(n) * time.Second
	}
	return nil, refused
}

func podPath(name, sub string) string {
	namespace, pod, _ := strings.Cut(name, "/")
	return "/api/v1/namespaces/" + namespace + "/pods/" + pod + sub
}

func podsPath(name string) string {
	namespace, _, _ := strings.Cut(name, "/")
	return "/api/v1/namespaces/" + namespace + "/pods"
}
