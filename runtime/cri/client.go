// Package cri talks to a container runtime over the Kubernetes Container Runtime Interface.
package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// dialTimeout bounds Dial when its context has no deadline: a runtime that is up answers Version in milliseconds.
	dialTimeout = 10 * time.Second
	// maxMessageSize is containerd's and the kubelet's limit; gRPC's own 4 MiB is too small for long lists.
	maxMessageSize = 16 << 20
	// maxReconnectDelay lets a restarted runtime be found again within a quarter of a second. gRPC's own limit of two
	// minutes is meant for many clients of one server; here is one client on a local socket.
	maxReconnectDelay = 250 * time.Millisecond
)

// Client makes CRI v1 calls. It is safe for concurrent use. A connection that breaks is made again by itself; calls
// made meanwhile fail at once with an error for which IsUnavailable is true.
type Client struct {
	runtime runtimeapi.RuntimeServiceClient
	image   runtimeapi.ImageServiceClient
	conn    *grpc.ClientConn // nil when the connection is the caller's
}

// New returns a client that makes its calls on conn, which stays the caller's.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{
		runtime: runtimeapi.NewRuntimeServiceClient(conn),
		image:   runtimeapi.NewImageServiceClient(conn),
	}
}

// Dial connects to the runtime behind endpoint, "unix:///path" or an absolute path, and returns once it has answered a
// Version call. Without a deadline in ctx it gives up after ten seconds. The error says which of these it is: no
// socket, nobody listening on it, no permission, not a CRI runtime, still starting, or silent.
func Dial(ctx context.Context, endpoint string) (*Client, error) {
	path, err := SocketPath(endpoint)
	if err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, dialTimeout)
		defer cancel()
	}
	start := time.Now()
	if err := knock(ctx, path); err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %q: %w", path, err)
	}
	conn, err := Connect(path)
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.conn = conn
	if _, err := c.runtime.Version(ctx, &runtimeapi.VersionRequest{}); err != nil {
		err = explain(err, conn.GetState(), time.Since(start))
		_ = conn.Close()
		return nil, fmt.Errorf("connecting to the container runtime at %q: %w", path, err)
	}
	return c, nil
}

// Conn is the connection that Dial made, for the other services that containerd has on the same socket. It ends with
// Close. It is nil for a client made by New.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close ends the connection if Dial made it. Calls in flight fail.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// SocketPath returns the path of the unix socket that endpoint names.
func SocketPath(endpoint string) (string, error) {
	path, isURL := strings.CutPrefix(endpoint, "unix://")
	switch {
	case strings.HasPrefix(path, "/"):
		return path, nil
	case !isURL && strings.Contains(endpoint, "://"):
		scheme, _, _ := strings.Cut(endpoint, "://")
		return "", fmt.Errorf("runtime endpoint %q: scheme %q is not supported, use unix:///path/of/the.sock", endpoint, scheme)
	default:
		return "", fmt.Errorf("runtime endpoint %q: must be unix:///path/of/the.sock or an absolute path", endpoint)
	}
}

// Connect returns a connection that is made at the first call and made again whenever it breaks. The error is one of
// endpoint's spelling only.
func Connect(endpoint string) (*grpc.ClientConn, error) {
	path, err := SocketPath(endpoint)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), // a path is no valid authority, and some servers check
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageSize), grpc.MaxCallSendMsgSize(maxMessageSize)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectDelay},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithIdleTimeout(0), // a watcher must notice a runtime that goes, even between two calls
		grpc.WithDisableServiceConfig(),
	)
}

// knock finds out by plain socket calls what gRPC would only report as "unavailable".
func knock(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("the socket does not exist: start the runtime, or name another endpoint")
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("not a socket but a %s", fileKind(info.Mode()))
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: the socket is left over and nothing listens on it; start the runtime")
	case errors.Is(err, fs.ErrPermission):
		return errors.New("permission denied: run as root")
	case err != nil:
		return err
	}
	return conn.Close()
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m.IsRegular():
		return "regular file"
	default:
		return "special file"
	}
}

// explain turns the failure of the first call into what it means for a socket that accepted a connection.
func explain(err error, state connectivity.State, waited time.Duration) error {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unimplemented:
		return fmt.Errorf("what answers is not a CRI v1 runtime; if it is containerd, its CRI plugin is off (disabled_plugins in its config) or failed to load: %w", &callError{err: err})
	case codes.DeadlineExceeded, codes.Canceled:
		if state == connectivity.Ready {
			return fmt.Errorf("the runtime took the call and did not answer within %s: %w", waited.Round(time.Millisecond), context.DeadlineExceeded)
		}
		return fmt.Errorf("the socket accepts connections but never answers (waited %s): %w", waited.Round(time.Millisecond), context.DeadlineExceeded)
	case codes.Unavailable:
		if notInitialized(s.Message()) {
			return fmt.Errorf("the runtime is still starting: %w", &callError{err: err})
		}
		return fmt.Errorf("what listens there does not speak gRPC, or it ended the connection: %w", &callError{err: err})
	default:
		return &callError{err: err}
	}
}

// notInitialized recognizes containerd's answer while its CRI plugin recovers earlier containers.
func notInitialized(message string) bool { return strings.Contains(message, "not initialized yet") }
