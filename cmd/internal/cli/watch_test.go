package cli

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// watching is a command that goes on until it is stopped.
type watching struct {
	t    *testing.T
	stop context.CancelFunc
	done chan int

	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (w *watching) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	select {
	case w.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (n *node) watch(args string) *watching {
	ctx, cancel := context.WithCancel(n.t.Context())
	w := &watching{t: n.t, stop: cancel, done: make(chan int, 1), news: make(chan struct{}, 1)}
	std := Streams{In: strings.NewReader(""), Out: w, Err: w}
	g := *n.g
	go func() { w.done <- run(ctx, newRoot(std, &g), strings.Fields(args), std) }()
	n.t.Cleanup(cancel)
	return w
}

// until waits for a text.
func (w *watching) until(want string) {
	w.t.Helper()
	for {
		w.mu.Lock()
		got := w.text.String()
		w.mu.Unlock()
		if strings.Contains(got, want) {
			return
		}
		select {
		case <-w.news:
		case code := <-w.done:
			w.t.Fatalf("it ended with exit code %d before %q:\n%s", code, want, got)
		case <-time.After(10 * time.Second):
			w.t.Fatalf("%q never came:\n%s", want, got)
		}
	}
}

// end stops it and returns all that it printed.
func (w *watching) end() string {
	w.t.Helper()
	w.stop()
	if code := <-w.done; code != 0 {
		w.t.Errorf("stopped, it ended with exit code %d", code)
	}
	return w.text.String()
}

// TestWatch prints what there is, and then a line for each change, of what changed alone.
func TestWatch(t *testing.T) {
	n := newNode(t)
	etcd, web := staticPod(t, "kube-system", "etcd", oneContainer), staticPod(t, "default", "web-server-with-a-name", oneContainer)
	n.board.Publish(viewOf(etcd, runs("main", 0)))
	n.board.Publish(viewOf(staticPod(t, "default", "over", oneContainer), ended("main", 5, 0, "Completed", "")))
	all := map[string]*watching{}
	commands := []string{"ps -w", "ps -w -a -o wide", "ps -w -q", "ps -w -o json", "status -w", "status -w -o yaml", "status etcd -w"}
	for _, c := range commands {
		all[c] = n.watch(c)
	}
	step := func(v status.View, seen ...string) {
		t.Helper()
		n.board.Publish(v)
		for i, c := range commands {
			all[c].until(seen[i])
		}
	}
	id := func(name string) string { return digits(name)[:13] }
	step(viewOf(etcd, runs("main", 0)), id("0main"), id("0main"), id("0main"), id("0main"), "etcd-n1", "etcd-n1", "Pod: ")
	v := viewOf(etcd, ended("main", 0, 2, "Error", ""))
	v.Ready, v.Decision = false, lifecycle.Decision{State: lifecycle.BackOff, Why: "back-off 10s restarting main"}
	step(v, "Exited", "CrashLoopBackOff", "", "Exited", "BackOff", "BackOff", "exited")
	step(viewOf(etcd, runs("main", 1), ended("main", 0, 2, "Error", "")), id("1main"), id("1main"), id("1main"), id("1main"), "Running   yes     1", "restarts: 1", "attempt 1")
	step(viewOf(web, runs("main", 3)), "web-server", "web-server", digits("3main"), "web-server", "web-server", "web-server", "")
	n.board.Remove("kube-system/etcd-n1")
	for i, want := range []string{"Removed", "Removed", "", "Removed", "Removed", "Removed", "is gone"} {
		all[commands[i]].until(want)
	}
	if text := all["status etcd -w"].text.String(); strings.Count(text, "Pod: ") != 3 {
		t.Errorf("three states of one pod and a change of another were shown as:\n%s", text)
	}
	var got strings.Builder
	for _, c := range commands[:6] {
		got.WriteString("$ slipway " + c + "\n" + all[c].end() + "\n")
	}
	compare(t, "watch", got.String())
}

// TestWatchEvents goes on where the list of what was known ended.
func TestWatchEvents(t *testing.T) {
	n := newNode(t)
	n.furnish()
	text, data := n.watch("events -w --pod kube-apiserver"), n.watch("events -w -o json --pod kube-apiserver")
	text.until("(x2")
	data.until(`"count": 2`)
	n.now = noon
	n.events.Record(event.Event{Pod: "default/web-n1", Type: event.Normal, Reason: event.Killing, Message: "not this one"})
	n.events.Record(event.Event{Pod: "kube-system/kube-apiserver-n1", Container: "main", Type: event.Normal, Reason: event.Killing, Message: "Stopping container main"})
	text.until("Stopping")
	data.until("Stopping")
	compare(t, "watch-events", "$ slipway events -w\n"+text.end()+"\n$ slipway events -w -o json\n"+data.end())
}

// TestReportDiffers by what it says, not by where that is kept.
func TestReportDiffers(t *testing.T) {
	n := newNode(t)
	n.furnish()
	report := func() *podReport {
		r, err := n.g.supervisor().report(t.Context(), "kube-system/etcd-n1")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := report()
	n.events.Record(event.Event{Pod: "kube-system/etcd-n1", Reason: event.Killing})
	if again := report(); again.differs(first) || !again.differs(nil) {
		t.Errorf("the same: %v; the first: %v", again.differs(first), again.differs(nil))
	}
	n.board.MirrorRefused("kube-system/etcd-n1", "a quota")
	if !report().differs(first) {
		t.Error("a change is none")
	}
}

// TestWatchEndsWithTheSupervisor, too.
func TestWatchEndsWithTheSupervisor(t *testing.T) {
	n := newNode(t)
	n.board.Publish(viewOf(staticPod(t, "kube-system", "etcd", oneContainer), runs("main", 0)))
	w := n.watch("ps -w")
	w.until("etcd-n1")
	n.stop()
	if code := <-w.done; code != 1 || !strings.HasSuffix(w.text.String(), "slipway: the supervisor has ended\n") {
		t.Errorf("exit code %d\n%s", code, w.text.String())
	}
}

// TestWatchEndsWithThePod is an error: nobody shall take silence for peace.
func TestWatchEndsWithThePod(t *testing.T) {
	n := newNode(t)
	p := staticPod(t, "kube-system", "etcd", oneContainer)
	n.board.Publish(viewOf(p, runs("main", 0)))
	w := n.watch("status etcd -w")
	w.until("Pod: ")
	n.board.Remove(p.FullName())
	if code := <-w.done; code != 1 || !strings.HasSuffix(w.text.String(), "slipway: pod kube-system/etcd-n1 is gone\n") {
		t.Errorf("exit code %d\n%s", code, w.text.String())
	}
}
