package status

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

func post(t *testing.T, client *http.Client, path string) (int, string) {
	t.Helper()
	resp, err := client.Post("http://slipway"+path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, _ := bufio.NewReader(resp.Body).ReadString('\n')
	return resp.StatusCode, line
}

// TestRestart passes on what is asked for, and answers with what became of it.
func TestRestart(t *testing.T) {
	var asked []string
	client, _ := serve(t, &Server{Board: NewBoard(), Restart: func(pod, why string) error {
		asked = append(asked, pod+": "+why)
		return map[string]error{
			"kube-system/none": fmt.Errorf("%w: %s", ErrNoPod, pod), "kube-system/dead": ErrNothingRuns, "kube-system/ill": errors.New("it is ill"),
		}[pod]
	}})
	const usage = "usage: POST /restart?pod=NAMESPACE/NAME[&why=ONE LINE OF AT MOST 200 BYTES]\n"
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/restart?pod=kube-system/etcd-n1", 204, ""},
		{"/restart?pod=kube-system/etcd-n1&why=new+certificate", 204, ""},
		{"/restart?pod=kube-system/none", 404, "there is no such pod: kube-system/none\n"},
		{"/restart?pod=kube-system/dead", 409, "no container of the pod runs\n"},
		{"/restart?pod=kube-system/ill", 500, "it is ill\n"},
		{"/restart", 400, usage},
		{"/restart?pod=etcd", 400, usage},
		{"/restart?pod=a/b&why=two%0Alines", 400, usage},
		{"/restart?pod=a/b&why=" + strings.Repeat("x", 201), 400, usage},
	} {
		if code, got := post(t, client, c.path); code != c.code || got != c.want {
			t.Errorf("POST %s: %d %q, want %d %q", c.path, code, got, c.code, c.want)
		}
	}
	if got := strings.Join(asked[:2], "; "); got != "kube-system/etcd-n1: asked for; kube-system/etcd-n1: new certificate" || len(asked) != 5 {
		t.Errorf("asked for: %q", asked)
	}
	if code, _ := get(t, client, "/restart?pod=kube-system/etcd-n1"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET /restart: %d, want 405", code)
	}
	without, _ := serve(t, &Server{Board: NewBoard()})
	if code, _ := post(t, without, "/restart?pod=a/b"); code != http.StatusNotImplemented {
		t.Errorf("a supervisor that cannot: %d, want 501", code)
	}
}

// TestHealthz is ok only while every part of the supervisor was heard of in time, and well.
func TestHealthz(t *testing.T) {
	now := noon
	h := NewHealth(func() time.Time { return now })
	b := NewBoard()
	client, _ := serve(t, &Server{Board: b, Healthy: h.Check})
	expect := func(when string, code int, want string) {
		t.Helper()
		if gotCode, got := get(t, client, "/healthz"); gotCode != code || got != want {
			t.Errorf("%s: %d %q, want %d %q", when, gotCode, got, code, want)
		}
	}
	expect("without parts", 200, "ok\n")
	h.Expect("supervisor", time.Minute)
	h.Expect("runtime", 30*time.Second)
	expect("at first", 200, "ok\n")
	h.Beat("runtime", errors.New("no such socket"))
	expect("without a runtime", 503, "[-]runtime: no such socket\n")
	if h.OK("runtime") || !h.OK("supervisor") || h.OK("nobody") {
		t.Errorf("ok: runtime %v, supervisor %v, nobody %v; want only the supervisor", h.OK("runtime"), h.OK("supervisor"), h.OK("nobody"))
	}
	h.Beat("runtime", nil)
	h.Beat("nobody", errors.New("nobody expects it"))
	expect("with it again", 200, "ok\n")
	now = now.Add(time.Minute)
	h.Beat("runtime", nil)
	expect("just in time", 200, "ok\n")
	now = now.Add(31 * time.Second)
	expect("both silent", 503, "[-]runtime: nothing was heard of it for 31s\n[-]supervisor: nothing was heard of it for 1m31s\n")
	h.Beat("runtime", nil)
	h.Beat("supervisor", nil)
	b.SetProblems([]Problem{{Source: "/m/a.yaml"}})
	if _, got := get(t, client, "/healthz?verbose"); got != "0 pods, 1 manifests refused\nok\n" {
		t.Errorf("verbose: %q", got)
	}
}

// TestEvents lists what has happened, of one pod or from a number on, and streams what happens then.
func TestEvents(t *testing.T) {
	now := noon
	log := event.NewLog(func() time.Time { return now })
	record := func(pod, reason, message string) {
		log.Record(event.Event{Pod: pod, Type: event.Normal, Reason: reason, Message: message})
	}
	record("kube-system/a-n1", event.Started, "started a")
	record("kube-system/b-n1", event.Started, "started b")
	client, stop := serve(t, &Server{Board: NewBoard(), Events: log})
	const a = `{"number":1,"first":"2026-03-01T12:00:00Z","last":"2026-03-01T12:00:00Z","count":1,"pod":"kube-system/a-n1","type":"Normal","reason":"Started","message":"started a"}`
	const b = `{"number":2,"first":"2026-03-01T12:00:00Z","last":"2026-03-01T12:00:00Z","count":1,"pod":"kube-system/b-n1","type":"Normal","reason":"Started","message":"started b"}`
	for path, want := range map[string]string{
		"/events": "[" + a + "," + b + "]\n", "/events?since=1": "[" + b + "]\n", "/events?since=2": "[]\n",
		"/events?pod=kube-system/a-n1": "[" + a + "]\n", "/events?pod=a": "[]\n",
	} {
		if _, got := get(t, client, path); got != want {
			t.Errorf("GET %s: %s, want %s", path, got, want)
		}
	}
	resp, err := client.Get("http://slipway/events?watch=true&pod=kube-system/a-n1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func(want string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("next: %s, want %s", lines.Text(), want)
		}
	}
	next(a)
	record("kube-system/b-n1", event.Killing, "not this one")
	now = noon.Add(time.Second)
	record("kube-system/a-n1", event.Started, "started a")
	again := strings.NewReplacer(`"number":1`, `"number":4`, `"last":"2026-03-01T12:00:00Z","count":1`, `"last":"2026-03-01T12:00:01Z","count":2`).Replace(a)
	next(again)
	record("kube-system/a-n1", event.Killing, "stopping a")
	if !lines.Scan() || !strings.Contains(lines.Text(), `"number":5,`) { // and not the former ones again
		t.Errorf("next: %s, want number 5", lines.Text())
	}
	stop()
	if lines.Scan() {
		t.Errorf("after the end: %s", lines.Text())
	}
}

