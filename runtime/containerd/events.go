package containerd

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// Hint says that something has changed in the runtime, to shorten a sleep: what it is now must be asked for. When
// /tasks/exit is told, CRI calls show it; Exiting comes before.
type Hint struct {
	ContainerID string // container or sandbox; "" when the hint is not about one
	Topic       string // containerd's, such as /tasks/exit; Resync; Exiting
	Exit        *Exit  // with Exiting: how it ended
}

// Exit is the end of a container's process.
type Exit struct {
	Code uint32
	At   time.Time
}

// Resync is the topic of a hint that anything may have changed: the stream has just begun, or began again.
const Resync = "resync"

// Exiting is the topic of the first hint of an exit, with its Exit: a process has ended and CRI does not show it yet. The
// hint of /tasks/exit follows once it does.
const Exiting = "exiting"

const (
	// resubscribeMin and resubscribeMax bound the pause before a lost stream is asked for again. containerd is back
	// about 150 ms after a restart.
	resubscribeMin = 50 * time.Millisecond
	resubscribeMax = time.Second
	// markTopic is an event of our own, sent every markEvery until it arrives; see subscribe.
	markTopic = "/slipway/subscribed"
	markEvery = 50 * time.Millisecond
	// settlePoll and settleTimeout are for the time between an exit and CRI's word on it: 30 to 45 ms, measured with
	// containerd 1.6, 1.7 and 2.4, several times that under load.
	settlePoll    = 5 * time.Millisecond
	settleTimeout = 2 * time.Second
)

// Events follows containerd's event stream until ctx ends, which closes the channel. Every subscription begins with a
// Resync hint; after it no event is missed until the next Resync. A containerd that is down or restarts is waited for.
// The error is one of the socket's spelling. Hints are not dropped: a reader that does not read makes containerd queue.
func Events(ctx context.Context, socket string) (<-chan Hint, error) {
	conn, err := cri.Connect(socket)
	if err != nil {
		return nil, fmt.Errorf("following events: %w", err)
	}
	f := &follower{events: api.NewEventsClient(conn), runtime: cri.New(conn), hints: make(chan Hint, 64)}
	go func() {
		defer close(f.hints)
		defer conn.Close()
		defer f.settling.Wait()
		f.follow(ctx)
	}()
	return f.hints, nil
}

type follower struct {
	events   api.EventsClient
	runtime  *cri.Client
	hints    chan Hint
	settling sync.WaitGroup // exits that CRI does not show yet
}

// follow subscribes again and again. It returns when ctx ends.
func (f *follower) follow(ctx context.Context) {
	pause := resubscribeMin
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if f.subscribe(ctx) {
			pause = resubscribeMin
		}
		timer.Reset(pause)
		pause = min(2*pause, resubscribeMax)
	}
}

// subscribe passes on hints until the stream ends, and reports whether it ever began. gRPC does not say when the
// server has begun to listen to its own events, so an event of ours is sent until it comes back: from then on the
// stream is complete.
func (f *follower) subscribe(ctx context.Context) (began bool) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace))
	defer cancel()
	stream, err := f.events.Subscribe(ctx, &api.SubscribeRequest{Filters: filters()})
	if err != nil {
		return false
	}
	marked, marking := make(chan struct{}), make(chan struct{})
	go func() { defer close(marking); f.mark(ctx, marked) }()
	defer func() { cancel(); <-marking }()
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return began
		}
		hint, ok := hintOf(envelope.GetTopic(), envelope.GetEvent().GetValue())
		switch {
		case envelope.GetTopic() == markTopic && !began:
			began = true
			close(marked)
			f.tell(ctx, Hint{Topic: Resync})
		case !ok || envelope.GetTopic() == markTopic: // one more mark was on its way
		case hint.Topic == "/tasks/exit":
			f.tell(ctx, Hint{ContainerID: hint.ContainerID, Topic: Exiting, Exit: hint.Exit})
			f.settling.Go(func() {
				f.settle(ctx, hint.ContainerID)
				f.tell(ctx, Hint{ContainerID: hint.ContainerID, Topic: hint.Topic})
			})
		default:
			f.tell(ctx, hint)
		}
	}
}

// tell passes a hint on, unless the subscription has ended: what comes then is a resync.
func (f *follower) tell(ctx context.Context, hint Hint) {
	select {
	case f.hints <- hint:
	case <-ctx.Done():
	}
}

// settle returns once CRI shows that the container or sandbox has ended. The CRI plugin reads the same event and then
// cleans up first, so a hint passed on at once would send its reader to look too early, and to sleep again.
func (f *follower) settle(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	for f.alive(ctx, id) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// alive reports whether CRI shows id as a running container or a ready sandbox; false also when it cannot be asked.
func (f *follower) alive(ctx context.Context, id string) bool {
	containers, err := f.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{Id: id})
	if err != nil {
		return false
	}
	for _, c := range containers {
		return c.GetState() == runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	sandboxes, err := f.runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{Id: id})
	if err != nil {
		return false
	}
	for _, s := range sandboxes {
		return s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return false
}

// mark sends our own event until it has come back.
func (f *follower) mark(ctx context.Context, marked <-chan struct{}) {
	body, err := anypb.New(&emptypb.Empty{})
	if err != nil {
		panic("containerd: an empty message cannot be packed: " + err.Error())
	}
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		// A failure is the stream's too, which ends with it.
		_, _ = f.events.Publish(ctx, &api.PublishRequest{Topic: markTopic, Event: body})
		select {
		case <-tick.C:
		case <-marked:
			return
		case <-ctx.Done():
			return
		}
	}
}

// filters ask for what can change a pod from outside: processes that begin and end, containers that go, images that
// come or go. A command that is run in a container makes an exit event too, which hintOf leaves out.
func filters() []string {
	topics := []string{
		"/tasks/start", "/tasks/exit", "/tasks/oom", "/containers/delete",
		"/images/create", "/images/update", "/images/delete", "/sandboxes/start", "/sandboxes/exit", markTopic,
	}
	filters := make([]string, len(topics))
	for i, topic := range topics {
		filters[i] = fmt.Sprintf("namespace==%q,topic==%q", namespace, topic)
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
		exit := &Exit{Code: e.GetExitStatus(), At: e.GetExitedAt().AsTime()}
		return Hint{ContainerID: e.GetContainerID(), Topic: topic, Exit: exit}, e.GetID() == e.GetContainerID()
	case interface{ GetContainerID() string }:
		return Hint{ContainerID: e.GetContainerID(), Topic: topic}, true
	case interface{ GetSandboxID() string }:
		return Hint{ContainerID: e.GetSandboxID(), Topic: topic}, true
	case interface{ GetID() string }:
		return Hint{ContainerID: e.GetID(), Topic: topic}, true
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
	case "/tasks/oom":
		return &events.TaskOOM{}
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
