package critest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

const (
	image   = "example.com/app:1"
	spare   = "example.com/spare:1"
	sandbox = "example.com/pause:1"
)

func newRuntime() *critest.Runtime {
	rt := critest.New(critest.Options{Images: []string{image, spare, sandbox}, SandboxImage: sandbox, Logs: true, Program: critest.App})
	rt.NameImage(spare, "example.com/spare:also")
	rt.OnExec("app", func([]string) (*runtimeapi.ExecSyncResponse, error) {
		return &runtimeapi.ExecSyncResponse{ExitCode: 3}, nil
	})
	return rt
}

func TestContractOverSocket(t *testing.T) {
	rt := newRuntime()
	client, err := cri.Dial(t.Context(), "unix://"+critest.Serve(t, rt).Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	critest.RunContract(t, critest.Target{Client: client, Image: image, Spare: spare, SandboxImage: sandbox, Dir: t.TempDir()})
}

func TestContractInProcess(t *testing.T) {
	critest.RunContract(t, critest.Target{Client: cri.New(newRuntime().Conn()), Image: image, Spare: spare, SandboxImage: sandbox, Dir: t.TempDir()})
}

func sandboxConfig() *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "etcd", Namespace: "kube-system", Uid: "u"}}
}

func running(t *testing.T, rt *critest.Runtime) (client *cri.Client, sandbox, container string) {
	t.Helper()
	client = cri.New(rt.Conn())
	sandbox, err := client.RunPodSandbox(t.Context(), sandboxConfig(), "")
	if err != nil {
		t.Fatal(err)
	}
	container, err = client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "etcd"}, Image: &runtimeapi.ImageSpec{Image: image}, Command: []string{"/app", "run"},
	}, sandboxConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.StartContainer(t.Context(), container); err != nil {
		t.Fatal(err)
	}
	return client, sandbox, container
}

func TestControls(t *testing.T) {
	rt := newRuntime()
	var events []string
	rt.OnEvent(func(e critest.Event) { events = append(events, e.Topic) })
	client, sandbox, container := running(t, rt)

	if !rt.Exit("etcd", 2) || rt.Exit("etcd", 2) {
		t.Error("Exit must find the container while it runs, and only then")
	}
	if s, err := client.ContainerStatus(t.Context(), container); err != nil || s.GetExitCode() != 2 {
		t.Errorf("after Exit: %v, %v", s, err)
	}
	if !rt.KillSandbox("etcd") || rt.KillSandbox(sandbox) {
		t.Error("KillSandbox must find the sandbox while it is ready, and only then")
	}
	want := []string{"/containers/create", "/tasks/start", "/containers/create", "/tasks/start", "/tasks/exit", "/tasks/exit"}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	var methods []string
	for _, c := range rt.Calls("RunPodSandbox", "StartContainer") {
		methods = append(methods, c.Method)
	}
	if diff := cmp.Diff([]string{"RunPodSandbox", "StartContainer"}, methods); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	rt := newRuntime()
	client := cri.New(rt.Conn())
	rt.Fail("RunPodSandbox", errors.New("no space left"), 1)
	if _, err := client.RunPodSandbox(t.Context(), sandboxConfig(), ""); err == nil || !strings.HasSuffix(err.Error(), "no space left") {
		t.Errorf("failing call: %v", err)
	}
	rt.Lose("RunPodSandbox", 1)
	if _, err := client.RunPodSandbox(t.Context(), sandboxConfig(), ""); !cri.IsUnavailable(err) {
		t.Errorf("lost answer: %v", err)
	}
	if _, err := client.RunPodSandbox(t.Context(), sandboxConfig(), ""); !cri.IsNameReserved(err) {
		t.Errorf("after a lost answer: %v; want the name reserved by what the lost call made", err)
	}
}

// TestHangEndsWithTheDeadline runs on synctest's clock: an in-process runtime has no goroutine or socket of its own.
func TestHangEndsWithTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRuntime()
		client := cri.New(rt.Conn())
		release := rt.Hang("ListContainers")
		start := time.Now()
		_, err := client.ListContainers(t.Context(), nil)
		if !errors.Is(err, context.DeadlineExceeded) || err.Error() != "listing containers: no answer from the container runtime within 10s" {
			t.Errorf("hanging call: %v", err)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it took %s", took)
		}
		release()
		if _, err := client.ListContainers(t.Context(), nil); err != nil {
			t.Errorf("after release: %v", err)
		}
	})
}

func TestStopTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rt := newRuntime()
		client, _, container := running(t, rt)
		rt.StopTakes("etcd", 5*time.Second, 0)
		start := time.Now()
		if err := client.StopContainer(t.Context(), container, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		s, err := client.ContainerStatus(t.Context(), container)
		if took := time.Since(start); took != 5*time.Second || err != nil || s.GetReason() != "Completed" {
			t.Errorf("it took %s and ended as %v (%v), want 5s and completed", took, s, err)
		}
	})
}

func TestPull(t *testing.T) {
	rt := newRuntime()
	client := cri.New(rt.Conn())
	if _, err := client.PullImage(t.Context(), "example.com/new:1", nil); !cri.IsNotFound(err) {
		t.Errorf("pull of what the registry lacks: %v", err)
	}
	rt.OnPull("example.com/new:1", nil)
	id, err := client.PullImage(t.Context(), "example.com/new:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.ImageStatus(t.Context(), "example.com/new:1"); err != nil || got.GetId() != id {
		t.Errorf("after the pull: %v, %v; want id %q", got, err, id)
	}
}

// TestWriteLog: what a container writes goes to the file that was opened, not to the path.
func TestWriteLog(t *testing.T) {
	rt := newRuntime()
	client, dir := cri.New(rt.Conn()), t.TempDir()
	pod := sandboxConfig()
	pod.LogDirectory = dir
	box, err := client.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := client.CreateContainer(t.Context(), box, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "etcd"}, Image: &runtimeapi.ImageSpec{Image: image}, Command: []string{"/app", "run"}, LogPath: "0.log",
	}, pod)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.WriteLog(id, "early\n"); err == nil {
		t.Error("a container that was not started has a log")
	}
	log := filepath.Join(dir, "0.log")
	for _, step := range []func() error{
		func() error { return client.StartContainer(t.Context(), id) },
		func() error { return rt.WriteLog(id, "one\n") },
		func() error { return os.Rename(log, log+".moved") },
		func() error { return rt.WriteLog(id, "two\n") },
		func() error { return client.ReopenContainerLog(t.Context(), id) },
		func() error { return rt.WriteLog(id, "three\n") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{log + ".moved": " stdout F ready\none\ntwo\n", log: "three\n"} {
		if got, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(got), want) {
			t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
		}
	}
	rt.Exit(id, 0)
	if err := rt.WriteLog(id, "late\n"); err == nil {
		t.Error("an exited container writes")
	}
}