// TestDetails shows what a v1.Pod has no field for, of one pod or all, and streams it.
func TestDetails(t *testing.T) {
	b := NewBoard()
	client, _ := serve(t, &Server{Board: b})
	resp, err := client.Get("http://slipway/status?watch=true&pod=kube-system/etcd-n1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() []Detail {
		t.Helper()
		var out []Detail
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if d := next(); len(d) != 0 {
		t.Errorf("at first: %v", d)
	}
	c := running("etcd", 1, false)
	c.Probe.Message = "connection refused"
	old := exited("etcd", 0, 1)
	old.CreatedAt = noon
	p := want(t, etcd)
	v := View{Name: p.FullName(), Want: p, Now: noon, Failure: "a failure", Decision: lifecycle.Decision{State: lifecycle.BackOff, Wake: noon.Add(time.Minute)},
		Seen: lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{old, c}}}
	b.Publish(v)
	d := next()[0]
	if d.Pod != "kube-system/etcd-n1" || d.State != "BackOff" || !d.Until.Equal(noon.Add(time.Minute)) || d.Failure != "a failure" ||
		d.Manifest != "/etc/kubernetes/manifests/pod.yaml" || d.UID != "1" || d.SpecHash != p.SpecHash || d.Sandboxes[0].ID != "s0" {
		t.Errorf("detail: %+v", d)
	}
	if len(d.Containers) != 2 || d.Containers[0].ID != "etcd-id" || d.Containers[0].Probe != "connection refused" || *d.Containers[1].ExitCode != 1 || d.Containers[0].ExitCode != nil {
		t.Errorf("containers: %+v", d.Containers)
	}
	other := want(t, job)
	b.Publish(View{Name: other.FullName(), Want: other, Now: noon})
	v.Seen.Containers[1].Probe.Message = "HTTP 503" // a v1.Pod shows nothing of this
	b.Publish(v)
	if c := next()[0].Containers[0]; c.Probe != "HTTP 503" {
		t.Errorf("after another failure of a probe, and the change of another pod: %+v", c)
	}
	if _, got := get(t, client, "/status?pod="+other.FullName()); strings.Contains(got, "etcd") || !strings.Contains(got, `"pod":"kube-system/job-n1"`) {
		t.Errorf("of the other pod: %s", got)
	}
	if c := d.Containers[0]; c.Image != "registry.example/etcd:3" || c.Waiting != "" || c.Sandbox != "s0" {
		t.Errorf("the newest: %+v", c)
	}
	v.Seen.Containers[1] = hooked(c, lifecycle.HookFailed, "exit code 3")
	b.Publish(v)
	if h := next()[0].Containers[0]; h.Hook != "the post-start hook failed: exit code 3" || h.Started || h.Waiting != "PostStartHookError" {
		t.Errorf("with a hook: %+v", h)
	}
	v.Seen.Containers = nil
	b.Publish(v)
	if c := next()[0].Containers; len(c) != 1 || c[0].State != "waiting" || c[0].Waiting != "ContainerCreating" || c[0].ID != "" {
		t.Errorf("without a container: %+v", c)
	}
	b.MirrorRefused("kube-system/etcd-n1", "a quota")
	if d := next()[0]; d.NotShown != "a quota" {
		t.Errorf("not shown: %+v", d)
	}
	b.Publish(v) // nothing new, and the refusal stays
	b.MirrorRefused("kube-system/etcd-n1", "")
	if d := next()[0]; d.NotShown != "" {
		t.Errorf("shown again: %+v", d)
	}
	b.MirrorRefused("kube-system/none", "nobody knows it")
	b.Remove("kube-system/etcd-n1")
	if d := next(); len(d) != 0 {
		t.Errorf("after it went: %v", d)
	}
	if _, got := get(t, client, "/status?pod=kube-system/none"); got != "[]\n" {
		t.Errorf("of no pod: %s", got)
	}
}

// TestLocalAnnotations names every annotation that the local API adds: what is not named would reach the Kubernetes API.
func TestLocalAnnotations(t *testing.T) {
	p := Pod(rejected(t), nil)
	added := 0
	for k := range p.Annotations {
		if _, own := want(t, etcd).Pod.Annotations[k]; !own {
			added++
			if !IsLocal(k) {
				t.Errorf("%s is added and not known", k)
			}
		}
	}
	if added != 8 || IsLocal("slipway.dev/start-after") {
		t.Errorf("%d were added, want all 8; start-after is local: %v", added, IsLocal("slipway.dev/start-after"))
	}
}
