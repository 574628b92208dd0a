//go:build e2e || bench

package podtest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// podNameLabel is the kubelet's, spelled out so that the harness does not hang on the code under test.
const podNameLabel = "io.kubernetes.pod.name"

// Put writes a manifest as a careful tool does: a file of another name first, then a rename.
func (n *Node) Put(name, manifest string) {
	n.t.Helper()
	hidden := filepath.Join(n.Manifests, "."+name+".tmp")
	n.must(os.WriteFile(hidden, []byte(manifest), 0o644))
	n.must(os.Rename(hidden, filepath.Join(n.Manifests, name)))
}

// PutSlow writes a manifest as a careless tool does, in two pieces into the file itself, with a pause between them.
func (n *Node) PutSlow(name, manifest string, pause time.Duration) {
	n.t.Helper()
	f, err := os.OpenFile(filepath.Join(n.Manifests, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	n.must(err)
	defer f.Close()
	half := len(manifest) / 2
	_, err = f.WriteString(manifest[:half])
	n.must(err)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-n.t.Context().Done():
	}
	_, err = f.WriteString(manifest[half:])
	n.must(err)
}

// Remove removes a manifest.
func (n *Node) Remove(name string) {
	n.t.Helper()
	n.must(os.Remove(filepath.Join(n.Manifests, name)))
}

// Container is a container as the runtime shows it.
type Container struct {
	ID, Pod, Name, Sandbox string // Pod is NAME-NODE
	State                  string // created, running, exited or unknown
	Attempt                uint32
	Image                  string
	Created                time.Time
	Labels, Annotations    map[string]string
}

// Sandbox is a sandbox as the runtime shows it.
type Sandbox struct {
	ID, Pod, UID        string // Pod is NAME-NODE
	State               string // ready or notready
	Attempt             uint32
	Created             time.Time
	Labels, Annotations map[string]string
}

// Containers are those of the pod of that manifest name, in every state, the newest first. The name "" stands for all.
func (n *Node) Containers(pod string) []Container {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), commandTimeout)
	defer cancel()
	list, err := n.shared().ListContainers(ctx, nil)
	n.must(err)
	var found []Container
	for _, c := range list {
		if name := c.GetLabels()[podNameLabel]; pod == "" || name == n.PodName(pod) {
			found = append(found, Container{
				ID: c.GetId(), Pod: name, Name: c.GetMetadata().GetName(), Sandbox: c.GetPodSandboxId(),
				State: state(c.GetState().String()), Attempt: c.GetMetadata().GetAttempt(), Image: c.GetImage().GetImage(),
				Created: time.Unix(0, c.GetCreatedAt()), Labels: c.GetLabels(), Annotations: c.GetAnnotations(),
			})
		}
	}
	newestFirst(found, func(c Container) time.Time { return c.Created })
	return found
}

// Sandboxes are those of the pod of that manifest name, the newest first. The name "" stands for all.
func (n *Node) Sandboxes(pod string) []Sandbox {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), commandTimeout)
	defer cancel()
	list, err := n.shared().ListPodSandbox(ctx, nil)
	n.must(err)
	var found []Sandbox
	for _, s := range list {
		if name := s.GetMetadata().GetName(); pod == "" || name == n.PodName(pod) {
			found = append(found, Sandbox{
				ID: s.GetId(), Pod: name, UID: s.GetMetadata().GetUid(), State: state(s.GetState().String()),
				Attempt: s.GetMetadata().GetAttempt(), Created: time.Unix(0, s.GetCreatedAt()),
				Labels: s.GetLabels(), Annotations: s.GetAnnotations(),
			})
		}
	}
	newestFirst(found, func(s Sandbox) time.Time { return s.Created })
	return found
}

// PodName is the name that the pod of a manifest has on this node.
func (n *Node) PodName(pod string) string { return pod + "-" + n.Name }

// state turns CONTAINER_RUNNING and SANDBOX_NOTREADY into the last word.
func state(s string) string { return strings.ToLower(s[strings.LastIndexByte(s, '_')+1:]) }

