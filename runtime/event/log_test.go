package event

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clock goes on by a second whenever it is looked at.
func clock() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

// describe prints a log as the tests compare it: number, times and count, and what happened.
func describe(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "%d %s-%s %d× %s %s\n", e.Number, e.First.Format("05"), e.Last.Format("05"), e.Count, e.Reason, e.Message)
	}
	return b.String()
}

func TestARepetitionIsTheSameEntryAgain(t *testing.T) {
	l := NewLog(clock())
	for _, e := range []Event{
		{Pod: "kube-system/etcd-node", Reason: Pulling, Message: "pulling"},
		{Pod: "kube-system/etcd-node", Reason: BackOffRestart, Message: "waiting"},
		{Pod: "kube-system/etcd-node", Reason: Started, Message: "started"},
		{Pod: "kube-system/etcd-node", Reason: BackOffRestart, Message: "waiting", Number: 99, Count: 99, First: time.Unix(1, 0), Last: time.Unix(1, 0)},
		{Pod: "kube-system/etcd-node", Reason: BackOffRestart, Message: "waiting"},
	} {
		l.Record(e)
	}
	all, _ := l.Since(0)
	want := "1 01-01 1× Pulling pulling\n3 03-03 1× Started started\n5 02-05 3× BackOff waiting\n"
	if diff := cmp.Diff(want, describe(all)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatDiffersIsAnotherEntry(t *testing.T) {
	l := NewLog(clock())
	same := Event{Pod: "a/b", UID: "1", Container: "c", Type: Normal, Reason: Started, Message: "started"}
	events := []Event{same, same, same, same, same, same, same}
	events[1].Pod, events[2].UID, events[3].Container = "a/x", "2", "x"
	events[4].Type, events[5].Reason, events[6].Message = Warning, Killing, "x"
	for _, e := range events {
		l.Record(e)
	}
	all, _ := l.Since(0)
	for i, e := range all {
		if e.Count != 1 || i >= len(events) {
			t.Errorf("counted together: %+v", e)
		}
		e.Number, e.First, e.Last, e.Count = 0, time.Time{}, time.Time{}, 0
		if e != events[i] {
			t.Errorf("recorded %+v, want %+v", e, events[i])
		}
	}
	if len(all) != len(events) {
		t.Errorf("%d entries for %d events", len(all), len(events))
	}
}

func TestTheLatestEventsAreKept(t *testing.T) {
	l := NewLog(clock())
	for i := range keep + 500 {
		l.Record(Event{Message: fmt.Sprint(i)})
		if all, _ := l.Since(0); len(all) > keep {
			t.Fatalf("%d events after %d", len(all), i)
		}
	}
	l.Record(Event{Message: fmt.Sprint(500)}) // the oldest that is kept
	l.Record(Event{Message: fmt.Sprint(0)})   // forgotten: it is new
	all, _ := l.Since(0)
	first, again, last := all[0], all[keep-2], all[keep-1]
	if len(all) != keep || first.Message != "502" || again.Message != "500" || again.Count != 2 || last.Message != "0" || last.Count != 1 {
		t.Errorf("%d events, from %+v to %+v, %+v", len(all), first, again, last)
	}
	for i := 1; i < len(all); i++ {
		if all[i].Number <= all[i-1].Number {
			t.Fatalf("number %d follows %d", all[i].Number, all[i-1].Number)
		}
	}
}

func TestSinceReturnsWhatIsNew(t *testing.T) {
	l := NewLog(clock())
	for _, m := range []string{"a", "b", "c", "a"} {
		l.Record(Event{Message: m})
	}
	for number, want := range map[uint64]string{0: "b c a", 2: "c a", 3: "a", 4: "", 99: ""} {
		events, _ := l.Since(number)
		var got []string
		for _, e := range events {
			got = append(got, e.Message)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("since %d: %q, want %q", number, got, want)
		}
	}
	mine, _ := l.Since(0)
	mine[0].Message = "changed"
	if again, _ := l.Since(0); again[0].Message != "b" {
		t.Error("who asks can change the log")
	}
}

func TestEventsHandedOutStayAsTheyWere(t *testing.T) {
	l := NewLog(clock())
	for i := range keep {
		l.Record(Event{Message: fmt.Sprint(i)})
	}
	before, _ := l.Since(0)
	for i := range keep {
		l.Record(Event{Message: fmt.Sprint("later ", i)})
	}
	for i, e := range before {
		if e.Message != fmt.Sprint(i) || e.Count != 1 {
			t.Fatalf("event %d has become %+v", i, e)
		}
	}
}

func TestTheChannelIsClosedAtTheNextEvent(t *testing.T) {
	l := NewLog(clock())
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	for _, m := range []string{"first", "second", "second"} { // a repetition is an event, too
		_, a := l.Since(0)
		_, b := l.Since(0)
		if closed(a) || closed(b) {
			t.Fatalf("closed before %q", m)
		}
		l.Record(Event{Message: m})
		if !closed(a) || !closed(b) {
			t.Errorf("not closed by %q", m)
		}
	}
}

func TestNoLogForgetsEverything(t *testing.T) {
	var l *Log
	l.Record(Event{Message: "x"})
	if events, changed := l.Since(0); events != nil || changed != nil {
		t.Errorf("%v, %v", events, changed)
	}
}

// TestAFollowerMissesNothing records from several goroutines while another one follows as the mirror does.
func TestAFollowerMissesNothing(t *testing.T) {
	const writers, each = 4, 200 // fewer in all than are kept
	l := NewLog(time.Now)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Record(Event{Pod: fmt.Sprint(w), Message: fmt.Sprint(i)})
			}
		})
	}
	seen := map[string]int{}
	var number uint64
	for len(seen) < writers*each {
		events, changed := l.Since(number)
		for _, e := range events {
			seen[e.Pod+" "+e.Message]++
			number = e.Number
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatal("the test was ended")
		}
	}
	wg.Wait()
	for what, times := range seen {
		if times != 1 {
			t.Errorf("%s was seen %d times", what, times)
		}
	}
}
