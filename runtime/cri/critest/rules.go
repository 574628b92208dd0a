package critest

import (
	"maps"
	"slices"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// noID is no id of any object.
const noID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func testSandboxNew(t *testing.T, c *contract) {
	before := time.Now()
	id := c.sandbox(3)
	s, err := c.Client.PodSandboxStatus(t.Context(), id)
	c.must(err)
	want := c.sandboxConfig(3)
	if s.GetState() != runtimeapi.PodSandboxState_SANDBOX_READY || s.GetMetadata().String() != want.GetMetadata().String() {
		t.Errorf("status %v, want ready and %v", s, want.GetMetadata())
	}
	if !maps.Equal(s.GetLabels(), want.GetLabels()) || !maps.Equal(s.GetAnnotations(), want.GetAnnotations()) {
		t.Errorf("labels %v and annotations %v, want what was given", s.GetLabels(), s.GetAnnotations())
	}
	if s.GetNetwork().GetIp() != "" {
		t.Errorf("a host network sandbox has the address %q, want none", s.GetNetwork().GetIp())
	}
	if got := time.Unix(0, s.GetCreatedAt()); got.Before(before) || got.After(time.Now()) {
		t.Errorf("created at %v, want nanoseconds of the epoch at about %v", got, before)
	}
}

func testSandboxFilters(t *testing.T, c *contract) {
	first, second := c.sandbox(0), c.sandbox(1)
	c.must(c.Client.StopPodSandbox(t.Context(), first))
	mine := map[string]string{"io.kubernetes.pod.name": c.name}
	ready := &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY}
	if got := c.sandboxIDs(&runtimeapi.PodSandboxFilter{LabelSelector: mine}); len(got) != 2 {
		t.Errorf("by label: %q, want both", got)
	}
	if got := c.sandboxIDs(&runtimeapi.PodSandboxFilter{LabelSelector: mine, State: ready}); !slices.Equal(got, []string{second}) {
		t.Errorf("by state: %q, want the ready one, %q", got, second)
	}
	if got := c.sandboxIDs(&runtimeapi.PodSandboxFilter{Id: first}); !slices.Equal(got, []string{first}) {
		t.Errorf("by id: %q, want %q", got, first)
	}
	if got := c.sandboxIDs(&runtimeapi.PodSandboxFilter{Id: noID}); got != nil {
		t.Errorf("by an id that is none: %q", got)
	}
	if got := c.sandboxIDs(nil); !slices.Contains(got, first) || !slices.Contains(got, second) {
		t.Errorf("without a filter: %q, want both among them", got)
	}
}

func testSandboxName(t *testing.T, c *contract) {
	id := c.sandbox(0)
	for _, state := range []string{"ready", "stopped"} {
		_, err := c.Client.RunPodSandbox(t.Context(), c.sandboxConfig(0), "")
		if !cri.IsNameReserved(err) || cri.ReservedFor(err) != id {
			t.Fatalf("same name while the first is %s: %v; want it reserved for %q", state, err, id)
		}
		c.must(c.Client.StopPodSandbox(t.Context(), id))
	}
	c.must(c.Client.RemovePodSandbox(t.Context(), id))
	if again := c.sandbox(0); again == id {
		t.Error("the id was used twice")
	}
}

func testSandboxRepeat(t *testing.T, c *contract) {
	id := c.sandbox(0)
	for range 2 {
		c.must(c.Client.StopPodSandbox(t.Context(), id))
	}
	s, err := c.Client.PodSandboxStatus(t.Context(), id)
	c.must(err)
	if s.GetState() != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("stopped sandbox is %v", s.GetState())
	}
	for range 2 {
		c.must(c.Client.RemovePodSandbox(t.Context(), id))
	}
	c.must(c.Client.StopPodSandbox(t.Context(), id))
}

func testNotFound(t *testing.T, c *contract) {
	_, err := c.Client.PodSandboxStatus(t.Context(), noID)
	c.mustBeNotFound(err, "status of a sandbox")
	_, err = c.Client.ContainerStatus(t.Context(), noID)
	c.mustBeNotFound(err, "status of a container")
	c.mustBeNotFound(c.Client.StartContainer(t.Context(), noID), "start of a container")
	_, err = c.Client.CreateContainer(t.Context(), noID, c.containerConfig(0, "/app", "run"), c.sandboxConfig(0))
	c.mustBeNotFound(err, "create in a sandbox")
	c.must(c.Client.StopContainer(t.Context(), noID, time.Second))
	c.must(c.Client.RemoveContainer(t.Context(), noID))
}

