package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const (
	eventSource = "slipway"
	// eventAge is how old what is still told may be: the API server itself forgets events after its --event-ttl, 1 h.
	eventAge = time.Hour
	// eventTries is client-go's maxTriesPerEvent, v0.36.3 tools/record/event.go.
	eventTries = 12
	// eventMessage is the longest message in characters, as events.k8s.io has it. Kubernetes v1.36.3
	// pkg/apis/core/validation/events.go, NoteLengthLimit.
	eventMessage = 1024
	// An object's events of one type: objectBurst at once, then one every objectEvery. client-go v0.36.3
	// tools/record/events_cache.go, defaultSpamBurst and defaultSpamQPS.
	objectBurst = 25
	objectEvery = 5 * time.Minute
	// journalSize is how many events and objects are remembered, about as many as the log that they come from.
	journalSize = 1000
)

// journal is what is remembered of the events that were, or are to be, posted. It outlives connections.
type journal struct {
	read   uint64             // the log was read up to this Number
	queue  map[string]*letter // by name in the API; a repetition takes the place of what was not posted yet
	posted map[string]bool    // names that the API server has, or had
	until  time.Time          // before which nothing is sent: the server has asked for it
	limit  bucket
	limits map[string]*bucket // by object and type
}

// letter is an event on its way.
type letter struct {
	event.Event
	tries int
	until time.Time // of the next try
}

func newJournal() *journal {
	return &journal{queue: map[string]*letter{}, posted: map[string]bool{}, limits: map[string]*bucket{}}
}

// take queues what is new. What has happened too long ago, or too often to the same object, is dropped: the next
// repetition tells the whole count.
func (j *journal) take(events []event.Event, now time.Time) {
	for _, e := range events {
		j.read = max(j.read, e.Number)
		if now.Sub(e.Last) > eventAge {
			continue
		}
		key := e.Pod + " " + e.UID + " " + e.Type
		limit := j.limits[key]
		if limit == nil {
			limit = &bucket{}
			j.limits[key] = limit
		}
		if limit.wait(now, objectBurst, 1/objectEvery.Seconds()) > 0 {
			continue
		}
		limit.tokens--
		name := eventName(e)
		if old := j.queue[name]; old != nil {
			old.Event = e
			continue
		}
		j.queue[name] = &letter{Event: e}
	}
	j.trim(now)
}

// trim keeps the journal small: at most journalSize of everything.
func (j *journal) trim(now time.Time) {
	maps.DeleteFunc(j.queue, func(_ string, l *letter) bool { return now.Sub(l.Last) > eventAge })
	for _, name := range j.order()[:max(0, len(j.queue)-journalSize)] {
		delete(j.queue, name)
	}
	if len(j.posted) > journalSize {
		clear(j.posted) // the next repetition of one asks the API server
	}
	if len(j.limits) > journalSize {
		clear(j.limits)
	}
}

// order returns the names of the queue, oldest first.
func (j *journal) order() []string {
	return slices.SortedFunc(maps.Keys(j.queue), func(a, b string) int {
		if j.queue[a].Number < j.queue[b].Number {
			return -1
		}
		return 1
	})
}

// bucket limits a rate: a full one holds burst tokens, and gains some every second. The zero value is full.
type bucket struct {
	tokens float64
	at     time.Time
}

// wait fills the bucket and returns in how long there is a token, 0 for now. The caller takes it.
func (b *bucket) wait(now time.Time, burst int, perSecond float64) time.Duration {
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else if gone := now.Sub(b.at); gone > 0 {
		b.tokens = min(float64(burst), b.tokens+gone.Seconds()*perSecond)
	}
	b.at = now
	if b.tokens >= 1 || perSecond <= 0 {
		return 0
	}
	return time.Duration((1 - b.tokens) / perSecond * float64(time.Second))
}

// eventName is the same for every repetition of an event, so that one that was posted over a connection that broke is
// found again.
func eventName(e event.Event) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%s\x00%s\x00%d", e.Pod, e.UID, e.Container, e.Type, e.Reason, e.Message, e.First.UnixNano())
	_, name, _ := strings.Cut(e.Pod, "/")
	if name == "" {
		name = "node"
	}
	return fmt.Sprintf("%s.%016x", name[:min(len(name), 253-17)], h.Sum64()) // of 253 characters that a name may have
}

// poster tells the API server what has happened. One goroutine owns it, in run.
type poster struct {
	c    Config
	pace pace
	api  *client
	node types.UID
	j    *journal
}

// run posts until ctx ends or the API server is away.
func (p *poster) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		events, changed := p.c.Events(p.j.read)
		p.j.take(events, p.c.Now())
		pause, err := p.post(ctx)
		if err != nil {
			return err
		}
		timer.Stop()
		if pause >= 0 {
			timer.Reset(pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
		}
	}
}

