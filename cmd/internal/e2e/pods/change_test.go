//go:build e2e

package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// TestBurstEndsAtTheLast edits a running pod twenty times within a fifth of a second. The last version runs, and none of
// those between was ever started.
func TestBurstEndsAtTheLast(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, n *podtest.Node) {
		running(n)
		for i := range 20 {
			n.Put("web.yaml", podtest.Pod("web").Container("main", fmt.Sprint("print:", i), "forever").YAML())
			pause(t, 10*time.Millisecond)
		}
		n.WaitFor("the last edit", patience, func() (bool, string) {
			return strings.HasSuffix(n.Log("web", "main"), "19\n"), n.Describe("web")
		})
		oneSandbox(n, "web")
		if log := n.Log("web", "main"); log != "19\n" {
			t.Errorf("the log of what is left is %q, want only the last version's", log)
		}
		started := 0
		for line := range strings.Lines(read(t, n.SupervisorLog())) {
			if strings.Contains(line, "start container main") {
				started++
			}
		}
		if started != 2 {
			t.Errorf("%d containers were started, want the first version's and the last one's", started)
		}
	})
}

// TestOldIsGoneBeforeNewStarts: both versions listen on the same port, and the old one takes its time.
func TestOldIsGoneBeforeNewStarts(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	dir := t.TempDir()
	order := filepath.Join(dir, "order")
	version := func(name string) string {
		return podtest.Pod("web").Grace(10).Container("main", "listen:127.0.0.1:18331", "append:"+order+"="+name, "forever").Edit(func(c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{
				Command: []string{"subject", "sleep:1s", "append:" + order + "=end of " + name}}}}
		}).HostPath("d", dir, corev1.HostPathDirectory).YAML()
	}
	n.Put("web.yaml", version("one"))
	n.WaitRunning("web", "main", patience)
	waitReady(n, "web")
	n.Put("web.yaml", version("two"))
	n.WaitFor("the second version", patience, func() (bool, string) {
		text, err := os.ReadFile(order)
		return err == nil && strings.HasSuffix(string(text), "two\n"), string(text)
	})
	if got := read(t, order); got != "one\nend of one\ntwo" {
		t.Errorf("the order was %q", got)
	}
}

// TestPutBackWhileTerminating removes a manifest and puts it back while its pod still ends.
func TestPutBackWhileTerminating(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	pod := podtest.Pod("web").Grace(3).Container("main", "signal:TERM=ignore", "print:ready", "forever").YAML()
	n.Put("web.yaml", pod)
	first := n.WaitRunning("web", "main", patience)
	n.WaitFor("the container to hear signals", patience, func() (bool, string) { // a process runs before it does
		log := n.Log("web", "main")
		return log == "ready\n", log
	})
	n.Remove("web.yaml")
	n.WaitFor("the end's begin", patience, func() (bool, string) {
		log := n.Log("web", "main")
		return strings.Contains(log, "SIGTERM"), log
	})
	n.Put("web.yaml", pod)
	n.WaitFor("another container", patience, func() (bool, string) {
		c, found := n.Running("web", "main")
		return found && c.ID != first.ID, n.Describe("web")
	})
	oneSandbox(n, "web")
}

// TestRestart restarts a pod on demand: the same sandbox, the next attempt, no back-off.
func TestRestart(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	before := running(n)
	for attempt := range uint32(3) {
		if r := n.Slipway("restart", "web"); r.Code != 0 {
			t.Fatalf("slipway restart: %+v", r)
		}
		n.WaitFor("the next attempt", 8*time.Second, func() (bool, string) { // less than the first back-off
			c, found := n.Running("web", "main")
			return found && c.Attempt == attempt+1 && c.Sandbox == before.Sandbox, n.Describe("web")
		})
		waitReady(n, "web")
	}
	if r := n.Slipway("restart", "wbe"); r.Code != 1 || !strings.Contains(r.Stderr, "web") {
		t.Errorf("slipway restart of a pod that is not there: %+v", r)
	}
}

