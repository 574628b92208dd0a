package cri_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

func TestDialSaysWhatIsWrong(t *testing.T) {
	dir := critest.ShortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	silent := listen(t, filepath.Join(dir, "silent"), func(c net.Conn, end <-chan struct{}) { <-end; _ = c.Close() })
	rude := listen(t, filepath.Join(dir, "rude"), func(c net.Conn, _ <-chan struct{}) { _ = c.Close() })
	leftOver := filepath.Join(dir, "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: leftOver})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	starting := critest.New(critest.Options{})
	starting.Fail("*", status.Error(codes.Unavailable, "server is not initialized yet"), -1)
	stuck := critest.New(critest.Options{})
	stuck.Hang("Version")

	for _, c := range []struct{ name, endpoint, want string }{
		{"no socket", filepath.Join(dir, "none"), "the socket does not exist"},
		{"nobody listens", leftOver, "connection refused: the socket is left over"},
		{"a file", file, "not a socket but a regular file"},
		{"a directory", dir, "not a socket but a directory"},
		{"accepts and never answers", silent, "accepts connections but never answers"},
		{"hangs up", rude, "does not speak gRPC"},
		{"gRPC without CRI", serveNothing(t, filepath.Join(dir, "grpc")), "not a CRI v1 runtime"},
		{"still starting", critest.Serve(t, starting).Socket, "still starting"},
		{"stuck", critest.Serve(t, stuck).Socket, "took the call and did not answer"},
		{"other scheme", "tcp://127.0.0.1:1", `scheme "tcp" is not supported`},
		{"relative path", "run/containerd.sock", "absolute path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			client, err := cri.Dial(ctx, c.endpoint)
			if err == nil {
				_ = client.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.endpoint) {
				t.Errorf("error %q, want %q and the endpoint in it", err, c.want)
			}
		})
	}
}

// listen serves path with serve, one goroutine for each connection, until the test ends.
func listen(t *testing.T, path string, serve func(net.Conn, <-chan struct{})) string {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	t.Cleanup(func() { close(end); _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, end)
		}
	}()
	return path
}

func serveNothing(t *testing.T, path string) string {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return path
}

