//go:build e2e

// These tests run real containerds, each with a root, state and socket of its own: the one on PATH, and those in the
// directories listed in SLIPWAY_TEST_CONTAINERD (as in PATH; each holds containerd and containerd-shim-runc-v2). They
// need root and runc.

package containerd

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

const (
	appRef   = "slipway.test/app:1"
	pauseRef = "slipway.test/pause:1"
	spareRef = "slipway.test/spare:1"
)

// daemon is a containerd under test.
type daemon struct {
	dir, path string // of its files; the PATH it runs with
	socket    string
	cmd       *exec.Cmd
}

func TestContainerd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("containerd needs root")
	}
	removeSharedDirs(t)
	app := buildProgram(t, "./testdata/app")
	for _, path := range searchPaths() {
		d := startDaemon(t, path)
		_, version, err := Version(t.Context(), d.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(version, func(t *testing.T) {
			store, err := Open(t.Context(), d.socket)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			t.Run("load", func(t *testing.T) { testLoad(t, store, app) })
			t.Run("pull", func(t *testing.T) { testPull(t, store, app) })
			t.Run("contract", func(t *testing.T) { testContract(t, d, store, app) })
			t.Run("rotation", func(t *testing.T) { testRotation(t, d, store) })
			t.Run("events", func(t *testing.T) { testEvents(t, d) })
			t.Run("stray", func(t *testing.T) { testStray(t, d) })
		})
		d.stop(t)
		d.leavesNothing(t)
	}
}

// searchPaths returns a PATH for each containerd to test.
func searchPaths() []string {
	paths := []string{os.Getenv("PATH")}
	for _, bin := range filepath.SplitList(os.Getenv("SLIPWAY_TEST_CONTAINERD")) {
		paths = append(paths, bin+":"+paths[0])
	}
	return paths
}

// removeSharedDirs takes away the directory that shims before containerd 2.4 have their sockets in, if there was none
// before the test and nobody else uses it after.
func removeSharedDirs(t *testing.T) {
	const dir = "/run/containerd"
	if _, err := os.Stat(dir); err == nil {
		return
	}
	t.Cleanup(func() {
		_ = os.Remove(dir + "/s")
		_ = os.Remove(dir)
	})
}

// buildProgram returns a program built of the package in dir, for a test image.
func buildProgram(t *testing.T, dir string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", out, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the test program in %s: %v\n%s", dir, err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// startDaemon starts a containerd in a directory of its own, which the preparations see before.
func startDaemon(t *testing.T, path string, prepare ...func(t *testing.T, dir string)) *daemon {
	t.Helper()
	dir := critest.ShortDir(t)
	for _, p := range prepare {
		p(t, dir)
	}
	d := &daemon{dir: dir, path: path, socket: filepath.Join(dir, "c.sock")}
	facts, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "config.toml"), Config(ConfigOptions{
		Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Socket: d.socket, SandboxImage: pauseRef, Facts: facts,
	}))
	d.start(t)
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Logf("containerd's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	argv := Command(filepath.Join(d.dir, "config.toml"))
	d.cmd = exec.Command(filepath.Join(d.program(t, argv[0])), argv[1:]...)
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = append(os.Environ(), "PATH="+d.path), log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	start := time.Now()
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := WaitReady(ctx, d.socket); err != nil {
		t.Fatal(err)
	}
	t.Logf("containerd was ready after %s", time.Since(start).Round(time.Millisecond))
}

// program looks name up on the daemon's own PATH.
func (d *daemon) program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range filepath.SplitList(d.path) {
		if path := filepath.Join(dir, name); exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	t.Fatalf("no %s on %s", name, d.path)
	return ""
}

func (d *daemon) stop(t *testing.T) {
	t.Helper()
	if d.cmd == nil {
		return
	}
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("stopping containerd: %v", err)
	}
	timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
}

// leavesNothing fails the test for a mount or a process of this daemon.
func (d *daemon) leavesNothing(t *testing.T) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[1], d.dir) {
			t.Errorf("a mount is left: %s", line)
			_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		if cmdline, err := os.ReadFile(p); err == nil && bytes.Contains(cmdline, []byte(d.dir)) {
			t.Errorf("a process is left: %s %q", p, cmdline)
		}
	}
}