// TestWatchedFiles restarts a pod when a file that it names changes, and not when the supervisor restarts.
func TestWatchedFiles(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	dir := t.TempDir()
	file := filepath.Join(dir, "tls.crt")
	write := func(text string) {
		if err := os.WriteFile(file+".tmp", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".tmp", file); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	n.Put("web.yaml", podtest.Pod("web").Annotate("slipway.dev/restart-on-change", file).
		Container("main", "cat:"+file, "print:", "forever").HostPath("d", dir, corev1.HostPathDirectory).YAML())
	first := n.WaitRunning("web", "main", patience)
	waitReady(n, "web")
	write("two")
	n.WaitFor("a restart with the new file", patience, func() (bool, string) {
		c, found := n.Running("web", "main")
		return found && c.Attempt == 1 && c.Sandbox == first.Sandbox && strings.HasSuffix(n.Log("web", "main"), "two\n"), n.Describe("web") + n.Log("web", "main")
	})
	n.KillSupervisor()
	n.Supervise()
	waitReady(n, "web")
	if c, _ := n.Running("web", "main"); c.Attempt != 1 {
		t.Errorf("a restart of the supervisor restarted the pod: %s", n.Describe("web"))
	}
	n.KillSupervisor()
	write("three")
	n.Supervise()
	n.WaitFor("a restart for a change while nobody watched", patience, func() (bool, string) {
		c, found := n.Running("web", "main")
		return found && c.Attempt == 2 && strings.HasSuffix(n.Log("web", "main"), "three\n"), n.Describe("web")
	})
}

// TestStartAfter: a pod waits for another's readiness, and has no restarts behind it when it comes up.
func TestStartAfter(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	n.Put("a-web.yaml", podtest.Pod("web").Annotate("slipway.dev/start-after", "db").Container("main", "forever").YAML())
	first := n.WaitRunning("web", "main", patience) // there is no db
	n.Put("b-db.yaml", podtest.Pod("db").InitContainer("slow", "sleep:2s").Container("main", "forever").YAML())
	n.Put("c-app.yaml", podtest.Pod("app").Annotate("slipway.dev/start-after", "db").Container("main", "forever").YAML())
	n.WaitFor("the reason why it waits", patience, func() (bool, string) {
		p := shown(n, "app")
		return strings.Contains(why(p), "Held") && strings.Contains(why(p), "db"), why(p)
	})
	app := n.WaitRunning("app", "main", patience)
	db := n.WaitRunning("db", "main", patience)
	if app.Attempt != 0 || app.Created.Before(db.Created) {
		t.Errorf("app started at %s (attempt %d), db at %s", app.Created, app.Attempt, db.Created)
	}
	untouched(t, n, "web", first)
}

// TestInvalidEditsNeverStopAPod tries every kind of manifest that is no pod over one that runs.
func TestInvalidEditsNeverStopAPod(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{Kubelet: map[string]any{"fileCheckFrequency": "1s"}})
	n.Supervise()
	before := running(n)
	for name, text := range map[string]string{
		"nothing":          "",
		"half of it":       web()[:len(web())/2],
		"a deployment":     "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n",
		"a list":           "apiVersion: v1\nkind: List\nitems: []\n",
		"two documents":    web() + "---\n" + web(),
		"a wrong field":    strings.Replace(web(), "spec:", "spec:\n  hostNetwrok: true", 1),
		"a ServiceAccount": strings.Replace(web(), "spec:", "spec:\n  serviceAccountName: admin", 1),
		"not YAML":         "\x00\x01{",
	} {
		n.Put("web.yaml", text)
		n.WaitFor(name+" to be reported", patience, func() (bool, string) {
			r := n.Slipway("status")
			return strings.Contains(r.Stdout, "web.yaml"), r.Stdout
		})
		pause(t, 1200*time.Millisecond) // past the next listing
		untouched(t, n, "web", before)
		n.Put("web.yaml", web())
		n.WaitFor("the report's end", patience, func() (bool, string) {
			r := n.Slipway("status")
			return r.Code == 0 && !strings.Contains(r.Stdout, "web.yaml:"), r.Stdout
		})
	}
	n.Put("other.yaml", strings.Replace(web(), "hello", "duplicate", 1))
	n.WaitFor("the duplicate to be reported", patience, func() (bool, string) {
		r := n.Slipway("status")
		return strings.Contains(r.Stdout, "other.yaml"), r.Stdout
	})
	for _, name := range []string{"web.yaml.bak", "web.yaml~", ".web.yaml.swp", "#web.yaml#", "4913", "web.yaml.orig"} {
		n.Put(name, strings.Replace(web(), "hello", "backup", 1))
	}
	pause(t, 1200*time.Millisecond)
	untouched(t, n, "web", before)
}
