//go:build e2e || bench

package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"
)

// commandTimeout is for commands of slipway that answer at once.
const commandTimeout = 30 * time.Second

// SupervisorLog is the file with the output of every run of the supervisor.
func (n *Node) SupervisorLog() string { return filepath.Join(n.Dir, "supervise.log") }

// SuperviseArgv is the command line of the supervisor.
func (n *Node) SuperviseArgv(args ...string) []string {
	return append([]string{n.slipway(), "--instance", n.Instance, "supervise", "--config", n.Config, "--node-name", n.Name}, args...)
}

// Supervise starts slipway supervise, with further flags, and returns when it answers on its socket. It need not have
// found containerd by then.
func (n *Node) Supervise(args ...string) {
	n.t.Helper()
	n.StartSupervisor(args...)
	n.WaitFor("the supervisor's socket", 30*time.Second, func() (bool, string) {
		if !n.supervisor.Running() {
			n.t.Fatalf("podtest: the supervisor has ended:\n%s", tail(n.SupervisorLog(), 20))
		}
		_, code, err := n.Get("/healthz")
		return code == http.StatusOK, fmt.Sprint(err)
	})
}

// StartSupervisor is Supervise without the wait.
func (n *Node) StartSupervisor(args ...string) {
	n.t.Helper()
	if n.supervisor.Running() {
		n.t.Fatal("podtest: the supervisor runs already")
	}
	var err error
	n.supervisor, err = start(n.SupervisorLog(), nil, n.inNetwork(n.SuperviseArgv(args...))...)
	n.must(err)
}

// StopSupervisor ends the supervisor; the pods run on.
func (n *Node) StopSupervisor() { n.supervisor.Stop(20 * time.Second) }

// KillSupervisor ends the supervisor with SIGKILL; the pods run on.
func (n *Node) KillSupervisor() { n.supervisor.Stop(0) }

// SupervisorRuns is false also before the first start.
func (n *Node) SupervisorRuns() bool { return n.supervisor.Running() }

// SupervisorPID is the process that was started last.
func (n *Node) SupervisorPID() int { return n.supervisor.PID() }

// Get asks the supervisor's local API, such as /pods.
func (n *Node) Get(path string) (body []byte, code int, err error) {
	return n.request(http.MethodGet, path)
}

// Post asks the supervisor's local API to do something, such as /restart?pod=default/web-node.
func (n *Node) Post(path string) (body []byte, code int, err error) {
	return n.request(http.MethodPost, path)
}

func (n *Node) request(method, path string) ([]byte, int, error) {
	client := http.Client{Timeout: commandTimeout, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", n.Paths.SupervisorSocket)
		}}}
	request, err := http.NewRequestWithContext(n.t.Context(), method, "http://slipway"+path, nil)
	if err != nil {
		return nil, 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, err
	}
	defer response.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(response.Body)
	return body.Bytes(), response.StatusCode, err
}

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit code
}

// Slipway runs a command of slipway for this node's instance, for at most 30 s. An exit code other than 0 is the
// caller's to judge.
func (n *Node) Slipway(args ...string) Result {
	n.t.Helper()
	return n.run(append([]string{n.slipway(), "--instance", n.Instance}, args...)...)
}

// Ctr runs containerd's own client in the namespace of Kubernetes.
func (n *Node) Ctr(args ...string) Result {
	n.t.Helper()
	return n.run(append([]string{"ctr", "-a", n.Socket, "-n", "k8s.io"}, args...)...)
}

func (n *Node) run(argv ...string) Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (ctx.Err() != nil || !errors.As(err, &exit)) {
		n.t.Fatalf("podtest: running %s %q: %v\n%s", filepath.Base(argv[0]), argv[1:], err, stderr.String())
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}
