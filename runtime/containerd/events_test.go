package containerd

import (
	"context"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/events/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

func TestHintOf(t *testing.T) {
	at := time.Unix(1000, 5).UTC()
	for _, c := range []struct {
		name, topic string
		event       proto.Message
		want        Hint
		ok          bool
	}{
		{"a container ends", "/tasks/exit", &events.TaskExit{ContainerID: "c", ID: "c", ExitStatus: 3, ExitedAt: timestamppb.New(at)},
			Hint{ContainerID: "c", Topic: "/tasks/exit", Exit: &Exit{Code: 3, At: at}}, true},
		{"a probe's command ends", "/tasks/exit", &events.TaskExit{ContainerID: "c", ID: "exec-1"}, Hint{}, false},
		{"a container starts", "/tasks/start", &events.TaskStart{ContainerID: "c"}, Hint{ContainerID: "c", Topic: "/tasks/start"}, true},
		{"out of memory", "/tasks/oom", &events.TaskOOM{ContainerID: "c"}, Hint{ContainerID: "c", Topic: "/tasks/oom"}, true},
		{"a container goes", "/containers/delete", &events.ContainerDelete{ID: "c"}, Hint{ContainerID: "c", Topic: "/containers/delete"}, true},
		{"a sandbox ends", "/sandboxes/exit", &events.SandboxExit{SandboxID: "s"}, Hint{ContainerID: "s", Topic: "/sandboxes/exit"}, true},
		{"an image comes", "/images/create", &events.ImageCreate{Name: "i"}, Hint{ContainerID: "", Topic: "/images/create"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			body, err := proto.Marshal(c.event)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := hintOf(c.topic, body)
			if ok != c.ok || ok && !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, %v; want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
	if got, ok := hintOf("/tasks/exit", []byte{0xff}); !ok || got.Topic != Resync {
		t.Errorf("an event that cannot be read: %v, %v; want a resync", got, ok)
	}
}

// eventServer is containerd's events service, which begins to listen a while after Subscribe.
type eventServer struct {
	api.UnimplementedEventsServer
	mu        sync.Mutex
	deaf      int // publications still to be lost
	published chan *types.Envelope
}

func (s *eventServer) Publish(_ context.Context, req *api.PublishRequest) (*emptypb.Empty, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deaf > 0 {
		s.deaf--
		return &emptypb.Empty{}, nil
	}
	s.published <- &types.Envelope{Topic: req.GetTopic(), Event: req.GetEvent()}
	return &emptypb.Empty{}, nil
}

func (s *eventServer) Subscribe(_ *api.SubscribeRequest, stream api.Events_SubscribeServer) error {
	for {
		select {
		case e := <-s.published:
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func serveEvents(t *testing.T, socket string, s *eventServer) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterEventsServer(server, s)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return server.Stop
}

func exitOf(t *testing.T, id string) *types.Envelope {
	t.Helper()
	body, err := anypb.New(&events.TaskExit{ContainerID: id, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return &types.Envelope{Topic: "/tasks/exit", Event: body}
}

// TestEventsResume also shows the order: nothing is told before the stream is known to be complete, and a lost stream
// begins again with a resync.
func TestEventsResume(t *testing.T) {
	socket := filepath.Join(critest.ShortDir(t), "c.sock")
	ctx, cancel := context.WithCancel(t.Context())
	hints, err := Events(ctx, socket) // containerd is not there yet
	if err != nil {
		t.Fatal(err)
	}
	first := &eventServer{deaf: 2, published: make(chan *types.Envelope, 10)}
	stop := serveEvents(t, socket, first)
	if got := <-hints; got.Topic != Resync {
		t.Fatalf("first hint %v, want a resync", got)
	}
	first.published <- exitOf(t, "one")
	if got := <-hints; got.ContainerID != "one" || got.Topic != Exiting || got.Exit == nil {
		t.Fatalf("got %v, want the news of one's exit", got)
	}
	if got := <-hints; got.ContainerID != "one" || got.Topic != "/tasks/exit" {
		t.Fatalf("got %v, want the exit of one as CRI shows it", got)
	}

	stop()
	serveEvents(t, socket, &eventServer{published: make(chan *types.Envelope, 10)})
	if got := <-hints; got.Topic != Resync {
		t.Fatalf("after the restart: %v, want a resync", got)
	}

	cancel()
	for range hints { // it is closed
	}
}

func TestEventsRefusesABadSocket(t *testing.T) {
	if _, err := Events(t.Context(), "tcp://127.0.0.1:1"); err == nil {
		t.Error("no error")
	}
}
