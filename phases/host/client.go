package host

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// supervisorClient speaks to the supervisor's local socket.
type supervisorClient struct {
	socket string
	http   *http.Client
}

func newSupervisorClient(socket string) *supervisorClient {
	return &supervisorClient{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
		},
	}}}
}

func (c *supervisorClient) close() { c.http.CloseIdleConnections() }

func (c *supervisorClient) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	address := url.URL{Scheme: "http", Host: "slipway", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking the supervisor at %s: %w", c.socket, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1024))
		return nil, fmt.Errorf("asking the supervisor at %s for %s: %s: %s", c.socket, path, answer.Status, strings.TrimSpace(string(text)))
	}
	return answer.Body, nil
}

// healthy returns nil once the supervisor serves.
func (c *supervisorClient) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := c.get(ctx, "/healthz", nil)
	if err != nil {
		return err
	}
	return body.Close()
}

// watch calls each with every snapshot of the pods until the stream ends, each returns false, or ctx ends.
func (c *supervisorClient) watch(ctx context.Context, each func([]corev1.Pod) bool) error {
	body, err := c.get(ctx, "/pods", url.Values{"watch": {"true"}})
	if err != nil {
		return err
	}
	defer body.Close()
	for lines := json.NewDecoder(body); ; {
		var list corev1.PodList
		if err := lines.Decode(&list); err != nil {
			return fmt.Errorf("reading pods from the supervisor: %w", err)
		}
		if !each(list.Items) {
			return nil
		}
	}
}

// logs returns the container's last lines, those of its former run while it waits for the next.
func (c *supervisorClient) logs(ctx context.Context, pod, container string, tail int) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	body, err := c.get(ctx, "/logs", url.Values{"pod": {pod}, "container": {container}, "tail": {strconv.Itoa(tail)}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, 4<<20))
	if err != nil {
		return nil, fmt.Errorf("reading logs from the supervisor: %w", err)
	}
	return tailOf(strings.TrimRight(string(text), "\n"), tail), nil
}
