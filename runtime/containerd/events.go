package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// Hint says that something has changed in the runtime, to shorten a sleep: what it is now must be asked for. The CRI
// plugin learns of an exit from the same event, so for a few milliseconds it may still show the state from before.
type Hint struct {
	ContainerID string // container or sandbox; "" when the hint is not about one
	Topic       string // containerd's, such as /tasks/exit; Resync
}

// Resync is the topic of a hint that anything may have changed: the stream has just begun, or began again.
const Resync = "resync"

const (
	// resubscribeMin and resubscribeMax bound the pause before a lost stream is asked for again. containerd is back
	// about 150 ms after a restart.
	resubscribeMin = 50 * time.Millisecond
	resubscribeMax = time.Second
	// markTopic is an event of our own; see subscribe.
	markTopic = "/slipway/subscribed"
	// markEvery is how often it is sent until it arrives.
	markEvery = 50 * time.Millisecond
)

// Events follows containerd's event stream until ctx ends, which closes the channel. Every subscription begins with a
// Resync hint; after it no event is missed until the next Resync. A containerd that is down or restarts is waited for.
// The error is one of the socket's spelling. Hints are not dropped: a reader that does not read makes containerd queue.
func Events(ctx context.Context, socket string) (<-chan Hint, error) {
	conn, err := cri.Connect(socket)
	if err != nil {
		return nil, fmt.Errorf("following events: %w", err)
	}
	hints := make(chan Hint, 64)
	go func() {
		defer close(hints)
		defer conn.Close()
		follow(ctx, conn, hints)
	}()
	return hints, nil
}

// follow subscribes again and again. It returns when ctx ends.
func follow(ctx context.Context, conn *grpc.ClientConn, hints chan<- Hint) {
	pause := resubscribeMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if subscribe(ctx, conn, hints) {
			pause = resubscribeMin
		}
		timer.Reset(pause)
		pause = min(2*pause, resubscribeMax)
	}
}

// subscribe passes on hints until the stream ends, and reports whether it ever began. gRPC does not say when the
// server has begun to listen to its own events, so an event of ours is sent until it comes back: from then on the
// stream is complete.
func subscribe(ctx context.Context, conn *grpc.ClientConn, hints chan<- Hint) (began bool) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace))
	client := api.NewEventsClient(conn)
	stream, err := client.Subscribe(ctx, &api.SubscribeRequest{Filters: filters()})
	if err != nil {
		cancel()
		return false
	}
	marked, marking := make(chan struct{}), make(chan struct{})
	go func() { mark(ctx, client, marked); close(marking) }()
	defer func() { cancel(); <-marking }()
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return began
		}
		hint, ok := hintOf(envelope.GetTopic(), envelope.GetEvent().GetValue())
		if envelope.GetTopic() == markTopic {
			if began {
				continue // one more was on its way
			}
			began, hint, ok = true, Hint{Topic: Resync}, true
			close(marked)
		}
		if !ok {
			continue
		}
		select {
		case hints <- hint:
		case <-ctx.Done():
			return began
		}
	}
}

// mark sends our own event until it has come back.
func mark(ctx context.Context, client api.EventsClient, marked <-chan struct{}) {
	body, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		panic("containerd: an empty message cannot be packed: " + err.Error())
	}
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		// A failure is the stream's too, which ends with it.
		_, _ = client.Publish(ctx, &api.PublishRequest{Topic: markTopic, Event: body})
		select {
		case <-tick.C:
		case <-marked:
			return
		case <-ctx.Done():
			return
		}
	}
}

// filters ask for what can change a pod from outside: processes that begin and end, containers and images that go or
// come. Exec processes make two more events each, which hintOf leaves out; their own topics are not asked for.
func filters() []string {
	topics := []string{
		"/tasks/start", "/tasks/exit", "/tasks/oom", "/tasks/delete", "/containers/create", "/containers/delete",
		"/images/create", "/images/update", "/images/delete", "/sandboxes/start", "/sandboxes/exit", markTopic,
	}
	filters := make([]string, len(topics))
	for i, topic := range topics {
		filters[i] = fmt.Sprintf("namespace==%s,topic==%s", namespace, topic)
	}
	return filters
}

// hintOf returns the hint of an event, false when it is of no interest.
func hintOf(topic string, body []byte) (Hint, bool) {
	event := eventOf(topic)
	if event == nil {
		return Hint{Topic: topic}, true
	}
	if proto.Unmarshal(body, event) != nil {
		return Hint{Topic: Resync}, true // of a later format: something happened, that much is sure
	}
	switch e := event.(type) {
	case *events.TaskExit: // the id is the container's own, or that of a probe's command in it
		return Hint{e.GetContainerID(), topic}, e.GetID() == e.GetContainerID()
	case *events.TaskDelete:
		return Hint{e.GetContainerID(), topic}, e.GetID() == "" || e.GetID() == e.GetContainerID()
	case interface{ GetContainerID() string }:
		return Hint{e.GetContainerID(), topic}, true
	case interface{ GetSandboxID() string }:
		return Hint{e.GetSandboxID(), topic}, true
	case interface{ GetID() string }:
		return Hint{e.GetID(), topic}, true
	default:
		panic("containerd: no id in the event of " + topic)
	}
}

// eventOf returns an empty event of the topic's type, nil for topics that are about no container.
func eventOf(topic string) proto.Message {
	switch topic {
	case "/tasks/start":
		return &events.TaskStart{}
	case "/tasks/exit":
		return &events.TaskExit{}
	case "/tasks/delete":
		return &events.TaskDelete{}
	case "/tasks/oom":
		return &events.TaskOOM{}
	case "/containers/create":
		return &events.ContainerCreate{}
	case "/containers/delete":
		return &events.ContainerDelete{}
	case "/sandboxes/start":
		return &events.SandboxStart{}
	case "/sandboxes/exit":
		return &events.SandboxExit{}
	default:
		return nil
	}
}
