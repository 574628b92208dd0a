package etcd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
)

// serve answers calls by their method with the messages given, in order. It notes what was asked.
func serve(t *testing.T, answers map[string][]message, asked map[string]message) *Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodec(codec{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(stream)
		var request message
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		asked[method] = request
		list, ok := answers[method]
		if !ok {
			return status.Error(codes.PermissionDenied, "etcdserver: permission denied")
		}
		for _, m := range list {
			if err := stream.SendMsg(&m); err != nil {
				return err
			}
		}
		return nil
	}))
	served := make(chan struct{})
	go func() { // ended by Stop, waited for in the clean-up
		defer close(served)
		server.Serve(listener) //nolint:errcheck // it ends with Stop
	}()
	client, err := Dial("http://"+listener.Addr().String(), nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close() //nolint:errcheck // of a test
		server.Stop()
		<-served
	})
	return client
}

func number(id protowire.Number, v uint64) message {
	return protowire.AppendVarint(protowire.AppendTag(nil, id, protowire.VarintType), v)
}

func text(id protowire.Number, v string) message {
	return protowire.AppendString(protowire.AppendTag(nil, id, protowire.BytesType), v)
}

func concat(parts ...message) message { return bytes.Join(asBytes(parts), nil) }

func asBytes(parts []message) [][]byte {
	var out [][]byte
	for _, p := range parts {
		out = append(out, p)
	}
	return out
}

func TestCalls(t *testing.T) {
	header := text(1, string(concat(number(1, 0xabc), number(2, 7), number(3, 42))))
	asked := map[string]message{}
	c := serve(t, map[string][]message{
		"/etcdserverpb.Maintenance/Status":   {concat(header, text(2, "3.6.8"), number(3, 4096), number(99, 1))},
		"/etcdserverpb.KV/Range":             {concat(header, text(2, string(concat(text(1, "/a"), number(3, 9), text(5, "value")))), number(4, 1))},
		"/etcdserverpb.Cluster/MemberList":   {concat(header, text(2, string(concat(number(1, 7), text(2, "edge1"), text(3, "https://192.0.2.1:2380"), text(3, "https://[2001:db8::1]:2380")))))},
		"/etcdserverpb.Cluster/MemberUpdate": {header},
	}, asked)
	got, err := c.Status(t.Context())
	if diff := cmp.Diff(Status{ClusterID: 0xabc, MemberID: 7, Revision: 42, Version: "3.6.8", Size: 4096}, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if value, err := c.Get(t.Context(), "/a"); err != nil || string(value) != "value" {
		t.Errorf("got %q, %v", value, err)
	}
	members, err := c.Members(t.Context())
	want := []Member{{ID: 7, Name: "edge1", PeerURLs: []string{"https://192.0.2.1:2380", "https://[2001:db8::1]:2380"}}}
	if diff := cmp.Diff(want, members); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	if err := c.UpdateMember(t.Context(), 7, []string{"https://192.0.2.2:2380"}); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(concat(number(1, 7), text(2, "https://192.0.2.2:2380")), asked["/etcdserverpb.Cluster/MemberUpdate"]); diff != "" {
		t.Errorf("the request, -want +got:\n%s", diff)
	}
}

func TestAMissingKeyIsNil(t *testing.T) {
	c := serve(t, map[string][]message{"/etcdserverpb.KV/Range": {number(4, 0)}}, map[string]message{})
	if value, err := c.Get(t.Context(), "/none"); err != nil || value != nil {
		t.Errorf("got %q, %v", value, err)
	}
}

func TestSnapshotIsWholeOrAnError(t *testing.T) {
	first, last := concat(number(2, 3), text(3, "abc")), concat(text(3, "def"))
	for name, tc := range map[string]struct {
		stream []message
		want   string
	}{
		"whole":        {[]message{first, last}, ""},
		"ended early":  {[]message{first}, "the stream ended after 3 bytes"},
		"nothing came": {[]message{}, "the stream ended after 0 bytes"},
		"garbled":      {[]message{{0xff}}, "cannot be decoded"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, map[string][]message{"/etcdserverpb.Maintenance/Snapshot": tc.stream}, map[string]message{})
			var out bytes.Buffer
			var totals []int64
			err := c.Snapshot(t.Context(), &out, func(_, total int64) { totals = append(totals, total) })
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || out.String() != "abcdef" || len(totals) != 2 || totals[0] != 6 || totals[1] != 6 {
				t.Errorf("%v, %q, totals %v", err, out.String(), totals)
			}
		})
	}
}

func TestErrorsSayWhoDidNotAnswer(t *testing.T) {
	c := serve(t, nil, map[string]message{})
	if _, err := c.Status(t.Context()); err == nil || !strings.HasSuffix(err.Error(), "for its status: etcdserver: permission denied") {
		t.Errorf("a refusal: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	gone, err := Dial("http://"+address, nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer gone.Close()
	if _, err := gone.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "it does not answer") || !strings.Contains(err.Error(), address) {
		t.Errorf("nobody there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, endpoint := range []string{"", "127.0.0.1:2379", "ftp://127.0.0.1"} {
		if _, err := Dial(endpoint, nil, time.Minute); err == nil {
			t.Errorf("%q was taken for an endpoint", endpoint)
		}
	}
	if _, err := Dial("https://127.0.0.1:2379", nil, time.Minute); err == nil || !strings.Contains(err.Error(), "wants a client certificate") {
		t.Errorf("https without a certificate: %v", err)
	}
}

// TestACallEndsAtItsLimit: a member that takes the connection and says nothing does not hold anybody up.
func TestACallEndsAtItsLimit(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := Dial("http://"+listener.Addr().String(), nil, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // less than what a status may take
	defer cancel()
	for name, call := range map[string]func() error{
		"a key":    func() error { _, err := c.Get(ctx, "/a"); return err },
		"members":  func() error { _, err := c.Members(ctx); return err },
		"a change": func() error { return c.UpdateMember(ctx, 1, nil) },
		"status":   func() error { _, err := c.Status(ctx); return err },
	} {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
