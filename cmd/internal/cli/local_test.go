package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/runtime/cri/critest"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// dawn is when the pods of these tests were made, and noon when they are looked at.
var (
	dawn = time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// node is a supervisor's local API with a board that the test fills: the real server, behind a socket of the test's own.
type node struct {
	t      *testing.T
	board  *status.Board
	events *event.Log
	logs   string
	g      *global
	stop   func() // the supervisor

	mu       sync.Mutex
	restarts []string               // pod: why
	obey     func(pod string) error // what a restart does; nil does nothing
	now      time.Time
}

func newNode(t *testing.T) *node {
	dir := critest.ShortDir(t)
	n := &node{t: t, board: status.NewBoard(), logs: filepath.Join(dir, "logs"), now: dawn}
	n.events = event.NewLog(func() time.Time { return n.now })
	n.g = &global{origins: map[string]string{}, socket: filepath.Join(dir, "run", "s.sock"), now: func() time.Time { return noon }}
	l, err := status.Listen(n.g.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &status.Server{Board: n.board, PodLogs: n.logs, Events: n.events, Restart: n.restart, Config: []byte(`{"podLogsDir": "` + n.logs + `"}`)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

func (n *node) restart(pod, why string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.restarts = append(n.restarts, pod+": "+why)
	if n.obey != nil {
		return n.obey(pod)
	}
	if strings.Contains(pod, "kube-apiserver") {
		return status.ErrNothingRuns
	}
	return nil
}

// slipway runs a command against the node and returns what a user sees, as a script has it.
func (n *node) slipway(args ...string) string {
	var out, errs bytes.Buffer
	std := Streams{In: strings.NewReader(""), Out: &out, Err: &errs, Environ: nil}
	g := *n.g
	code := run(n.t.Context(), newRoot(std, &g), args, std)
	text := strings.TrimRight("$ slipway "+strings.Join(args, " "), " ") + "\n" + out.String()
	if errs.Len() > 0 {
		text += "[stderr]\n" + errs.String()
	}
	if code != 0 {
		text += fmt.Sprintf("[exit code %d]\n", code)
	}
	return text + "\n"
}

// golden compares what commands print with a file of testdata.
func (n *node) golden(name string, commands ...string) {
	n.t.Helper()
	var got strings.Builder
	for _, c := range commands {
		args := strings.Fields(c)
		for i := range args {
			args[i] = strings.Trim(args[i], "'") // '' is an empty one
		}
		got.WriteString(n.slipway(args...))
	}
	compare(n.t, name, strings.ReplaceAll(got.String(), filepath.Dir(filepath.Dir(n.g.socket)), "DIR"))
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := udiff.Unified(path, "got", string(want), got); diff != "" {
		t.Errorf("%s\nrewrite with: go test ./cmd/internal/cli -run %s -update", diff, t.Name())
	}
}

func staticPod(t *testing.T, namespace, name, spec string) *manifest.StaticPod {
	t.Helper()
	text := "{apiVersion: v1, kind: Pod, metadata: {name: " + name + ", namespace: " + namespace + "}, spec: " + spec + "}"
	p, err := manifest.Parse([]byte(text), "/etc/kubernetes/manifests/"+name+".yaml", "n1")
	if err != nil {
		t.Fatal(err)
	}
	p.UID = digits(name)[:32] // what content gives which is the manifests' own affair
	p.SpecHash, p.Pod.UID = p.UID, types.UID(p.UID)
	return p
}

const oneContainer = "{hostNetwork: true, containers: [{name: main, image: 'registry.example/main:1'}]}"

// viewOf is a pod that runs since dawn.
func viewOf(p *manifest.StaticPod, containers ...lifecycle.Container) status.View {
	v := status.View{Name: p.FullName(), Want: p, Now: dawn, Ready: true, HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10")},
		Decision: lifecycle.Decision{State: lifecycle.Running, Why: "main runs"}}
	v.Seen.Sandboxes = []lifecycle.Sandbox{{ID: digits(p.FullName()), UID: p.UID, Ready: true, HostNetwork: p.Pod.Spec.HostNetwork, CreatedAt: dawn}}
	for _, c := range containers {
		c.UID, c.SandboxID = p.UID, digits(p.FullName())
		v.Ready = v.Ready && (c.State != lifecycle.ContainerRunning || c.Probe.Ready)
		v.Seen.Containers = append(v.Seen.Containers, c)
	}
	return v
}

// digits are those of an id, and tell what they are of.
func digits(of string) string {
	return (fmt.Sprintf("%x", of) + strings.Repeat("0", 64))[:64]
}

func runs(name string, attempt uint32) lifecycle.Container {
	return lifecycle.Container{ID: digits(fmt.Sprint(attempt, name)), Name: name, Attempt: attempt, State: lifecycle.ContainerRunning, ImageRef: "sha256:" + digits("image"),
		CreatedAt: dawn.Add(time.Duration(attempt) * time.Hour), StartedAt: dawn.Add(time.Duration(attempt)*time.Hour + time.Second), Probe: lifecycle.Probe{Started: true, Ready: true}}
}

func ended(name string, attempt uint32, code int32, reason, message string) lifecycle.Container {
	c := runs(name, attempt)
	c.State, c.ExitCode, c.Reason, c.Message, c.FinishedAt, c.Probe = lifecycle.ContainerExited, code, reason, message, c.StartedAt.Add(time.Minute), lifecycle.Probe{}
	return c
}

// furnish gives the node a pod that is well after a restart, one that crashes, one that runs an older version and is
// not ready, one that waits for another, and a manifest that is refused.
func (n *node) furnish() {
	t := n.t
	n.board.Publish(viewOf(staticPod(t, "kube-system", "etcd", oneContainer), runs("main", 1), ended("main", 0, 137, "OOMKilled", "")))

	crash := viewOf(staticPod(t, "kube-system", "kube-apiserver", oneContainer), ended("main", 4, 1, "Error", "no such flag: --ectd"), ended("main", 3, 1, "Error", ""))
	crash.Ready, crash.Problem = false, "/etc/kubernetes/manifests/kube-apiserver.yaml:7:3: spec.contaners: unknown field"
	crash.Decision = lifecycle.Decision{State: lifecycle.BackOff, Why: "back-off 1m20s restarting main (exit code 1, 4 restarts)", Wake: noon.Add(34 * time.Second)}
	n.board.Publish(crash)

	slow := runs("nginx", 0)
	slow.Probe = lifecycle.Probe{Started: true, Message: "readiness probe: HTTP 503"}
	web := viewOf(staticPod(t, "default", "web", "{initContainers: [{name: fetch, image: 'registry.example/fetch:2'}], containers: [{name: nginx, image: 'registry.example/nginx:3'}, {name: extra, image: 'registry.example/extra:1'}]}"),
		slow, ended("fetch", 0, 0, "Completed", ""))
	web.Seen.Sandboxes[0].IP = "10.244.0.7"
	web.Decision = lifecycle.Decision{State: lifecycle.Starting, Why: "starting extra"}
	web.Failure = "start container extra (attempt 0): creating container extra: no such device"
	web.Rejected = &lastgood.Rejection{Pod: "default/web-n1", Version: digits("bad") + "/" + digits("bad"), UID: digits("bad"), Source: "/etc/kubernetes/manifests/web.yaml",
		At: noon.Add(-90 * time.Second), Reason: "nginx exited 3 times within 1m0s, last with exit code 1", Log: []string{"bind: address in use", "bye"}, Good: "good"}
	n.board.Publish(web)
	n.board.MirrorRefused("default/web-n1", "pods \"web-n1\" is forbidden: exceeded quota")

	for _, namespace := range []string{"kube-system", "default"} {
		held := status.View{Name: namespace + "/dns-n1", Want: staticPod(t, namespace, "dns", oneContainer), Now: dawn,
			Decision: lifecycle.Decision{State: lifecycle.Held, Why: "waits for kube-apiserver"}}
		n.board.Publish(held)
	}
	n.board.SetProblems([]status.Problem{{Source: "/etc/kubernetes/manifests/x.yaml", Reason: "/etc/kubernetes/manifests/x.yaml:1:1: kind: expected Pod"}})

	n.log("kube-system_kube-apiserver-n1_1/main/4.log", "starting", "no such flag: --ectd")
	n.log("kube-system_kube-apiserver-n1_1/main/3.log", "the one before")
	n.log("default_web-n1_1/nginx/0.log", "one", "two", "three")
	n.log("default_web-n1_1/fetch/0.log", "fetched")
	n.log("kube-system_etcd-n1_1/main/0.log", "killed")
	n.log("kube-system_etcd-n1_1/main/1.log", "runs")

	for i, e := range []event.Event{
		{Pod: "kube-system/kube-apiserver-n1", Container: "main", Type: event.Normal, Reason: event.Started, Message: "Started container main"},
		{Pod: "default/web-n1", UID: "1", Type: event.Warning, Reason: event.RolledBack, Message: "back to the version before"},
		{Pod: "kube-system/kube-apiserver-n1", Container: "main", Type: event.Warning, Reason: event.BackOffRestart, Message: "Back-off restarting failed container main"},
		{Pod: "kube-system/kube-apiserver-n1", Container: "main", Type: event.Warning, Reason: event.BackOffRestart, Message: "Back-off restarting failed container main"},
		{Type: event.Normal, Reason: event.FreedDiskSpace, Message: "removed 2 images"},
	} {
		n.now = noon.Add(time.Duration(i-10) * time.Minute)
		n.events.Record(e)
	}
}

func (n *node) log(name string, lines ...string) {
	path := filepath.Join(n.logs, name)
	var text strings.Builder
	for i, line := range lines {
		fmt.Fprintf(&text, "2026-03-01T11:00:%02d.5Z stdout F %s\n", i, line)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text.String()), 0o644)); err != nil {
		n.t.Fatal(err)
	}
}

func TestPs(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("ps", "ps", "ps -a", "ps -o wide -a --pod web", "ps -o json --pod etcd", "ps -o yaml -a --pod kube-apiserver", "ps -q", "ps --pod nobody", "ps --pod dns", "ps -o name")
}

func TestStatusOfAPod(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("status-pod", "status etcd", "status kube-apiserver-n1", "status default/web", "status default/web -o wide", "status kube-system/dns -o yaml",
		"status kube-apiserver -o json", "status dns", "status etdc", "status a b")
}

func TestStatus(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("status", "status --instance none", "status --instance none -o wide", "status --instance none -o yaml")
}

func TestEvents(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("events", "events", "events --pod kube-apiserver", "events -o wide", "events -o json --pod web", "events -o yaml --pod web", "events --pod nobody", "events web")
}

// TestRestart orders nothing when one of the names means no pod.
func TestRestart(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("restart", "restart etcd default/web", "restart kube-apiserver --why certificate", "restart", "restart etcd nobody")
	want := "kube-system/etcd-n1: asked for\ndefault/web-n1: asked for\nkube-system/kube-apiserver-n1: certificate"
	if got := strings.Join(n.restarts, "\n"); got != want {
		t.Errorf("ordered:\n%s\nwant:\n%s", got, want)
	}
}

func TestCompletion(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("completion", "__complete logs ''", "__complete logs web ''", "__complete status ''", "__complete status etcd ''", "__complete restart etcd ''",
		"__complete exec default/web -c ''", "__complete ps --pod ''", "__complete events --pod ''", "__complete logs nobody ''")
}

func TestLogs(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.golden("logs", "logs kube-apiserver", "logs kube-apiserver -p", "logs web", "logs web nginx --tail 2", "logs web -c nginx --since 2026-03-01T11:00:01Z --timestamps",
		"logs web-n1 fetch -p", "logs etcd", "logs etcd -p", "logs default/dns", "logs etdc", "logs web nothing")
	w := n.watch("logs web nginx -f --tail 1")
	w.until("three\n")
	n.log("default_web-n1_1/nginx/1.log", "after its restart")
	w.until("restart\n")
	if got := w.end(); got != "three\nafter its restart\n" {
		t.Errorf("followed: %q", got)
	}
}

// TestLogsWithoutASupervisor reads the files all the same.
func TestLogsWithoutASupervisor(t *testing.T) {
	n := newNode(t)
	n.furnish()
	n.g.socket += "-none"
	for typed, want := range map[string]string{"web": "default/web-n1", "kube-apiserver-n1": "kube-system/kube-apiserver-n1", "kube-system/kube": "kube-system/kube-apiserver-n1"} {
		if got, err := findLogs(t.Context(), n.g, n.logs, typed); err != nil || got.full() != want {
			t.Errorf("%s: %s, %v; want %s", typed, got.full(), err, want)
		}
	}
	if _, err := findLogs(t.Context(), n.g, n.logs+"/none", "web"); err == nil || !strings.HasPrefix(err.Error(), "no pod has a log below ") {
		t.Errorf("without logs: %v", err)
	}
}

// TestWithoutASupervisor says what to do.
func TestWithoutASupervisor(t *testing.T) {
	n := newNode(t)
	n.g.socket += "-none"
	n.golden("away", "ps --instance none", "ps -w --instance none", "status etcd --instance none", "events --instance none", "events -w --instance none", "restart etcd --instance none")
}