// post sends what is due, and returns in how long more will be, less than zero for only after an event.
func (p *poster) post(ctx context.Context) (time.Duration, error) {
	pause := time.Duration(-1)
	if left := p.j.until.Sub(p.c.Now()); left > 0 {
		return left, nil
	}
	for _, name := range p.j.order() {
		l, now := p.j.queue[name], p.c.Now()
		if left := l.until.Sub(now); left > 0 {
			if pause < 0 || left < pause {
				pause = left
			}
			continue
		}
		if left := p.j.limit.wait(now, p.c.Rates.Burst, float64(p.c.Rates.QPS)); left > 0 {
			return left, nil
		}
		p.j.limit.tokens--
		err := p.send(ctx, name, l.Event)
		switch {
		case err == nil:
			delete(p.j.queue, name)
			p.j.posted[name] = true
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case away(err):
			return 0, err
		default:
			left := p.failed(name, l, err)
			if isCode(err, http.StatusTooManyRequests, http.StatusServiceUnavailable) || errors.Is(err, context.DeadlineExceeded) {
				p.j.until = now.Add(left) // it would be the same with the next
				return left, nil
			}
			if left > 0 && (pause < 0 || left < pause) {
				pause = left
			}
		}
	}
	return pause, nil
}

// failed puts an event back or gives it up, and returns in how long to go on. A namespace may come: at the first start of
// a cluster the API server answers before its own namespaces are there.
func (p *poster) failed(name string, l *letter, err error) time.Duration {
	busy := isCode(err, http.StatusTooManyRequests, http.StatusServiceUnavailable)
	if l.tries++; !busy && l.tries >= eventTries || isCode(err, http.StatusBadRequest, http.StatusUnprocessableEntity) {
		p.c.Log.Debug("event is not taken by the API server", "event", name, "reason", err.Error())
		delete(p.j.queue, name)
		return 0
	}
	pause := p.pace.eager
	for range l.tries - 1 {
		pause = min(2*pause, p.pace.polite)
	}
	pause = max(pause, min(retryAfter(err), p.pace.polite))
	l.until = p.c.Now().Add(pause)
	return pause
}

// send makes the Event, or brings the count of the one that is there up to date.
func (p *poster) send(ctx context.Context, name string, e event.Event) error {
	object := p.object(name, e)
	path := "/api/v1/namespaces/" + object.Namespace + "/events"
	if p.j.posted[name] {
		if err := p.repeat(ctx, path+"/"+name, e); !isCode(err, http.StatusNotFound) {
			return err
		}
	}
	err := p.api.post(ctx, path, object, nil)
	if isCode(err, http.StatusConflict) {
		err = p.repeat(ctx, path+"/"+name, e)
	}
	if err != nil {
		return fmt.Errorf("posting an event: %w", err)
	}
	return nil
}

func (p *poster) repeat(ctx context.Context, path string, e event.Event) error {
	return p.api.patch(ctx, path, encode(map[string]any{"count": e.Count, "lastTimestamp": metav1.NewTime(e.Last)}), nil)
}

// object returns the Event as a kubelet would write it: about the mirror by its name, but with the uid of the static pod,
// which is where `kubectl describe pod` looks. Kubernetes v1.36.3 kubectl/pkg/describe/describe.go:763.
func (p *poster) object(name string, e event.Event) *corev1.Event {
	about := corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: p.c.NodeName, UID: p.node}
	namespace := metav1.NamespaceDefault
	if e.Pod != "" {
		var pod string
		namespace, pod, _ = strings.Cut(e.Pod, "/")
		about = corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: namespace, Name: pod, UID: types.UID(e.UID)}
		p.locate(&about, e)
	}
	message := e.Message
	if len(message) > eventMessage {
		message = strings.ToValidUTF8(message[:eventMessage-len("…")], "") + "…"
	}
	return &corev1.Event{
		TypeMeta:       metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: name},
		InvolvedObject: about, Reason: e.Reason, Message: message, Type: e.Type, Count: int32(e.Count),
		FirstTimestamp: metav1.NewTime(e.First), LastTimestamp: metav1.NewTime(e.Last),
		Source: corev1.EventSource{Component: eventSource, Host: p.c.NodeName}, ReportingController: eventSource, ReportingInstance: p.c.NodeName,
	}
}

// locate adds what is known of the pod: which container it is about, and which version where the event does not say.
func (p *poster) locate(about *corev1.ObjectReference, e event.Event) {
	list, _ := p.c.Pods()
	i := -1
	if list != nil {
		i = slices.IndexFunc(list.Items, func(pod corev1.Pod) bool { return pod.Namespace == about.Namespace && pod.Name == about.Name })
	}
	kind := "containers"
	if i >= 0 {
		pod := &list.Items[i]
		if about.UID == "" {
			about.UID = types.UID(pod.Annotations[manifest.AnnotationConfigHash])
		}
		if slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == e.Container }) {
			kind = "initContainers"
		}
	}
	if e.Container != "" {
		about.FieldPath = "spec." + kind + "{" + e.Container + "}"
	}
}
