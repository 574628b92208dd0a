//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// proxy stands between a watcher and containerd and writes down every call. It costs each a fraction of a millisecond,
// so it serves for traces, never for figures.
type proxy struct {
	socket string
	server *grpc.Server
	conn   *grpc.ClientConn

	mu    sync.Mutex
	calls []proxied
}

type proxied struct {
	method     string
	start, end time.Time
	failed     bool
	request    []byte // the first message
}

// startProxy listens on a socket and passes everything on to another.
func startProxy(ctx context.Context, socket, to string) (*proxy, error) {
	conn, err := cri.Connect(to)
	if err != nil {
		return nil, err
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", socket)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p := &proxy{socket: socket, conn: conn}
	p.server = grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(p.pass), grpc.MaxRecvMsgSize(16<<20))
	go p.server.Serve(listener) //nolint:errcheck // until stop
	return p, nil
}

func (p *proxy) stop() error {
	p.server.Stop()
	return p.conn.Close()
}

// since are the calls that began after a time, with times relative to it. Those that were still under way are left out:
// streams, above all.
func (p *proxy) since(from time.Time) []tracedCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	var calls []tracedCall
	for _, c := range p.calls {
		if c.start.After(from) {
			calls = append(calls, tracedCall{Method: c.method, Start: c.start.Sub(from), Took: c.end.Sub(c.start), Failed: c.failed})
		}
	}
	return calls
}

// requests are the messages of the calls of a method that began after a time.
func (p *proxy) requests(method string, from time.Time) (messages [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.calls {
		if c.method == method && c.start.After(from) {
			messages = append(messages, c.request)
		}
	}
	return messages
}

// rawCodec leaves messages as they are. It takes the name of the usual codec, whose messages they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	raw, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("marshalling a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*raw)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	raw, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("unmarshalling a %T", v)
	}
	*raw = slices.Clone(data.Materialize())
	return nil
}

// pass is one call, of whichever kind: messages go both ways until one side ends.
func (p *proxy) pass(_ any, client grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(client)
	call := proxied{method: path[strings.LastIndexByte(path, '/')+1:], start: time.Now()}
	ctx, cancel := context.WithCancel(client.Context())
	defer cancel()
	if received, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, received)
	}
	server, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, path, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	first := make(chan []byte, 1)
	go func() { // ends with the client's stream, or ctx
		for {
			var message []byte
			if client.RecvMsg(&message) != nil {
				server.CloseSend() //nolint:errcheck // the other direction sees it
				return
			}
			select {
			case first <- message:
			default:
			}
			if server.SendMsg(&message) != nil {
				return
			}
		}
	}()
	for {
		var message []byte
		if err = server.RecvMsg(&message); err != nil {
			break
		}
		if err = client.SendMsg(&message); err != nil {
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	call.end, call.failed = time.Now(), err != nil
	select {
	case call.request = <-first:
	default: // it ended before it began
	}
	if status.Code(err) != codes.Canceled {
		p.mu.Lock()
		p.calls = append(p.calls, call)
		p.mu.Unlock()
	}
	return err
}