func testLoad(t *testing.T, s *Store, app []byte) {
	dir := t.TempDir()
	appImage := testImage{refs: []string{appRef}, files: map[string][]byte{"app": app}}
	pauseImage := testImage{refs: []string{pauseRef, "slipway.test/pause:also"}, files: map[string][]byte{"app": app}, entrypoint: []string{"/app", "run"}}
	refs := []string{appRef, pauseRef, "slipway.test/pause:also", "slipway.test/absent:1"}

	has, err := s.Has(t.Context(), refs)
	if err != nil || has[appRef] || has[pauseRef] {
		t.Fatalf("before: %v, %v", has, err)
	}
	var wait sync.WaitGroup // at once, with a layer of the same name in both
	for _, path := range []string{
		writeGzip(t, filepath.Join(dir, "app.tar.gz"), appImage.docker(t)),
		writeTar(t, filepath.Join(dir, "pause.tar"), pauseImage.docker(t)),
	} {
		wait.Go(func() {
			var last int64
			start := time.Now()
			got, err := s.Load(t.Context(), path, func(done, _ int64, _ string) { last = max(last, done) })
			if err != nil {
				t.Error(err)
				return
			}
			t.Logf("loading %s took %s", filepath.Base(path), time.Since(start).Round(time.Millisecond))
			archive, err := Inspect(path)
			slices.Sort(got)
			if err != nil || !slices.Equal(got, archive.Refs()) {
				t.Errorf("loaded %q, Inspect had said %q (%v)", got, archive.Refs(), err)
			}
			if info, err := os.Stat(path); err != nil || last != info.Size() {
				t.Errorf("progress ended at %d of %d bytes (%v)", last, info.Size(), err)
			}
		})
	}
	wait.Wait()
	if has, err = s.Has(t.Context(), refs); err != nil || !has[appRef] || !has[pauseRef] || !has["slipway.test/pause:also"] || has["slipway.test/absent:1"] {
		t.Errorf("after: %v, %v", has, err)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("list %v, %v; want three names", list, err)
	}
	if got := list[0]; got.Ref != appRef || got.ID != appImage.id(t) || !strings.HasPrefix(got.Digest, "sha256:") || got.Size == 0 {
		t.Errorf("list begins with %+v, want %s with id %s", got, appRef, appImage.id(t))
	}

	// The OCI layouts are the same images: loading them over the others must change nothing that can be seen.
	for _, path := range []string{
		writeTar(t, filepath.Join(dir, "oci.tar"), appImage.oci(t)),
		writeDir(t, filepath.Join(dir, "oci"), pauseImage.oci(t)),
	} {
		if _, err := s.Load(t.Context(), path, nil); err != nil {
			t.Error(err)
		}
	}
	again, err := s.List(t.Context())
	if err != nil || len(again) != 3 || again[0].ID != list[0].ID {
		t.Errorf("after loading the same again: %v, %v", again, err)
	}
	if _, err := s.Load(t.Context(), writeTar(t, filepath.Join(dir, "nameless.tar"), testImage{}.docker(t)), nil); err == nil {
		t.Error("an archive without a name was loaded")
	}
}

// testPull uses a registry on the loopback address, which containerd talks plain HTTP to.
func testPull(t *testing.T, s *Store, app []byte) {
	image := testImage{files: map[string][]byte{"app": app}}
	layer, config := image.parts(t)
	manifest := image.manifest(t)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/secret/"):
			w.WriteHeader(http.StatusForbidden)
		case r.URL.Path == "/v2/":
		case strings.HasSuffix(r.URL.Path, "/app/manifests/1"), strings.HasSuffix(r.URL.Path, digest(manifest)):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			w.Header().Set("Docker-Content-Digest", digest(manifest))
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(manifest))
		case strings.HasSuffix(r.URL.Path, digest(config)):
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(config))
		case strings.HasSuffix(r.URL.Path, digest(layer)):
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer registry.Close()
	host := strings.TrimPrefix(registry.URL, "http://")

	if err := s.Pull(t.Context(), host+"/app:1", nil); err != nil {
		t.Fatal(err)
	}
	if has, err := s.Has(t.Context(), []string{host + "/app:1"}); err != nil || !has[host+"/app:1"] {
		t.Errorf("after the pull: %v, %v", has, err)
	}
	for ref, want := range map[string]error{
		host + "/absent:1":    ErrNotFound,
		host + "/secret/x:1":  ErrDenied,
		"127.0.0.1:1/none:1":  ErrUnreachable,
		"registry.invalid/x:": nil,
	} {
		err := s.Pull(t.Context(), ref, nil)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("pulling %s: %v; want %v", ref, err, want)
		}
	}
}