// Running returns the container of the pod that runs, false if none does.
func (n *Node) Running(pod, container string) (Container, bool) {
	n.t.Helper()
	for _, c := range n.Containers(pod) {
		if c.Name == container && c.State == "running" {
			return c, true
		}
	}
	return Container{}, false
}

// WaitRunning waits until the container runs.
func (n *Node) WaitRunning(pod, container string, timeout time.Duration) Container {
	n.t.Helper()
	var found Container
	n.WaitFor(fmt.Sprintf("container %s of pod %s to run", container, pod), timeout, func() (ok bool, state string) {
		n.t.Helper()
		found, ok = n.Running(pod, container)
		if ok {
			return true, ""
		}
		return false, n.Describe(pod)
	})
	return found
}

// WaitGone waits until the runtime has neither a container nor a sandbox of the pod.
func (n *Node) WaitGone(pod string, timeout time.Duration) {
	n.t.Helper()
	n.WaitFor("pod "+pod+" to be gone", timeout, func() (bool, string) {
		n.t.Helper()
		return len(n.Containers(pod))+len(n.Sandboxes(pod)) == 0, n.Describe(pod)
	})
}

// Describe is what the runtime has of a pod, one line each, for a message.
func (n *Node) Describe(pod string) string {
	n.t.Helper()
	var b strings.Builder
	for _, s := range n.Sandboxes(pod) {
		fmt.Fprintf(&b, "\n  sandbox %.13s of %s: %s, attempt %d", s.ID, s.Pod, s.State, s.Attempt)
	}
	for _, c := range n.Containers(pod) {
		fmt.Fprintf(&b, "\n  container %.13s %s of %s: %s, attempt %d", c.ID, c.Name, c.Pod, c.State, c.Attempt)
	}
	return orDefault(b.String(), "the runtime has nothing of it")
}

// PID is the main process of a container or sandbox that runs.
func (n *Node) PID(id string) int {
	n.t.Helper()
	// The shim keeps it in the task's bundle, in containerd 1.6 and in 2.x.
	data, err := os.ReadFile(filepath.Join(n.state(), "io.containerd.runtime.v2.task/k8s.io", id, "init.pid"))
	n.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	n.must(err)
	return pid
}

// ShimPID is the process that holds a sandbox and its containers. The sandbox must run.
func (n *Node) ShimPID(sandbox string) int {
	n.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID(sandbox)))
	n.must(err)
	_, rest, _ := strings.Cut(string(status), "\nPPid:")
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	n.must(err)
	if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || filepath.Base(program) != "containerd-shim-runc-v2" {
		n.t.Fatalf("podtest: the parent of sandbox %s is %q (%v), not its shim", sandbox, program, err)
	}
	return pid
}

// KillContainer kills the main process of a container or sandbox.
func (n *Node) KillContainer(id string) {
	n.t.Helper()
	n.must(syscall.Kill(n.PID(id), syscall.SIGKILL))
}

// KillShim kills the shim of a sandbox. Its containers run on, and nobody has a hold on them.
func (n *Node) KillShim(sandbox string) {
	n.t.Helper()
	n.must(syscall.Kill(n.ShimPID(sandbox), syscall.SIGKILL))
}

// Log is what every attempt of a container has printed, decoded, in the order of the attempts.
func (n *Node) Log(pod, container string) string {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.PodLogs, "*_"+n.PodName(pod)+"_*", container, "*.log"))
	n.must(err)
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(attemptOf(a), attemptOf(b)) })
	var b strings.Builder
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // collected as garbage meanwhile
		}
		for line := range strings.Lines(string(data)) {
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 { // time, stream, tag, text
				b.WriteString(fields[3])
			}
		}
	}
	return b.String()
}

// attemptOf is the number in the name of a log file.
func attemptOf(path string) int {
	attempt, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), ".log")) // 0 is as good for another name
	return attempt
}

func newestFirst[T any](list []T, created func(T) time.Time) {
	slices.SortFunc(list, func(a, b T) int { return created(b).Compare(created(a)) })
}
