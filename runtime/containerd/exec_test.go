//go:build e2e

package containerd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// TestExec runs commands in a container of a real containerd, which has this machine's shell and tools.
func TestExec(t *testing.T) {
	removeSharedDirs(t)
	app := buildProgram(t, "./testdata/app")
	for _, bin := range append([]string{""}, filepath.SplitList(os.Getenv("SLIPWAY_TEST_CONTAINERD"))...) {
		path := os.Getenv("PATH")
		if bin != "" {
			path = bin + ":" + path
		}
		d := startDaemon(t, path)
		_, version, err := Version(t.Context(), d.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) {
			r := newExecRoom(t, d, app)
			t.Run("streams and exit codes", r.streams)
			t.Run("input", r.input)
			t.Run("terminal", r.terminal)
			t.Run("signals", r.signals)
			t.Run("end of the context", r.cancelled)
			t.Run("output held by the background", r.background)
			t.Run("what cannot be", r.refused)
			if left, err := os.ReadDir(r.pipes); err != nil || len(left) > 0 {
				t.Errorf("pipes are left: %v, %v", left, err)
			}
		})
		d.stop(t)
		d.leavesNothing(t)
	}
}

// execRoom is a container to run commands in.
type execRoom struct {
	socket, container, pipes string
	client                   *cri.Client
	exited                   string // a container that has ended
}

func newExecRoom(t *testing.T, d *daemon, app []byte) *execRoom {
	ctx := t.Context()
	store, err := Open(ctx, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	image := testImage{refs: []string{appRef, pauseRef}, files: map[string][]byte{"app": app}, entrypoint: []string{"/app", "run"}}
	if _, err := store.Load(ctx, writeTar(t, filepath.Join(t.TempDir(), "app.tar"), image.docker(t)), nil); err != nil {
		t.Fatal(err)
	}
	client, err := cri.Dial(ctx, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	host := &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "exec", Namespace: "test", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroupParent(t),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: host}},
	}
	sandbox, err := client.RunPodSandbox(ctx, pod, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := errors.Join(client.StopPodSandbox(ctx, sandbox), client.RemovePodSandbox(ctx, sandbox), client.Close()); err != nil {
			t.Error(err)
		}
	})
	start := func(name string, args ...string) string {
		id, err := client.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: appRef}, Command: append([]string{"/app"}, args...),
			Envs: []*runtimeapi.KeyValue{{Key: "COLOUR", Value: []byte("red")}, {Key: "PATH", Value: []byte("/usr/bin")}}, WorkingDir: "/usr",
			Mounts: []*runtimeapi.Mount{
				{HostPath: "/usr", ContainerPath: "/usr", Readonly: true}, {HostPath: "/usr/lib64", ContainerPath: "/lib64", Readonly: true},
				{HostPath: "/usr/lib", ContainerPath: "/lib", Readonly: true},
			},
			Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: host, RunAsUser: &runtimeapi.Int64Value{Value: 1234}}},
		}, pod)
		if err != nil {
			t.Fatal(err)
		}
		if err := client.StartContainer(ctx, id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	r := &execRoom{socket: d.socket, client: client, container: start("app", "run"), pipes: filepath.Join(d.dir, "pipes")}
	r.exited = start("short", "exit", "0")
	for containerStatus(t, client, r.exited).GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		if ctx.Err() != nil {
			t.Fatal("the short container does not end")
		}
	}
	return r
}

// sh is a command that the shell runs.
func (r *execRoom) sh(script string) Exec {
	return Exec{ContainerID: r.container, Command: []string{"/usr/bin/sh", "-c", script}, Dir: r.pipes}
}

// run runs a command and returns what it printed.
func (r *execRoom) run(t *testing.T, e Exec) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	e.Stdout, e.Stderr = &out, &errs
	code, err := e.Run(ctx, r.socket)
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

func (r *execRoom) streams(t *testing.T) {
	out, errs, code := r.run(t, r.sh("echo $COLOUR; pwd; id -u; echo broken >&2; cat; exit 7"))
	if out != "red\n/usr\n1234\n" || errs != "broken\n" || code != 7 {
		t.Errorf("%q, %q, exit code %d", out, errs, code)
	}
	if _, _, code := r.run(t, r.sh("kill -KILL $$")); code != 128+9 {
		t.Errorf("killed by SIGKILL: exit code %d, want 137", code)
	}
}

// input is read to its end, which the command sees; a command that does not want it is not waited for.
func (r *execRoom) input(t *testing.T) {
	e := r.sh("wc -c")
	e.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
	if out, _, _ := r.run(t, e); strings.TrimSpace(out) != "1048576" {
		t.Errorf("of a mebibyte the command read %q", out)
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	e = r.sh("exit 3")
	e.Stdin = reader // nothing ever comes
	if _, _, code := r.run(t, e); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}

func (r *execRoom) terminal(t *testing.T) {
	sizes := make(chan TerminalSize, 1)
	sizes <- TerminalSize{Columns: 101, Rows: 41}
	e := r.sh(`test -t 0 && test -t 1 && test -t 2 && until test "$(stty size)" = "41 101"; do :; done; echo $TERM; exit 4`)
	e.Terminal, e.Sizes = true, sizes
	e.Stdin = strings.NewReader("")
	if out, _, code := r.run(t, e); out != "xterm\r\n" || code != 4 {
		t.Errorf("%q, exit code %d", out, code)
	}
}

func (r *execRoom) signals(t *testing.T) {
	signals := make(chan syscall.Signal)
	e := r.sh("trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done")
	e.Signals = signals
	e.Stdout = &trigger{on: "ready", pull: func() { signals <- syscall.SIGINT }}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code, err := e.Run(ctx, r.socket)
	if err != nil || code != 9 {
		t.Errorf("exit code %d, %v; want 9", code, err)
	}
}

// cancelled ends a command that does not want to end.
func (r *execRoom) cancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	e := r.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done")
	e.Stdout = &trigger{on: "ready", pull: cancel}
	start := time.Now()
	code, err := e.Run(ctx, r.socket)
	if took := time.Since(start); err != nil || code != 137 || took < execStop || took > 5*execStop {
		t.Errorf("after %s: exit code %d, %v; want 137 after %s", took, code, err, execStop)
	}
}

// background leaves a process that holds the output open.
func (r *execRoom) background(t *testing.T) {
	start := time.Now()
	if out, _, code := r.run(t, r.sh("sleep 60 & echo done; exit 5")); out != "done\n" || code != 5 || time.Since(start) > 5*execDrain {
		t.Errorf("%q, exit code %d after %s", out, code, time.Since(start))
	}
}

func (r *execRoom) refused(t *testing.T) {
	for _, id := range []string{"nobody", r.exited} {
		e := r.sh("exit 0")
		e.ContainerID = id
		if _, err := e.Run(t.Context(), r.socket); !errors.Is(err, ErrNotRunning) {
			t.Errorf("in %s: %v, want %v", id, err, ErrNotRunning)
		}
	}
	e := Exec{ContainerID: r.container, Command: []string{"/no/such/program"}, Dir: r.pipes}
	if _, err := e.Run(t.Context(), r.socket); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("a program that is not there: %v", err)
	}
	if _, err := e.Run(t.Context(), filepath.Join(r.pipes, "no.sock")); err == nil {
		t.Error("without a containerd there was no error")
	}
}

// trigger acts once a text is written.
type trigger struct {
	on   string
	pull func()
	text string
	done bool
}

func (w *trigger) Write(p []byte) (int, error) {
	w.text += string(p)
	if !w.done && strings.Contains(w.text, w.on) {
		w.done = true
		w.pull()
	}
	return len(p), nil
}
