package critest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// Target is a runtime that RunContract is to try.
type Target struct {
	Client *cri.Client
	// Image is present and holds the program /app: "/app run" says "ready" and runs until it is told to stop, "/app
	// stubborn" does so until it is killed, "/app exit N" exits with N at once.
	Image string
	// Spare is an image that is present and used by nothing. The contract removes it.
	Spare string
	// SandboxImage is what the runtime makes sandboxes of; "" when it has none.
	SandboxImage string
	// Dir is for log files; the runtime can write there.
	Dir string
	// CgroupParent of the sandboxes.
	CgroupParent string
}

// App is Options.Program for Target.Image.
func App(config *runtimeapi.ContainerConfig) Outcome {
	switch cmd := config.GetCommand(); {
	case len(cmd) == 0 || cmd[0] != "/app":
		return Outcome{Err: errors.New("executable file not found")}
	case slices.Equal(cmd[1:], []string{"exit", "0"}):
		return Outcome{Exits: true}
	case slices.Equal(cmd[1:], []string{"exit", "3"}):
		return Outcome{Exits: true, Code: 3}
	default:
		return Outcome{Says: "ready", IgnoresStop: slices.Equal(cmd[1:], []string{"stubborn"})}
	}
}

// RunContract tries what slipway relies on in a runtime. It leaves no sandbox behind.
func RunContract(t *testing.T, target Target) {
	for _, c := range []struct {
		rule string
		test func(*testing.T, *contract)
	}{
		{"a new sandbox is ready and carries what it was given", testSandboxNew},
		{"sandboxes are listed by id, state and label", testSandboxFilters},
		{"a sandbox's name is reserved until it is removed", testSandboxName},
		{"stop and remove of sandboxes can be repeated", testSandboxRepeat},
		{"what does not exist is not found", testNotFound},
		{"a container needs a ready sandbox", testContainerNeedsSandbox},
		{"a container needs its image", testContainerNeedsImage},
		{"a container is created, runs and exits", testContainerLife},
		{"an exit code of 0 is a completion", testContainerCompleted},
		{"a container is started once", testContainerStartedOnce},
		{"a container's name is reserved until it is removed", testContainerName},
		{"a container that cannot start is left exited", testContainerStartError},
		{"stop waits for the grace, then kills", testStopStubborn},
		{"stop of what does not run changes nothing", testStopIdle},
		{"a running container is removed by force", testRemoveRunning},
		{"stopping a sandbox ends its containers, removing it removes them", testSandboxTakesContainers},
		{"containers are listed by sandbox, state and label", testContainerFilters},
		{"a started container has its log file", testLogFile},
		{"a log that was moved is written on until it is opened anew", testReopenLog},
		{"a log is opened anew only while its container runs", testReopenNothing},
		{"a command in a container gives its exit code", testExec},
		{"an absent image is no error", testImages},
		{"an image is removed with all its names", testRemoveImage},
		{"the images of containers and sandboxes are in use", testUsedImages},
		{"a pod is known by its uid until its sandbox is removed", testInventory},
		{"images are on a file system that can be looked at", testImageFileSystem},
	} {
		t.Run(c.rule, func(t *testing.T) { c.test(t, &contract{Target: target, t: t, name: podName(c.rule)}) })
	}
}

// contract is one rule's view of the target: a pod name of its own, and helpers that end the test on an error.
type contract struct {
	Target
	t    *testing.T
	name string
}

func podName(rule string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, rule)
}

func (c *contract) sandboxConfig(attempt uint32) *runtimeapi.PodSandboxConfig {
	return &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: c.name, Namespace: "contract", Uid: "uid-" + c.name, Attempt: attempt},
		LogDirectory: filepath.Join(c.Dir, c.name),
		Labels:       map[string]string{"io.kubernetes.pod.name": c.name},
		Annotations:  map[string]string{"example.com/any": "value"},
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    c.CgroupParent,
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: hostNetwork()},
		},
	}
}

// hostNetwork is what control-plane pods have; it needs no CNI.
func hostNetwork() *runtimeapi.NamespaceOption {
	return &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER}
}

func (c *contract) containerConfig(attempt uint32, cmd ...string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: "app", Attempt: attempt},
		Image:       &runtimeapi.ImageSpec{Image: c.Image},
		Command:     cmd,
		Labels:      map[string]string{"io.kubernetes.pod.name": c.name, "io.kubernetes.container.name": "app"},
		Annotations: map[string]string{"io.kubernetes.container.hash": "1234"},
		LogPath:     "app.log",
		Linux: &runtimeapi.LinuxContainerConfig{
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: hostNetwork()},
		},
	}
}

func (c *contract) sandbox(attempt uint32) string {
	c.t.Helper()
	if err := os.MkdirAll(filepath.Join(c.Dir, c.name), 0o755); err != nil {
		c.t.Fatal(err)
	}
	id, err := c.Client.RunPodSandbox(c.t.Context(), c.sandboxConfig(attempt), "")
	c.must(err)
	c.t.Cleanup(func() {
		if err := c.Client.RemovePodSandbox(context.WithoutCancel(c.t.Context()), id); err != nil {
			c.t.Errorf("cleaning up: %v", err)
		}
	})
	return id
}

func (c *contract) create(sandbox string, attempt uint32, cmd ...string) string {
	c.t.Helper()
	id, err := c.Client.CreateContainer(c.t.Context(), sandbox, c.containerConfig(attempt, cmd...), c.sandboxConfig(0))
	c.must(err)
	return id
}

func (c *contract) run(sandbox string, cmd ...string) string {
	c.t.Helper()
	id := c.create(sandbox, 0, cmd...)
	c.must(c.Client.StartContainer(c.t.Context(), id))
	return id
}

func (c *contract) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *contract) mustFail(err error, what string) {
	c.t.Helper()
	if err == nil {
		c.t.Fatalf("%s: no error", what)
	}
}

func (c *contract) mustBeNotFound(err error, what string) {
	c.t.Helper()
	if !cri.IsNotFound(err) {
		c.t.Errorf("%s: IsNotFound is false for: %v", what, err)
	}
}

func (c *contract) status(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	status, err := c.Client.ContainerStatus(c.t.Context(), id)
	c.must(err)
	return status
}

// exited waits until the container has ended. A real one needs a moment.
func (c *contract) exited(id string) *runtimeapi.ContainerStatus {
	c.t.Helper()
	var s *runtimeapi.ContainerStatus
	c.await("the container did not exit", func() bool {
		s = c.status(id)
		return s.GetState() == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return s
}

// hasWritten waits until something is in the container's log.
func (c *contract) hasWritten(id string) {
	c.t.Helper()
	log := c.status(id).GetLogPath()
	c.await("the container wrote nothing", func() bool {
		info, err := os.Stat(log)
		return err == nil && info.Size() > 0
	})
}

func (c *contract) await(failure string, done func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.t.Fatal(failure + " within 30 s")
		}
	}
}

func (c *contract) sandboxIDs(filter *runtimeapi.PodSandboxFilter) []string {
	c.t.Helper()
	list, err := c.Client.ListPodSandbox(c.t.Context(), filter)
	c.must(err)
	var ids []string
	for _, s := range list {
		ids = append(ids, s.GetId())
	}
	return ids
}

func (c *contract) containerIDs(filter *runtimeapi.ContainerFilter) []string {
	c.t.Helper()
	list, err := c.Client.ListContainers(c.t.Context(), filter)
	c.must(err)
	var ids []string
	for _, x := range list {
		ids = append(ids, x.GetId())
	}
	return ids
}
