//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
	"github.com/slipway-k8s/slipway/runtime/cri"
)

// The events that tell when something has happened, whoever made it happen.
const (
	taskStart       = "/tasks/start"
	taskExit        = "/tasks/exit"
	containerCreate = "/containers/create" // of containers and, as containerd sees them, sandboxes
	containerDelete = "/containers/delete" // of containers and, as containerd sees them, sandboxes
)

// runtimeEvent is an event of containerd's, with the time that containerd gives it: the same clock as time.Now.
type runtimeEvent struct {
	at        time.Time
	topic, id string
	image     string // of containerCreate
}

// recorder keeps containerd's events. It is the one judge of all ways that are compared.
type recorder struct {
	node *podtest.Node

	mu     sync.Mutex
	events []runtimeEvent
	failed error
	more   chan struct{} // closed and replaced with every event
}

// record follows the events of the node's containerd until ctx ends. It returns once none can be missed.
func record(ctx context.Context, n *podtest.Node) (*recorder, error) {
	conn, err := cri.Connect(n.Socket)
	if err != nil {
		return nil, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", "k8s.io")
	client := api.NewEventsClient(conn)
	stream, err := client.Subscribe(ctx, &api.SubscribeRequest{})
	if err != nil {
		return nil, fmt.Errorf("following containerd's events: %w", err)
	}
	r := &recorder{node: n, more: make(chan struct{})}
	go func() { // ends with ctx
		defer conn.Close()
		for {
			envelope, err := stream.Recv()
			if err != nil {
				r.note(runtimeEvent{}, fmt.Errorf("following containerd's events: %w", err))
				return
			}
			e := runtimeEvent{at: envelope.GetTimestamp().AsTime(), topic: envelope.GetTopic()}
			e.id, e.image = eventAbout(e.topic, envelope.GetEvent().GetValue())
			r.note(e, nil)
		}
	}()
	// The stream has begun once an event of ours comes back.
	const mark = "/bench/mark"
	body, err := anypb.New(&emptypb.Empty{}) // containerd 1.6 ends in a panic for an event without a body
	if err != nil {
		return nil, err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := client.Publish(ctx, &api.PublishRequest{Topic: mark, Event: body}); err != nil {
			return nil, fmt.Errorf("following containerd's events: %w", err)
		}
		if slices.ContainsFunc(r.since(time.Time{}), func(e runtimeEvent) bool { return e.topic == mark }) {
			return r, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// eventAbout is the container or sandbox that an event is about, "" for those of no interest, and the image it was made of.
func eventAbout(topic string, body []byte) (id, image string) {
	switch topic {
	case taskStart:
		var e events.TaskStart
		if proto.Unmarshal(body, &e) == nil {
			return e.GetContainerID(), ""
		}
	case taskExit:
		var e events.TaskExit
		if proto.Unmarshal(body, &e) == nil && e.GetID() == e.GetContainerID() {
			return e.GetContainerID(), ""
		}
	case containerCreate:
		var e events.ContainerCreate
		if proto.Unmarshal(body, &e) == nil {
			return e.GetID(), e.GetImage()
		}
	case containerDelete:
		var e events.ContainerDelete
		if proto.Unmarshal(body, &e) == nil {
			return e.GetID(), ""
		}
	}
	return "", ""
}

func (r *recorder) note(e runtimeEvent, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	if err != nil {
		r.failed = err
	}
	close(r.more)
	r.more = make(chan struct{})
}

func (r *recorder) since(from time.Time) []runtimeEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e runtimeEvent) bool { return e.at.Before(from) })
}

// await waits for an answer from the events since a time. Done is asked again after each event.
func (r *recorder) await(ctx context.Context, what string, from time.Time, done func([]runtimeEvent) (time.Time, bool)) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, podPatience)
	defer cancel()
	for {
		r.mu.Lock()
		more, failed := r.more, r.failed
		r.mu.Unlock()
		if at, ok := done(r.since(from)); ok {
			return at, nil
		}
		if failed != nil {
			return time.Time{}, failed
		}
		select {
		case <-more:
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("waiting for %s: %w%s", what, ctx.Err(), r.node.Describe(""))
		}
	}
}

// running waits until a container of each pod has started, and returns when the last of them did, and their ids by pod.
func (r *recorder) running(ctx context.Context, from time.Time, pods ...string) (time.Time, map[string]string, error) {
	ids := map[string]string{}
	at, err := r.await(ctx, strings.Join(pods, ", ")+" to run", from, func(all []runtimeEvent) (last time.Time, ok bool) {
		// Sandboxes start, too; they are told apart by their image, without asking the runtime, which has other things to do.
		created, started := map[string]bool{}, map[string]time.Time{}
		for _, e := range all {
			switch {
			case e.topic == containerCreate && e.image != podtest.PauseImage:
				created[e.id] = true
			case e.topic == taskStart && created[e.id]:
				started[e.id] = e.at
			}
		}
		if len(started) < len(pods) {
			return last, false
		}
		for _, c := range r.node.Containers("") {
			if at, found := started[c.ID]; found {
				ids[c.Pod] = c.ID
				if at.After(last) {
					last = at
				}
			}
		}
		for _, pod := range pods {
			if ids[r.node.PodName(pod)] == "" {
				return last, false
			}
		}
		return last, true
	})
	return at, ids, err
}

// all waits until there is an event of the topic about every id, and returns when the last of them was.
func (r *recorder) all(ctx context.Context, from time.Time, topic string, ids ...string) (time.Time, error) {
	return r.await(ctx, fmt.Sprintf("%s of %d containers", topic, len(ids)), from, func(all []runtimeEvent) (last time.Time, ok bool) {
		missing := len(ids)
		for _, id := range ids {
			if i := slices.IndexFunc(all, func(e runtimeEvent) bool { return e.topic == topic && e.id == id }); i >= 0 {
				missing--
				if all[i].at.After(last) {
					last = all[i].at
				}
			}
		}
		return last, missing == 0
	})
}