func testContainerNeedsSandbox(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	created := c.create(sandbox, 0, "/app", "run")
	c.must(c.Client.StopPodSandbox(t.Context(), sandbox))
	_, err := c.Client.CreateContainer(t.Context(), sandbox, c.containerConfig(1, "/app", "run"), c.sandboxConfig(0))
	c.mustFail(err, "create in a stopped sandbox")
	c.mustFail(c.Client.StartContainer(t.Context(), created), "start in a stopped sandbox")
	if got := c.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: sandbox}); !slices.Equal(got, []string{created}) {
		t.Errorf("containers %q, want only the one from before, %q", got, created)
	}
}

func testContainerNeedsImage(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	config := c.containerConfig(0, "/app", "run")
	config.Image.Image = "registry.invalid/absent:1"
	_, err := c.Client.CreateContainer(t.Context(), sandbox, config, c.sandboxConfig(0))
	c.mustFail(err, "create without the image")
	if got := c.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: sandbox}); got != nil {
		t.Errorf("a failed creation left %q", got)
	}
	c.create(sandbox, 0, "/app", "run") // nor did it leave the name reserved
}

func testContainerLife(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	id := c.create(sandbox, 0, "/app", "exit", "3")
	s := c.status(id)
	if s.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED || s.GetCreatedAt() == 0 || s.GetStartedAt() != 0 || s.GetFinishedAt() != 0 {
		t.Errorf("after create: %v", s)
	}
	want := c.containerConfig(0)
	if s.GetMetadata().String() != want.GetMetadata().String() || !maps.Equal(s.GetLabels(), want.GetLabels()) || !maps.Equal(s.GetAnnotations(), want.GetAnnotations()) {
		t.Errorf("after create: %v, want metadata, labels and annotations as given", s)
	}
	c.must(c.Client.StartContainer(t.Context(), id))
	s = c.exited(id)
	if s.GetExitCode() != 3 || s.GetReason() != "Error" {
		t.Errorf("exit code %d, reason %q; want 3, Error", s.GetExitCode(), s.GetReason())
	}
	// Started and finished may be the wrong way round by some microseconds: containerd stamps the start after the fact.
	if s.GetStartedAt() < s.GetCreatedAt() || s.GetFinishedAt() < s.GetCreatedAt() {
		t.Errorf("created %d, started %d, finished %d: created is not the first", s.GetCreatedAt(), s.GetStartedAt(), s.GetFinishedAt())
	}
}

func testContainerCompleted(t *testing.T, c *contract) {
	s := c.exited(c.run(c.sandbox(0), "/app", "exit", "0"))
	if s.GetExitCode() != 0 || s.GetReason() != "Completed" {
		t.Errorf("exit code %d, reason %q; want 0, Completed", s.GetExitCode(), s.GetReason())
	}
}

func testContainerStartedOnce(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "run")
	c.mustFail(c.Client.StartContainer(t.Context(), id), "start of a running container")
	if s := c.status(id); s.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING || s.GetStartedAt() == 0 {
		t.Errorf("after the second start: %v, want it to run on", s)
	}
	c.must(c.Client.StopContainer(t.Context(), id, 10*time.Second))
	c.mustFail(c.Client.StartContainer(t.Context(), id), "start of an exited container")
}

func testContainerName(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	id := c.run(sandbox, "/app", "exit", "0")
	c.exited(id)
	_, err := c.Client.CreateContainer(t.Context(), sandbox, c.containerConfig(0, "/app", "run"), c.sandboxConfig(0))
	if !cri.IsNameReserved(err) || cri.ReservedFor(err) != id {
		t.Fatalf("same name and attempt as an exited container: %v; want it reserved for %q", err, id)
	}
	c.create(sandbox, 1, "/app", "run") // another attempt is another name
	c.must(c.Client.RemoveContainer(t.Context(), id))
	c.create(sandbox, 0, "/app", "run")
}

