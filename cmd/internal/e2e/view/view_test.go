//go:build e2e

package view

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

const (
	soon    = 20 * time.Second
	program = "/usr/local/bin/subject"
)

// TestView looks at a pod that is well and at one that crashes, in every way there is.
func TestView(t *testing.T) {
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	n.Put("web.yaml", podtest.Pod("web").Container("main", "print:hello", "listen:127.0.0.1:18571", "forever").
		Edit(func(c *corev1.Container) { c.Env = []corev1.EnvVar{{Name: "COLOUR", Value: "red"}} }).YAML())
	n.Put("crash.yaml", podtest.Pod("crash").Container("main", "print:going down", "exit:3").YAML())
	n.Put("broken.yaml", "kind: Deployment\n")
	web := n.WaitRunning("web", "main", soon)
	n.WaitFor("the crash's back-off", soon, func() (bool, string) {
		r := n.Slipway("status", "crash")
		return strings.Contains(r.Stdout, "CrashLoopBackOff"), r.Stdout + r.Stderr
	})
	t.Run("ps", func(t *testing.T) { ps(t, n, web) })
	t.Run("status", func(t *testing.T) { status(t, n) })
	t.Run("logs", func(t *testing.T) { logs(t, n) })
	t.Run("exec", func(t *testing.T) { execute(t, n) })
	t.Run("events and metrics", func(t *testing.T) { events(t, n) })
	t.Run("restart", func(t *testing.T) { restart(t, n, web) })
	t.Run("without a supervisor", func(t *testing.T) { alone(t, n) })
}

// want runs a command, whose output must have the parts.
func want(t *testing.T, n *podtest.Node, code int, command string, parts ...string) podtest.Result {
	t.Helper()
	r := n.Slipway(strings.Fields(command)...)
	if r.Code != code {
		t.Errorf("slipway %s: exit code %d, want %d\n%s%s", command, r.Code, code, r.Stdout, r.Stderr)
	}
	for _, part := range parts {
		if !strings.Contains(r.Stdout+r.Stderr, part) {
			t.Errorf("slipway %s: no %q in:\n%s%s", command, part, r.Stdout, r.Stderr)
		}
	}
	return r
}

func ps(t *testing.T, n *podtest.Node, web podtest.Container) {
	r := want(t, n, 0, "ps", web.ID[:13], "Running", "default/web-node")
	if strings.Contains(r.Stdout, "crash") {
		t.Errorf("without -a it shows what does not run:\n%s", r.Stdout)
	}
	want(t, n, 0, "ps -a -o wide", "Exited", "CrashLoopBackOff", "default/crash-node")
	if r := want(t, n, 0, "ps -q --pod web"); strings.TrimSpace(r.Stdout) != web.ID {
		t.Errorf("ps -q printed %q, the runtime has %s", r.Stdout, web.ID)
	}
	if r := n.Ctr("containers", "list", "-q"); !strings.Contains(r.Stdout, web.ID) {
		t.Errorf("ctr does not show %s:\n%s", web.ID, r.Stdout)
	}
}

func status(t *testing.T, n *podtest.Node) {
	want(t, n, 1, "status", "web-node", "crash-node", "refused: "+n.Manifests+"/broken.yaml:1:7: kind: is a Deployment")
	want(t, n, 0, "status web", "Ready:          yes", "started, ready", n.Manifests+"/web.yaml")
	want(t, n, 1, "status crash", "State:          BackOff", "Waits until:", "with exit code 3 (Error)", "| going down", "Events:")
	var report struct {
		Status corev1.PodStatus
		Logs   map[string][]string
	}
	if err := json.Unmarshal([]byte(want(t, n, 1, "status crash -o json").Stdout), &report); err != nil {
		t.Fatal(err)
	}
	if s := report.Status.ContainerStatuses; len(s) != 1 || s[0].State.Waiting == nil || s[0].LastTerminationState.Terminated.ExitCode != 3 {
		t.Errorf("container statuses %+v", s)
	}
	if l := report.Logs["main"]; len(l) != 1 || l[0] != "going down" {
		t.Errorf("logs %q", l)
	}
}

func logs(t *testing.T, n *podtest.Node) {
	if r := want(t, n, 0, "logs web"); r.Stdout != "hello\n" {
		t.Errorf("logs web: %q", r.Stdout)
	}
	if r := want(t, n, 0, "logs crash main -p --tail 1"); r.Stdout != "going down\n" {
		t.Errorf("logs crash -p: %q", r.Stdout)
	}
	want(t, n, 0, "logs web --since 1h --timestamps", "Z hello\n")
}