func TestDialTakesBothSpellings(t *testing.T) {
	socket := critest.Serve(t, critest.New(critest.Options{})).Socket
	for _, endpoint := range []string{socket, "unix://" + socket} {
		client, err := cri.Dial(t.Context(), endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := client.Version(t.Context()); err != nil || v.GetRuntimeName() != "critest" {
			t.Errorf("version %v, %v", v, err)
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestClientComesBackAfterTheRuntimeRestarts(t *testing.T) {
	server := critest.Serve(t, critest.New(critest.Options{}))
	client, err := cri.Dial(t.Context(), server.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server.Stop()
	if _, err := client.ListContainers(t.Context(), nil); !cri.IsUnavailable(err) {
		t.Fatalf("while the runtime is down: %v; want it unavailable at once", err)
	}
	server.Start(t)
	restarted := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := client.ListContainers(t.Context(), nil); err == nil {
			break
		} else if !cri.IsUnavailable(err) {
			t.Fatal(err)
		}
		if time.Since(restarted) > 5*time.Second {
			t.Fatal("the client did not come back")
		}
	}
}

func TestDeadlines(t *testing.T) {
	for _, c := range []struct {
		method string
		call   func(context.Context, *cri.Client) error
		want   time.Duration
	}{
		{"ListContainers", func(ctx context.Context, c *cri.Client) error { _, err := c.ListContainers(ctx, nil); return err }, 10 * time.Second},
		{"RemoveImage", func(ctx context.Context, c *cri.Client) error { return c.RemoveImage(ctx, "r") }, 2 * time.Minute},
		{"ImageFsInfo", func(ctx context.Context, c *cri.Client) error { _, err := c.ImageFsInfo(ctx); return err }, 10 * time.Second},
		{"ListImages", func(ctx context.Context, c *cri.Client) error { _, err := c.ListImages(ctx); return err }, 10 * time.Second},
		{"CreateContainer", func(ctx context.Context, c *cri.Client) error {
			_, err := c.CreateContainer(ctx, "s", nil, nil)
			return err
		}, 2 * time.Minute},
		{"RunPodSandbox", func(ctx context.Context, c *cri.Client) error {
			_, err := c.RunPodSandbox(ctx, nil, "")
			return err
		}, 4 * time.Minute},
		{"StopContainer", func(ctx context.Context, c *cri.Client) error { return c.StopContainer(ctx, "c", 30*time.Second) }, 150 * time.Second},
		{"ExecSync", func(ctx context.Context, c *cri.Client) error {
			_, err := c.ExecSync(ctx, "c", []string{"true"}, time.Second)
			return err
		}, 121 * time.Second},
	} {
		t.Run(c.method, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rt := critest.New(critest.Options{})
				rt.Hang(c.method)
				start := time.Now()
				err := c.call(t.Context(), cri.New(rt.Conn()))
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != c.want {
					t.Errorf("after %s: %v; want the deadline after %s", time.Since(start), err, c.want)
				}
			})
		})
	}
}

func TestErrorsReadAsTheRuntimesWords(t *testing.T) {
	rt := critest.New(critest.Options{})
	client := cri.New(rt.Conn())
	_, err := client.ContainerStatus(t.Context(), "0123456789abcdef0123")
	want := `asking for the status of container 0123456789abc: an error occurred when try to find container "0123456789abcdef0123": not found`
	if err == nil || err.Error() != want || !cri.IsNotFound(err) {
		t.Errorf("got  %v\nwant %s, and IsNotFound", err, want)
	}
	if _, err := client.RuntimeConfig(t.Context()); !errors.Is(err, cri.ErrUnimplemented) {
		t.Errorf("RuntimeConfig on a runtime without it: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.ListImages(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestStopAndRemoveOfWhatIsGone(t *testing.T) {
	rt := critest.New(critest.Options{})
	rt.Fail("*", status.Error(codes.NotFound, "an error occurred when try to find container: not found"), -1) // containerd 1.6
	client := cri.New(rt.Conn())
	for name, err := range map[string]error{
		"StopContainer":    client.StopContainer(t.Context(), "c", 0),
		"RemoveContainer":  client.RemoveContainer(t.Context(), "c"),
		"StopPodSandbox":   client.StopPodSandbox(t.Context(), "s"),
		"RemovePodSandbox": client.RemovePodSandbox(t.Context(), "s"),
		"RemoveImage":      client.RemoveImage(t.Context(), "i"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGraceIsRoundedUp(t *testing.T) {
	rt := critest.New(critest.Options{})
	if err := cri.New(rt.Conn()).StopContainer(t.Context(), "c", 1500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if got := rt.Calls("StopContainer")[0].Request.(*runtimeapi.StopContainerRequest).GetTimeout(); got != 2 {
		t.Errorf("timeout %d s, want 2: less than asked for would be a kill too early", got)
	}
}

func TestReservedFor(t *testing.T) {
	for text, want := range map[string]string{
		`failed to reserve container name "etcd_0": name "etcd_0" is reserved for "4f1c"`: "4f1c",
		`failed to reserve sandbox name etcd_0: name etcd_0 is reserved for 4f1c`:         "4f1c",
		`no such container`: "",
	} {
		err := errors.New(text)
		if got := cri.ReservedFor(err); got != want || cri.IsNameReserved(err) != (want != "") {
			t.Errorf("%s: reserved for %q, want %q", text, got, want)
		}
	}
}

func TestStartWithoutACaller(t *testing.T) {
	const refusal = `failed to set removing state for container "4f1c": container is in starting state, can't be removed`
	if !cri.IsStarting(fmt.Errorf("removing it: %w", errors.New(refusal))) || cri.IsStarting(errors.New("container is running")) || cri.IsStarting(nil) {
		t.Error("IsStarting does not tell a container that is being started from others")
	}
	const exited = runtimeapi.ContainerState_CONTAINER_EXITED
	for _, c := range []struct {
		st   *runtimeapi.ContainerStatus
		want bool
	}{
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create containerd task: failed to create shim task: context canceled: unknown"}, true},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create shim task: exec: no such file or directory: unknown"}, false},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "StartError", Message: "failed to create containerd task: failed to start shim: start failed: : signal: killed: unknown"}, true},
		{&runtimeapi.ContainerStatus{State: exited, Reason: "Error", Message: "context canceled"}, false},
		{&runtimeapi.ContainerStatus{State: runtimeapi.ContainerState_CONTAINER_CREATED}, false},
	} {
		if got := cri.StartCutOff(c.st); got != c.want {
			t.Errorf("%v: cut off: %v, want %v", c.st, got, c.want)
		}
	}
}

func TestCgroupDriver(t *testing.T) {
	systemd := runtimeapi.CgroupDriver_SYSTEMD
	info := func(config string) map[string]string { return map[string]string{"config": config} }
	for _, c := range []struct {
		name    string
		options critest.Options
		want    string
	}{
		{"told by RuntimeConfig", critest.Options{CgroupDriver: &systemd}, "systemd"},
		{"containerd 1.6, systemd", critest.Options{Info: info(`{"containerd":{"default_runtime_name":"runc","runtimes":{"runc":{"options":{"SystemdCgroup":true}}}}}`)}, "systemd"},
		{"containerd 1.7, another default runtime", critest.Options{Info: info(`{"containerd":{"defaultRuntimeName":"crun","runtimes":{"runc":{"options":{"SystemdCgroup":false}},"crun":{"options":{"SystemdCgroup":true}}}}}`)}, "systemd"},
		{"containerd's default", critest.Options{Info: info(`{"containerd":{"runtimes":{"runc":{"options":null}}}}`)}, "cgroupfs"},
		{"another runtime", critest.Options{Info: info(`"x"`)}, ""},
		{"nothing", critest.Options{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := cri.New(critest.New(c.options).Conn()).CgroupDriver(t.Context())
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	version := func(name, release string) *runtimeapi.VersionResponse {
		return &runtimeapi.VersionResponse{RuntimeName: name, RuntimeVersion: release}
	}
	handler := func(name string, rro, userns bool) *runtimeapi.RuntimeHandler {
		return &runtimeapi.RuntimeHandler{Name: name, Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: rro, UserNamespaces: userns}}
	}
	for _, c := range []struct {
		name    string
		options critest.Options
		want    cri.Features
	}{
		{"containerd 1.6 tells by its configuration", critest.Options{
			Version: version("containerd", "1.6.20~ds1"), Info: map[string]string{"config": `{"containerd":{"runtimes":{"runc":{},"gvisor":{}}}}`},
		}, cri.Features{Handlers: []string{"gvisor", "runc"}}},
		{"containerd 2.0", critest.Options{
			Version: version("containerd", "v2.0.9"), Handlers: []*runtimeapi.RuntimeHandler{handler("", true, false), handler("runc", true, false)},
		}, cri.Features{Handlers: []string{"runc"}, RecursiveReadOnly: true}},
		{"the default handler counts, not another", critest.Options{
			Version: version("containerd", "v2.1.0"), Handlers: []*runtimeapi.RuntimeHandler{handler("runc", false, false), handler("crun", true, false), handler("", false, true)},
		}, cri.Features{Handlers: []string{"crun", "runc"}, UserNamespaces: true, ImageVolumes: true}},
		{"a handler that could not be asked", critest.Options{
			Version: version("containerd", "v2.4.2"), Handlers: []*runtimeapi.RuntimeHandler{{Name: ""}, {Name: "runc"}},
		}, cri.Features{Handlers: []string{"runc"}, ImageVolumes: true, StopSignals: true}},
		{"stop signals came with containerd 2.4", critest.Options{
			Version: version("containerd", "v2.3.9"), Handlers: []*runtimeapi.RuntimeHandler{{Name: "runc"}},
		}, cri.Features{Handlers: []string{"runc"}, ImageVolumes: true}},
		{"another runtime of a high version", critest.Options{Version: version("other", "9.0.0")}, cri.Features{}},
		{"a version that is none", critest.Options{Version: version("containerd", "main")}, cri.Features{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := cri.New(critest.New(c.options).Conn()).Features(t.Context())
			if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestUsedImages: an image that is only mounted is in use, and so is the one of sandboxes.
func TestUsedImages(t *testing.T) {
	for release, want := range map[string][]string{
		"v2.4.2": {"app", "data", "pause"},
		"v1.7.0": {"app", "pause"}, // which mounts no images
	} {
		rt := critest.New(critest.Options{
			Images: []string{"app"}, Version: &runtimeapi.VersionResponse{RuntimeName: "containerd", RuntimeVersion: release},
			Info: map[string]string{"config": `{"sandboxImage":"pause"}`},
		})
		client := cri.New(rt.Conn())
		pod := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: "u"}}
		sandbox, err := client.RunPodSandbox(t.Context(), pod, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "c"}, Image: &runtimeapi.ImageSpec{Image: "app"},
			Mounts: []*runtimeapi.Mount{{ContainerPath: "/data", Image: &runtimeapi.ImageSpec{Image: "data"}}, {ContainerPath: "/x", HostPath: "/x"}},
		}, pod); err != nil {
			t.Fatal(err)
		}
		got, err := client.UsedImages(t.Context())
		got = slices.DeleteFunc(got, func(ref string) bool { return strings.HasPrefix(ref, "sha256:") })
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("containerd %s: %v (-want +got):\n%s", release, err, diff)
		}
		rt.Fail("ListContainers", errors.New("no"), 1)
		if _, err := client.UsedImages(t.Context()); err == nil {
			t.Error("a listing that failed counts as nothing in use")
		}
	}
}
