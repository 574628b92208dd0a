package mirror

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// withEvents gives a mirror a log of events.
func withEvents(log *event.Log) func(*Mirror) { return func(m *Mirror) { m.c.Events = log.Since } }

// posted returns the events in the API with this message. The lock is held.
func (f *fakeAPI) posted(message string) []*corev1.Event {
	var all []*corev1.Event
	for _, e := range f.events {
		if e.Message == message {
			all = append(all, e)
		}
	}
	return all
}

func TestEventIsAsAKubeletWritesIt(t *testing.T) {
	pod := staticPod("etcd", "h1")
	pod.Spec.InitContainers = []corev1.Container{{Name: "prepare"}}
	b := &board{changed: make(chan struct{})}
	b.set(pod)
	p := poster{c: Config{NodeName: "n1", Pods: b.pods}, node: nodeUID}
	at := time.Unix(1_700_000_000, 5).UTC()
	for _, tc := range []struct {
		name string
		e    event.Event
		want string
	}{
		{"of a container", event.Event{Pod: etcd, UID: "h1", Container: "etcd", Reason: "Started"},
			`"namespace":"kube-system"},"involvedObject":{"kind":"Pod","namespace":"kube-system","name":"etcd-n1","uid":"h1","apiVersion":"v1","fieldPath":"spec.containers{etcd}"}`},
		{"of an init container", event.Event{Pod: etcd, UID: "h1", Container: "prepare", Reason: "Started"},
			`"namespace":"kube-system"},"involvedObject":{"kind":"Pod","namespace":"kube-system","name":"etcd-n1","uid":"h1","apiVersion":"v1","fieldPath":"spec.initContainers{prepare}"}`},
		{"of a pod whose version is not told", event.Event{Pod: etcd, Reason: "Started"},
			`"namespace":"kube-system"},"involvedObject":{"kind":"Pod","namespace":"kube-system","name":"etcd-n1","uid":"h1","apiVersion":"v1"}`},
		{"of the node", event.Event{Reason: "Started"},
			`"namespace":"default"},"involvedObject":{"kind":"Node","name":"n1","uid":"node-1-uid","apiVersion":"v1"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.e.Type, tc.e.Message, tc.e.Count, tc.e.First, tc.e.Last = event.Normal, "it runs", 3, at, at.Add(time.Minute)
			expect(t, string(encode(p.object("N", tc.e))), `{"kind":"Event","apiVersion":"v1","metadata":{"name":"N",`+tc.want+
				`,"reason":"Started","message":"it runs","source":{"component":"slipway","host":"n1"},`+
				`"firstTimestamp":"2023-11-14T22:13:20Z","lastTimestamp":"2023-11-14T22:14:20Z","count":3,"type":"Normal",`+
				`"eventTime":null,"reportingComponent":"slipway","reportingInstance":"n1"}`)
		})
	}
	long := p.object("N", event.Event{Message: strings.Repeat("ü", 5000)}).Message
	if len(long) > eventMessage || !strings.HasSuffix(long, "ü…") {
		t.Errorf("a long message has %d bytes and ends with %q", len(long), long[len(long)-8:])
	}
}

func TestNameOfAnEventIsThatOfItsRepetitions(t *testing.T) {
	first := event.Event{Pod: etcd, UID: "h1", Reason: "BackOff", Message: "m", First: time.Unix(1, 0), Last: time.Unix(1, 0), Count: 1}
	again, other := first, first
	again.Last, again.Count, again.Number = time.Unix(9, 0), 7, 12
	other.First = time.Unix(2, 0) // forgotten by the log, and new again
	if eventName(first) != eventName(again) || eventName(first) == eventName(other) || !strings.HasPrefix(eventName(first), "etcd-n1.") {
		t.Error(eventName(first), eventName(again), eventName(other))
	}
	if n := len(eventName(event.Event{Pod: "a/" + strings.Repeat("x", 253)})); n != 253 {
		t.Errorf("a name of %d characters", n)
	}
}

func TestEventsArePostedAndCounted(t *testing.T) {
	log := event.NewLog(time.Now)
	f := newFakeAPI(t)
	started := event.Event{Pod: etcd, UID: "h1", Container: "etcd", Type: event.Normal, Reason: event.Started, Message: "Started container etcd"}
	log.Record(started) // before there was an API server
	r := run(t, f, withEvents(log))
	r.await("the event", func() bool { return len(r.posted(started.Message)) == 1 })
	log.Record(started)
	r.await("its repetition", func() bool {
		all := r.posted(started.Message)
		return len(all) == 1 && all[0].Count == 2 && !all[0].LastTimestamp.IsZero()
	})
	r.mu.Lock()
	clear(r.events) // as the API server does after an hour
	r.mu.Unlock()
	log.Record(started)
	r.await("the event anew", func() bool { all := r.posted(started.Message); return len(all) == 1 && all[0].Count == 3 })
}

func TestEventsOfAnOutageArePostedAfterIt(t *testing.T) {
	log := event.NewLog(time.Now)
	r := run(t, newFakeAPI(t), withEvents(log))
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "before"})
	r.await("an event", func() bool { return len(r.posted("before")) == 1 })
	r.stop()
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "meanwhile"})
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "before"})
	r.start()
	r.await("what happened meanwhile", func() bool { return len(r.posted("meanwhile")) == 1 && r.posted("before")[0].Count == 2 })
}

func TestEventWhoseAnswerWasLostIsFoundAgain(t *testing.T) {
	log := event.NewLog(time.Now)
	f := newFakeAPI(t)
	lose := true
	f.refuses = func(e *corev1.Event) error {
		if lose {
			lose = false
			f.events[e.Namespace+"/"+e.Name] = e // taken, and then the answer is an error
			return fail(500, "InternalError", "etcdserver: request timed out")
		}
		return nil
	}
	r := run(t, f, withEvents(log))
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "m"})
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "end"})
	r.await("both", func() bool { return len(r.posted("m")) == 1 && len(r.posted("end")) == 1 && !lose })
	r.await("the first to be found", func() bool { return r.all["PATCH /api/v1/namespaces/kube-system/events/"+r.posted("m")[0].Name] > 0 })
}

func TestEventWaitsForItsNamespaceAndHoldsNobodyUp(t *testing.T) {
	log := event.NewLog(time.Now)
	f := newFakeAPI(t)
	f.absent["later"] = true
	r := run(t, f, func(m *Mirror) {
		withEvents(log)(m)
		m.pace.eager, m.pace.polite = 100*time.Millisecond, 100*time.Millisecond
	})
	log.Record(event.Event{Pod: "later/x-n1", UID: "u", Type: event.Normal, Reason: "A", Message: "waits"})
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "does not"})
	r.await("the other", func() bool { return len(r.posted("does not")) == 1 })
	for i := range objectBurst - 1 { // each of which is a reason to look what else there is to do
		said := fmt.Sprint("other ", i)
		log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: said})
		r.await("another", func() bool { return len(r.posted(said)) == 1 })
	}
	r.mu.Lock()
	if n := r.all["POST /api/v1/namespaces/later/events"]; n > 5 {
		t.Errorf("it was tried %d times meanwhile", n)
	}
	delete(r.absent, "later")
	r.mu.Unlock()
	r.await("it", func() bool { return len(r.posted("waits")) == 1 })
}

func TestEventThatIsNeverTakenIsGivenUp(t *testing.T) {
	log := event.NewLog(time.Now)
	f := newFakeAPI(t)
	f.refuses = func(*corev1.Event) error { return fail(403, "Forbidden", "quota") }
	r := run(t, f, func(m *Mirror) { withEvents(log)(m); m.pace.polite = 5 * time.Millisecond })
	log.Record(event.Event{Pod: etcd, UID: "h1", Type: event.Normal, Reason: "A", Message: "m"})
	const path = "POST /api/v1/namespaces/kube-system/events"
	r.await("the last try", func() bool { return r.all[path] == eventTries })
	first := r.lease
	r.await("time to pass", func() bool { return r.lease != nil && r.lease != first })
	if n := r.takeAll()[path]; n != eventTries {
		t.Errorf("%d tries", n)
	}
}

func TestEventsDoNotHoldUpMirrors(t *testing.T) {
	log := event.NewLog(time.Now)
	f := newFakeAPI(t)
	f.busy = func(r *http.Request) error {
		if strings.Contains(r.URL.Path, "/events") {
			return &statusError{Code: 429, Reason: "TooManyRequests", Message: "too many requests", RetryAfter: time.Second}
		}
		return nil
	}
	for i := range 200 {
		log.Record(event.Event{Pod: etcd, UID: fmt.Sprint(i), Type: event.Warning, Reason: "A", Message: "m"})
	}
	r := run(t, f, withEvents(log))
	r.board.set(staticPod("etcd", "h1"))
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
	began := time.Now()
	for i := 0; time.Since(began) < 200*time.Millisecond; i++ {
		log.Record(event.Event{Pod: etcd, UID: fmt.Sprint("new ", i%100), Type: event.Warning, Reason: "A", Message: "m"})
		wait(t.Context(), time.Millisecond)
	}
	n := 0
	for request, times := range r.takeAll() {
		if strings.Contains(request, "/events") {
			n += times
		}
	}
	if n > 10 { // one per pause, which this test's pace bounds to 50 ms
		t.Errorf("%d events were sent to a server that asked to be left alone", n)
	}
}

func TestJournalBoundsWhatIsSent(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	said := func(n int, at time.Time, pod func(int) string) []event.Event {
		var all []event.Event
		for i := range n {
			all = append(all, event.Event{Number: uint64(i + 1), Pod: pod(i), Type: event.Warning, Message: fmt.Sprint(i), First: at, Last: at, Count: 1})
		}
		return all
	}
	one := func(int) string { return "a/one" }
	each := func(i int) string { return fmt.Sprintf("a/p%d", i) }

	j := newJournal()
	j.take(said(300, now, one), now)
	if len(j.queue) != objectBurst || j.read != 300 {
		t.Errorf("of one object: %d queued, read up to %d", len(j.queue), j.read)
	}
	j.take(said(300, now, one), now.Add(2*objectEvery)) // named alike, and the limit is no longer what it was
	if len(j.queue) != objectBurst {
		t.Errorf("repetitions take %d places", len(j.queue)-objectBurst)
	}

	j = newJournal()
	j.take(said(300, now.Add(-eventAge-time.Second), each), now)
	if len(j.queue) != 0 || j.read != 300 {
		t.Errorf("%d old ones queued", len(j.queue))
	}
	j.take(said(300, now.Add(-eventAge-time.Second), one), now)
	j.take(said(objectBurst, now, one), now)
	if len(j.queue) != objectBurst {
		t.Errorf("%d queued: old ones count", len(j.queue))
	}
	j.take(said(5_000, now, each), now)
	if len(j.queue) != journalSize || len(j.limits) > journalSize || len(j.posted) > journalSize {
		t.Errorf("%d queued, %d limits", len(j.queue), len(j.limits))
	}
	if j.queue[j.order()[0]].Message != "4000" {
		t.Errorf("the oldest kept is %s", j.queue[j.order()[0]].Message)
	}
	j.take(nil, now.Add(eventAge+time.Second))
	if len(j.queue) != 0 {
		t.Errorf("%d outlived their hour", len(j.queue))
	}
}

func TestBucket(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var b bucket
	taken := func(at time.Time) (n int) {
		for b.wait(at, 100, 50) == 0 {
			b.tokens--
			n++
		}
		return n
	}
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{0, 100}, {0, 0}, {time.Second, 50}, {-time.Hour, 0}, {time.Hour, 100}} {
		if now = now.Add(tc.after); taken(now) != tc.want {
			t.Errorf("after %s: not %d", tc.after, tc.want)
		}
	}
	if got := b.wait(now, 100, 50); got != 20*time.Millisecond {
		t.Errorf("the next one in %s", got)
	}
}
