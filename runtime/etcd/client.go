// Package etcd asks an etcd member for what backing up and moving a cluster needs: a snapshot, a key, its members.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// statusTimeout bounds the question whether a member is there: one that is up answers it from memory, in milliseconds.
const statusTimeout = 10 * time.Second

// Client speaks to one member. Messages are encoded by hand (message.go): five calls with a handful of fields do not pay
// for etcd's API module.
type Client struct {
	endpoint string
	limit    time.Duration
	conn     *grpc.ClientConn
}

// Dial returns a client of the member at endpoint, "https://host:port". It connects at the first call. Without a TLS
// configuration the endpoint must be plain http. limit bounds each call but the snapshot's, which has the size of the data:
// there, ctx does.
func Dial(endpoint string, config *tls.Config, limit time.Duration) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, fmt.Errorf("etcd's endpoint %q is not a URL such as https://127.0.0.1:2379", endpoint)
	}
	if u.Scheme == "https" && config == nil {
		return nil, fmt.Errorf("etcd's endpoint %q wants a client certificate", endpoint)
	}
	secure := plaintext()
	if u.Scheme == "https" {
		secure = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(secure),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(codec{}), grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithNoProxy())
	if err != nil {
		return nil, fmt.Errorf("connecting to etcd at %s: %w", endpoint, err)
	}
	return &Client{endpoint: endpoint, limit: limit, conn: conn}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Status is what a member says of itself.
type Status struct {
	ClusterID, MemberID uint64
	Revision            int64
	Version             string
	Size                int64 // bytes of its database
}

// Status asks the member for its state, for ten seconds at the most.
func (c *Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	answer, err := c.call(ctx, "/etcdserverpb.Maintenance/Status", nil)
	if err != nil {
		return Status{}, fmt.Errorf("asking etcd at %s for its status: %w", c.endpoint, err)
	}
	return parseStatus(answer)
}

// Get returns the value of a key; nil where there is no such key.
func (c *Client) Get(ctx context.Context, key string) ([]byte, error) {
	answer, err := c.call(ctx, "/etcdserverpb.KV/Range", rangeRequest(key))
	if err != nil {
		return nil, fmt.Errorf("asking etcd at %s for %s: %w", c.endpoint, key, err)
	}
	return parseRange(answer)
}

// Member is one member of the cluster.
type Member struct {
	ID       uint64
	Name     string
	PeerURLs []string
}

// Members lists the cluster's members as this one knows them: no quorum is needed for it.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	answer, err := c.call(ctx, "/etcdserverpb.Cluster/MemberList", nil)
	if err != nil {
		return nil, fmt.Errorf("asking etcd at %s for its members: %w", c.endpoint, err)
	}
	return parseMembers(answer)
}

// UpdateMember gives a member other peer URLs.
func (c *Client) UpdateMember(ctx context.Context, id uint64, peerURLs []string) error {
	if _, err := c.call(ctx, "/etcdserverpb.Cluster/MemberUpdate", updateRequest(id, peerURLs)); err != nil {
		return fmt.Errorf("giving etcd's member %x the peer URLs %q: %w", id, peerURLs, err)
	}
	return nil
}

// Snapshot writes the member's database to w as etcd streams it, with the SHA-256 that it appends, and calls progress
// with the bytes done and in all. A stream that ends early is an error.
func (c *Client) Snapshot(ctx context.Context, w io.Writer, progress func(done, total int64)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{ServerStreams: true}
	stream, err := c.conn.NewStream(ctx, desc, "/etcdserverpb.Maintenance/Snapshot")
	if err == nil {
		err = stream.SendMsg(&message{})
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		return fmt.Errorf("asking etcd at %s for a snapshot: %w", c.endpoint, c.explain(err))
	}
	var done int64
	remaining := int64(-1)
	for {
		var m message
		err := stream.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("receiving a snapshot from etcd at %s: %w", c.endpoint, c.explain(err))
		}
		part, err := parseSnapshot(m)
		if err != nil {
			return err
		}
		if _, err := w.Write(part.blob); err != nil {
			return err // names the file
		}
		done += int64(len(part.blob))
		remaining = part.remaining
		progress(done, done+remaining)
	}
	if done == 0 || remaining != 0 {
		return fmt.Errorf("receiving a snapshot from etcd at %s: the stream ended after %d bytes, before its end", c.endpoint, done)
	}
	return nil
}

func (c *Client) call(ctx context.Context, method string, request message) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	var answer message
	if err := c.conn.Invoke(ctx, method, &request, &answer); err != nil {
		return nil, c.explain(err)
	}
	return answer, nil
}

// explain says what gRPC's codes mean here.
func (c *Client) explain(err error) error {
	s, ok := status.FromError(err)
	switch {
	case !ok:
		return err
	case s.Code() == codes.Unavailable:
		return fmt.Errorf("it does not answer: %s", s.Message())
	case s.Code() == codes.DeadlineExceeded && c.conn.GetState() != connectivity.Ready:
		return fmt.Errorf("it did not answer in time: %w", context.DeadlineExceeded)
	case s.Code() == codes.DeadlineExceeded:
		return fmt.Errorf("it did not finish in time: %w", context.DeadlineExceeded)
	case s.Code() == codes.Canceled:
		return context.Canceled
	}
	return errors.New(s.Message())
}