func execute(t *testing.T, n *podtest.Node) {
	if r := want(t, n, 0, "exec web -- "+program+" env:COLOUR"); r.Stdout != "red\n" {
		t.Errorf("its environment: %q", r.Stdout)
	}
	if r := want(t, n, 7, "exec web -c main -- "+program+" print:out error:err exit:7"); r.Stdout != "out\n" || r.Stderr != "err\n" {
		t.Errorf("its streams: %q, %q", r.Stdout, r.Stderr)
	}
	want(t, n, 1, "exec crash -- "+program, "container main of pod default/crash-node does not run: CrashLoopBackOff")
	want(t, n, 1, "exec web -- /no/such/program", "/no/such/program")

	command := func(args ...string) *exec.Cmd {
		path := os.Getenv("SLIPWAY_TEST_PROGRAM")
		if path == "" {
			path = filepath.Join(n.Repository, "bin/slipway")
		}
		return exec.CommandContext(t.Context(), path, append([]string{"--instance", n.Instance}, args...)...)
	}
	cat := command("exec", "-i", "web", "--", program, "cat:/dev/stdin", "exit:4")
	cat.Stdin = strings.NewReader("some input\n")
	out, err := cat.Output()
	if string(out) != "some input\n" || cat.ProcessState.ExitCode() != 4 {
		t.Errorf("input came out as %q, %v", out, err)
	}
	// A signal is the command's.
	wait := command("exec", "web", "--", program, "signal:TERM=9", "print:ready", "forever")
	stdout, err := wait.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	if err := wait.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = wait.Wait()
	if code := wait.ProcessState.ExitCode(); code != 9 {
		t.Errorf("after SIGTERM: exit code %d, want 9", code)
	}
	terminal(t, command)
	if left, err := filepath.Glob(filepath.Dir(n.Paths.SupervisorSocket) + "/*/*-std*"); err != nil || len(left) > 0 {
		t.Errorf("pipes are left: %q, %v", left, err)
	}
}

// terminal runs a command in a terminal, which util-linux's script makes: its lines end as a terminal's do.
func terminal(t *testing.T, command func(...string) *exec.Cmd) {
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("no script(1), so no terminal")
	}
	inner := command("exec", "-it", "web", "--", program, "print:seen", "env:TERM", "exit:6")
	outer := exec.CommandContext(t.Context(), script, "-qec", strings.Join(inner.Args, " "), "/dev/null")
	typed, err := outer.StdinPipe() // nothing is: its end would be typed, too
	if err != nil {
		t.Fatal(err)
	}
	defer typed.Close()
	out, _ := outer.Output()
	if string(out) != "seen\r\nxterm\r\n" || outer.ProcessState.ExitCode() != 6 {
		t.Errorf("in a terminal: %q, exit code %d", out, outer.ProcessState.ExitCode())
	}
}

func events(t *testing.T, n *podtest.Node) {
	want(t, n, 0, "events --pod crash", "BackOff")
	want(t, n, 0, "events", "Started")
	body, code, err := n.Get("/metrics")
	if err != nil || code != http.StatusOK {
		t.Fatalf("/metrics: %d, %v", code, err)
	}
	for _, line := range []string{
		`slipway_pod_ready{namespace="default",pod="web-node"} 1`, `slipway_pod_state{namespace="default",pod="crash-node",state="BackOff"} 1`,
		"slipway_runtime_up 1", "slipway_manifest_problems 1", `slipway_action_duration_seconds_count{action="run_sandbox",result="ok"} 2`,
	} {
		if !strings.Contains(string(body), line+"\n") {
			t.Errorf("/metrics has no %s", line)
		}
	}
	if body, code, err := n.Get("/healthz?verbose"); err != nil || code != http.StatusOK {
		t.Errorf("/healthz: %d %s %v", code, body, err)
	}
}

// restart starts the container anew in the same sandbox.
func restart(t *testing.T, n *podtest.Node, web podtest.Container) {
	want(t, n, 0, "restart web --why tests", "restarting default/web-node")
	n.WaitFor("the next attempt", soon, func() (bool, string) {
		c, found := n.Running("web", "main")
		return found && c.Attempt == web.Attempt+1, fmt.Sprint(n.Containers("web"))
	})
	if s := n.Sandboxes("web"); len(s) != 1 {
		t.Errorf("sandboxes after a restart: %v", s)
	}
	want(t, n, 0, "events --pod web", "tests")
	want(t, n, 1, "restart wbe", "did you mean: web")
}

// alone does what needs no supervisor, and says so where one is needed.
func alone(t *testing.T, n *podtest.Node) {
	n.StopSupervisor()
	if r := want(t, n, 0, "exec --cri-socket "+n.Socket+" web -- "+program+" print:still"); r.Stdout != "still\n" {
		t.Errorf("exec: %q", r.Stdout)
	}
	want(t, n, 1, "ps", "the supervisor does not run")
	want(t, n, 1, "restart web", "the supervisor does not run")
	want(t, n, 1, "validate "+n.Manifests, "broken.yaml:1:7: kind: is a Deployment", "3 manifests, 1 error, 0 warnings")
}
