package status

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// serve runs a server on a unix socket until the test ends, and returns a client of it.
func serve(t *testing.T, s *Server) (client *http.Client, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "sw") // a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "s.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v; want 0600", info.Mode(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}, stop
}

func get(t *testing.T, client *http.Client, path string) (int, string) {
	t.Helper()
	resp, err := client.Get("http://slipway" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServer(t *testing.T) {
	logs := t.TempDir()
	write(t, filepath.Join(logs, "kube-system_etcd-n1_1", "etcd", "0.log"), at+"stdout F one\n"+at+"stdout F two\n"+at+"stderr F three\n")
	write(t, filepath.Join(logs, "kube-system_two-n1_1", "a", "0.log"), "")
	write(t, filepath.Join(logs, "kube-system_two-n1_1", "b", "0.log"), "")
	b := NewBoard()
	client, _ := serve(t, &Server{Board: b, PodLogs: logs, Config: []byte(`{"kind":"KubeletConfiguration"}`)})
	const usage = logsUsage + "\n"

	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok\n"},
		{"/pods", 200, `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}` + "\n"},
		{"/problems", 200, "[]\n"},
		{"/configz", 200, `{"kind":"KubeletConfiguration"}`},
		{"/logs?pod=kube-system/etcd-n1&tail=2", 200, "two\nthree\n"},
		{"/logs?pod=kube-system/etcd-n1&container=etcd&tail=9", 200, "one\ntwo\nthree\n"},
		{"/logs?pod=kube-system/two-n1&tail=2", 400, "pod kube-system/two-n1 has several containers, name one of: a, b\n"},
		{"/logs?pod=kube-system/none&tail=2", 404, "reading the log of kube-system/none below " + logs + ": there is no log yet\n"},
		{"/logs", 400, usage},
		{"/logs?pod=etcd&tail=2", 400, usage},
		{"/logs?pod=kube-system/etcd-n1", 400, usage},
		{"/logs?pod=kube-system/etcd-n1&tail=0", 400, usage},
		{"/logs?pod=kube-system/*&tail=2", 400, usage},
		{"/logs?pod=kube-system/..%2F..&tail=2", 400, usage},
		{"/logs?pod=kube-system/etcd-n1&container=..%2Fetcd&tail=2", 400, usage},
		{"/logs?pod=kube-system/etcd-n1&tail=2&attempt=0", 200, "two\nthree\n"},
		{"/logs?pod=kube-system/etcd-n1&tail=1&timestamps=true", 200, at + "three\n"},
		{"/logs?pod=kube-system/etcd-n1&tail=9&since=2026-03-01T13:00:00Z", 200, ""},
		{"/logs?pod=kube-system/etcd-n1&tail=9&since=noon", 400, `since="noon": parsing time "noon" as "2006-01-02T15:04:05.999999999Z07:00": cannot parse "noon" as "2006"` + "\n"},
		{"/logs?pod=kube-system/etcd-n1&tail=2&attempt=1", 404, "reading the log of kube-system/etcd-n1: there is no log yet of attempt 1\n"},
		{"/logs?pod=kube-system/etcd-n1&tail=2&attempt=-1", 400, usage},
		{"/logs?pod=kube-system/etcd-n1&tail=2&previous=true", 404, "reading the log of kube-system/etcd-n1: there is no log yet of an attempt before the newest, which is number 0\n"},
		{"/status", 200, "[]\n"},
		{"/events", 200, "[]\n"},
		{"/events?since=x", 400, "usage: /events[?since=NUMBER][&pod=NAMESPACE/NAME][&watch=true]\n"},
		{"/metrics", 404, "404 page not found\n"},
		{"/nothing", 404, "404 page not found\n"},
	} {
		if code, got := get(t, client, c.path); code != c.code || got != c.want {
			t.Errorf("GET %s: %d %q, want %d %q", c.path, code, got, c.code, c.want)
		}
	}

	b.SetProblems([]Problem{{Source: "/m/a.yaml", Pod: "kube-system/a-n1", Reason: "not a pod"}})
	if _, got := get(t, client, "/problems"); got != `[{"source":"/m/a.yaml","pod":"kube-system/a-n1","reason":"not a pod"}]`+"\n" {
		t.Errorf("problems: %s", got)
	}
	resp, err := client.Post("http://slipway/pods", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /pods: %s, want 405", resp.Status)
	}
}

// TestWatch streams one list per change, and ends with the server.
func TestWatch(t *testing.T) {
	b := NewBoard()
	client, stop := serve(t, &Server{Board: b})
	resp, err := client.Get("http://slipway/pods?watch=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	next := func() corev1.PodList {
		t.Helper()
		var list corev1.PodList
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := next(); len(list.Items) != 0 {
		t.Errorf("at first %d pods, want none", len(list.Items))
	}
	p := want(t, etcd)
	v := View{Name: p.FullName(), Want: p, Now: noon, Decision: lifecycle.Decision{State: lifecycle.Starting}}
	b.Publish(v)
	if list := next(); len(list.Items) != 1 || list.Items[0].Annotations[AnnotationState] != "Starting" {
		t.Errorf("after a pod: %v", list.Items)
	}
	v.Decision.State = lifecycle.Running
	b.Publish(v)
	if list := next(); list.Items[0].Annotations[AnnotationState] != "Running" {
		t.Errorf("after a change: %v", list.Items[0].Annotations)
	}
	stop()
	if lines.Scan() {
		t.Errorf("after the end: %s", lines.Text())
	}
}

// TestListenReplacesASocket takes the place of one that a dead supervisor left.
func TestListenReplacesASocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "sw")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