func testContainerStartError(t *testing.T, c *contract) {
	id := c.create(c.sandbox(0), 0, "/no-such-program")
	c.mustFail(c.Client.StartContainer(t.Context(), id), "start of a program that does not exist")
	if s := c.status(id); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || s.GetExitCode() != 128 || s.GetReason() != "StartError" {
		t.Errorf("state %v, exit code %d, reason %q; want exited, 128, StartError", s.GetState(), s.GetExitCode(), s.GetReason())
	}
}

func testStopStubborn(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "stubborn")
	c.hasWritten(id) // by now it ignores the signal
	start := time.Now()
	c.must(c.Client.StopContainer(t.Context(), id, time.Second))
	if took := time.Since(start); took < 900*time.Millisecond {
		t.Errorf("stop took %s, want the grace of 1 s", took)
	}
	if s := c.status(id); s.GetState() != runtimeapi.ContainerState_CONTAINER_EXITED || s.GetExitCode() != 137 {
		t.Errorf("state %v, exit code %d; want exited, 137", s.GetState(), s.GetExitCode())
	}
}

func testStopIdle(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	created := c.create(sandbox, 0, "/app", "exit", "3")
	c.must(c.Client.StopContainer(t.Context(), created, time.Second))
	if s := c.status(created); s.GetState() != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("a created container is %v after stop", s.GetState())
	}
	c.must(c.Client.StartContainer(t.Context(), created))
	c.exited(created)
	c.must(c.Client.StopContainer(t.Context(), created, time.Second))
	if s := c.status(created); s.GetExitCode() != 3 {
		t.Errorf("an exited container has exit code %d after stop, want its own, 3", s.GetExitCode())
	}
}

func testRemoveRunning(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "stubborn")
	for range 2 {
		c.must(c.Client.RemoveContainer(t.Context(), id))
	}
	_, err := c.Client.ContainerStatus(t.Context(), id)
	c.mustBeNotFound(err, "status after remove")
}

func testSandboxTakesContainers(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	id := c.run(sandbox, "/app", "stubborn")
	c.must(c.Client.StopPodSandbox(t.Context(), sandbox))
	if s := c.exited(id); s.GetExitCode() != 137 {
		t.Errorf("exit code %d, want 137: a sandbox's stop has no grace", s.GetExitCode())
	}
	c.must(c.Client.RemovePodSandbox(t.Context(), sandbox))
	_, err := c.Client.ContainerStatus(t.Context(), id)
	c.mustBeNotFound(err, "status of a container of a removed sandbox")
}

func testContainerFilters(t *testing.T, c *contract) {
	sandbox := c.sandbox(0)
	exited := c.run(sandbox, "/app", "exit", "0")
	c.exited(exited)
	idle := c.create(sandbox, 1, "/app", "run")
	mine := map[string]string{"io.kubernetes.pod.name": c.name}
	state := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_EXITED}
	if got := c.containerIDs(&runtimeapi.ContainerFilter{LabelSelector: mine, State: state}); !slices.Equal(got, []string{exited}) {
		t.Errorf("by label and state: %q, want %q", got, exited)
	}
	if got := c.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: sandbox}); len(got) != 2 {
		t.Errorf("by sandbox: %q, want both", got)
	}
	if got := c.containerIDs(&runtimeapi.ContainerFilter{Id: idle}); !slices.Equal(got, []string{idle}) {
		t.Errorf("by id: %q, want %q", got, idle)
	}
	if got := c.containerIDs(&runtimeapi.ContainerFilter{PodSandboxId: noID}); got != nil {
		t.Errorf("by a sandbox that is none: %q", got)
	}
}

func testExec(t *testing.T, c *contract) {
	id := c.run(c.sandbox(0), "/app", "run")
	resp, err := c.Client.ExecSync(t.Context(), id, []string{"/app", "exit", "3"}, 10*time.Second)
	c.must(err)
	if resp.GetExitCode() != 3 {
		t.Errorf("exit code %d, want 3", resp.GetExitCode())
	}
	c.must(c.Client.StopContainer(t.Context(), id, 0))
	_, err = c.Client.ExecSync(t.Context(), id, []string{"/app", "exit", "3"}, 10*time.Second)
	c.mustFail(err, "a command in an exited container")
}
