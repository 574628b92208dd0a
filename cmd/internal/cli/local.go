package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// localTimeout bounds one question to the supervisor. It answers from memory, so a second is already a hang.
const localTimeout = 5 * time.Second

// maxAnswer bounds the text of a refusal that is printed, in bytes.
const maxAnswer = 4 << 10

// errNotRunning is the supervisor's absence: no socket, or nobody behind it.
var errNotRunning = errors.New("the supervisor does not run")

// refusal is an answer other than 200 or 204.
type refusal struct {
	code int
	text string // its own words, "" where it has none
}

func (r *refusal) Error() string {
	if r.text == "" {
		return fmt.Sprintf("the supervisor answered %d %s", r.code, http.StatusText(r.code))
	}
	return r.text
}

// local is the client of the supervisor's socket.
type local struct {
	socket string
	http   *http.Client
}

func newLocal(socket string) *local {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &local{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// get asks for a path and decodes the JSON answer into v.
func (l *local) get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	resp, err := l.open(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("reading the supervisor's answer to %s: %w", path, err)
	}
	return nil
}

// open starts a request whose body the caller closes.
func (l *local) open(ctx context.Context, path string) (*http.Response, error) {
	resp, err := l.request(ctx, http.MethodGet, path)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		return nil, fmt.Errorf("asking the supervisor for %s: %w", path, err)
	}
	return resp, err
}

// request makes one request. An answer that is no success is a refusal.
func (l *local) request(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://slipway"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking the supervisor for %s: %w", path, err)
	}
	resp, err := l.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nothing answers at %s", errNotRunning, l.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("asking the supervisor at %s: only root may", l.socket)
	case err != nil:
		return nil, fmt.Errorf("asking the supervisor at %s: %w", l.socket, err)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent:
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // what came of it is better than nothing
		return nil, &refusal{resp.StatusCode, strings.TrimSpace(string(text))}
	}
	return resp, nil
}

// watch passes on each value of a stream until ctx ends, then returns nil. A supervisor that ends is an error.
func watch[T any](ctx context.Context, l *local, path string, take func(T) error) error {
	resp, err := l.open(ctx, path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for lines := json.NewDecoder(resp.Body); ; {
		var v T
		err := lines.Decode(&v)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("the supervisor has ended")
		case err != nil:
			return fmt.Errorf("reading the supervisor's answer to %s: %w", path, err)
		}
		if err := take(v); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// pods returns the supervisor's pods.
func (l *local) pods(ctx context.Context) (*corev1.PodList, error) {
	var list corev1.PodList
	return &list, l.get(ctx, "/pods", &list)
}

// problems returns the manifests that the supervisor refuses.
func (l *local) problems(ctx context.Context) ([]status.Problem, error) {
	var list []status.Problem
	return list, l.get(ctx, "/problems", &list)
}

// details returns what the supervisor knows of its pods beyond their status; of one pod where full is not "".
func (l *local) details(ctx context.Context, full string) ([]status.Detail, error) {
	var list []status.Detail
	return list, l.get(ctx, "/status"+query("pod", full), &list)
}

// events returns what has happened, of one pod where full is not "".
func (l *local) events(ctx context.Context, full string) ([]event.Event, error) {
	var list []event.Event
	return list, l.get(ctx, "/events"+query("pod", full), &list)
}

// restart asks for the restart of a pod's containers.
func (l *local) restart(ctx context.Context, full, why string) error {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	resp, err := l.request(ctx, http.MethodPost, "/restart"+query("pod", full, "why", why))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// query is the query part of a URL, of pairs of name and value; those with an empty value are left out.
func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}