func testContract(t *testing.T, d *daemon, store *Store, app []byte) {
	client, err := cri.Dial(t.Context(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if driver, err := client.CgroupDriver(t.Context()); err != nil || driver != "cgroupfs" {
		t.Errorf("cgroup driver %q, %v", driver, err)
	}
	features, err := client.Features(t.Context())
	if err != nil || !slices.Equal(features.Handlers, []string{"runc"}) {
		t.Errorf("features %+v, %v; want the handler runc", features, err)
	}
	t.Logf("features: %+v", features)
	if _, release, err := Version(t.Context(), d.socket); err != nil || features.ImageVolumes != strings.HasPrefix(release, "v2.4") {
		t.Errorf("version %s, features %+v (%v); of those tested, only v2.4 mounts images", release, features, err)
	}
	spare := testImage{refs: []string{spareRef, "slipway.test/spare:also"}, files: map[string][]byte{"app": app, "spare": {1}}}
	if _, err := store.Load(t.Context(), writeTar(t, filepath.Join(t.TempDir(), "spare.tar"), spare.docker(t)), nil); err != nil {
		t.Fatal(err)
	}
	critest.RunContract(t, critest.Target{
		Client: client, Image: appRef, Spare: spareRef, SandboxImage: pauseRef, Dir: filepath.Join(d.dir, "logs"), CgroupParent: cgroupParent(t),
	})
}

// cgroupParent is removed after the test: containers leave their parents behind.
func cgroupParent(t *testing.T) string {
	name := "slipway-test-" + filepath.Base(t.TempDir())
	t.Cleanup(func() {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
		for _, dir := range append(dirs, "/sys/fs/cgroup/"+name) {
			_ = os.Remove(dir)
		}
	})
	return "/" + name
}

// testEvents also shows that pods outlive containerd, and that CRI agrees with an exit when it is told.
func testEvents(t *testing.T, d *daemon) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	hints, err := Events(ctx, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	want(t, hints, Hint{Topic: Resync})
	client, err := cri.Dial(ctx, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	sandbox, container := createApp(ctx, t, client, "events")
	defer func() {
		if err := client.RemovePodSandbox(ctx, sandbox); err != nil {
			t.Error(err)
		}
	}()
	if err := client.StartContainer(ctx, container); err != nil {
		t.Fatal(err)
	}
	want(t, hints, Hint{ContainerID: container, Topic: "/tasks/start"})
	if _, err := client.ExecSync(ctx, container, []string{"/app", "exit", "0"}, time.Second); err != nil {
		t.Fatal(err)
	}

	d.stop(t)
	d.start(t)
	want(t, hints, Hint{Topic: Resync})
	// No exit came: neither the command's end nor the restart was the container's.
	before := containerStatus(t, client, container)
	if before.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		t.Fatalf("after containerd's restart the container is %v", before.GetState())
	}

	stopped := make(chan error, 1)
	go func() { stopped <- client.StopContainer(ctx, container, 10*time.Second) }()
	if early := want(t, hints, Hint{ContainerID: container, Topic: Exiting}); early.Exit == nil || time.Since(early.Exit.At) > time.Minute {
		t.Errorf("the first hint of the exit has %v", early.Exit)
	}
	want(t, hints, Hint{ContainerID: container, Topic: "/tasks/exit"})
	if s := containerStatus(t, client, container); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("at the hint of its exit the container is %v", s.GetState())
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := client.StopPodSandbox(ctx, sandbox); err != nil {
		t.Error(err)
	}
	want(t, hints, Hint{ContainerID: sandbox, Topic: "/tasks/exit"})
}

// createApp makes a pod with one container, which is not started. The caller removes the sandbox.
func createApp(ctx context.Context, t *testing.T, client *cri.Client, name string) (sandbox, container string) {
	t.Helper()
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: "u"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroupParent(t), SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
	sandbox, err := client.RunPodSandbox(ctx, pod, "")
	if err != nil {
		t.Fatal(err)
	}
	container, err = client.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"}, Image: &runtimeapi.ImageSpec{Image: appRef}, Command: []string{"/app", "run"},
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}, pod)
	if err != nil {
		t.Fatal(err)
	}
	return sandbox, container
}

// testStray gives a container that has ended a process behind the CRI's back, as a start that was cut off does.
func testStray(t *testing.T, d *daemon) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := cri.Dial(ctx, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	runtime, err := Reach(client, d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.Close()
	sandbox, container := createApp(ctx, t, client, "stray")
	defer func() {
		if err := runtime.RemovePodSandbox(ctx, sandbox); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(runtime.StartContainer(ctx, container), runtime.StopContainer(ctx, container, 0)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, "ctr", "-a", d.socket, "-n", namespace, "tasks", "start", "--detach", "--null-io", container).CombinedOutput(); err != nil {
		t.Fatalf("starting a stray process: %v\n%s", err, out)
	}
	if s := containerStatus(t, client, container); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Fatalf("the container is %v", s.GetState())
	}
	if err := client.RemoveContainer(ctx, container); !cri.IsStray(err) {
		t.Fatalf("the CRI alone removes it: %v", err)
	}
	if err := runtime.RemoveContainer(ctx, container); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ContainerStatus(ctx, container); !cri.IsNotFound(err) {
		t.Errorf("after its removal: %v", err)
	}
}

func containerStatus(t *testing.T, client *cri.Client, id string) *runtimeapi.ContainerStatus {
	t.Helper()
	s, err := client.ContainerStatus(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// want reads hints until the one that is awaited, and fails for an exit that is not.
func want(t *testing.T, hints <-chan Hint, awaited Hint) Hint {
	t.Helper()
	for hint := range hints {
		if hint.ContainerID == awaited.ContainerID && hint.Topic == awaited.Topic {
			return hint
		}
		if hint.Topic == "/tasks/exit" {
			t.Fatalf("got %v while waiting for %v", hint, awaited)
		}
	}
	t.Fatalf("the hints ended before %v", awaited)
	return Hint{}
}
