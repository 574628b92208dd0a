package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/status"
)

// localTimeout bounds one question to the supervisor. It answers from memory, so a second is already a hang.
const localTimeout = 5 * time.Second

// errNotRunning is the supervisor's absence: no socket, or nobody behind it.
var errNotRunning = errors.New("the supervisor does not run")

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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://slipway"+path, nil)
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
	case resp.StatusCode != http.StatusOK:
		resp.Body.Close()
		return nil, fmt.Errorf("asking the supervisor for %s: it answered %s", path, resp.Status)
	}
	return resp, nil
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
