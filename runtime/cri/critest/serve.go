package critest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Conn returns a connection to the runtime that is a function call: no socket, no goroutine. Messages are copied, so
// that neither side sees the other's later changes.
func (r *Runtime) Conn() grpc.ClientConnInterface { return inProcess{r} }

type inProcess struct{ runtime *Runtime }

// Invoke calls the handler that a server would.
func (c inProcess) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	for _, desc := range []*grpc.ServiceDesc{&runtimeapi.RuntimeService_ServiceDesc, &runtimeapi.ImageService_ServiceDesc} {
		for _, m := range desc.Methods {
			if desc.ServiceName != service || m.MethodName != name {
				continue
			}
			resp, err := m.Handler(c.runtime, ctx, func(in any) error {
				proto.Merge(in.(proto.Message), args.(proto.Message))
				return nil
			}, c.runtime.intercept)
			if err != nil {
				return err
			}
			proto.Merge(reply.(proto.Message), resp.(proto.Message))
			return nil
		}
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// NewStream refuses: no streaming call is made.
func (c inProcess) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "unknown method %s", method)
}

// Server serves a Runtime on a unix socket.
type Server struct {
	Socket  string
	runtime *Runtime
	server  *grpc.Server
	done    chan struct{}
}

// Serve starts a server for rt that ends with the test.
func Serve(t testing.TB, rt *Runtime) *Server {
	t.Helper()
	s := &Server{Socket: filepath.Join(ShortDir(t), "cri.sock"), runtime: rt}
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Start listens on the socket again after Stop. The runtime's state is as it was.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		t.Fatalf("listening: %v", err)
	}
	server, done := grpc.NewServer(grpc.UnaryInterceptor(s.runtime.intercept)), make(chan struct{})
	runtimeapi.RegisterRuntimeServiceServer(server, s.runtime)
	runtimeapi.RegisterImageServiceServer(server, s.runtime)
	s.server, s.done = server, done
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
}

// Stop ends every connection and removes the socket, as a runtime that is stopped does. Calls in flight fail.
func (s *Server) Stop() {
	s.server.Stop()
	<-s.done
}

// ShortDir is a directory for the test with a path short enough for a unix socket, whose limit is 107 bytes;
// t.TempDir's is often longer.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatalf("making a directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing %q: %v", dir, err)
		}
	})
	return dir
}
