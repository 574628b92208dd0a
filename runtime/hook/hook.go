// Package hook runs the lifecycle hooks of containers as a kubelet does.
package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What an event says of a failed hook, and no more: the output of a command may hold a secret, and events travel.
// Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container.go:330, 794.
const (
	PostStartFailed = "PostStartHook failed"
	PreStopFailed   = "PreStopHook failed"
)

const (
	// maxOutput bounds, in bytes, what is kept of a hook's output or error.
	maxOutput = 1 << 10
	// minStop is what a container is left with to end after its preStop hook has used the grace period up.
	// Kubernetes v1.36.3 pkg/kubelet/kuberuntime/kuberuntime_container.go:905.
	minStop = 2 * time.Second
)

// Runner runs hooks. It has no state: it may be copied, and used by several goroutines.
type Runner struct {
	// Exec runs a command in a container and returns its combined output and exit code; an exit code other than 0 is
	// no error. A timeout of 0 is none: only ctx ends the command.
	Exec func(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (output string, exit int, err error)
	// Client makes the requests of httpGet hooks; see NewClient. It must not be nil where such hooks may come.
	Client *http.Client
}

// Run runs one hook to its end, or until ctx ends: like a kubelet it sets no deadline of its own. A nil hook is done at
// once. podIP is where httpGet goes that names no host: the node's address for host network. Of container, the name and
// the ports are looked at.
//
// The error says what the kubelet's message in the container's status says, with at most 1 KiB of output. It may repeat
// what a command has printed: it is for status, not for events, which say PostStartFailed or PreStopFailed.
func (r Runner) Run(ctx context.Context, h *corev1.LifecycleHandler, container *corev1.Container, containerID, podIP string) error {
	switch {
	case h == nil:
		return nil
	case h.Exec != nil:
		return r.exec(ctx, h.Exec, container.Name, containerID)
	case h.HTTPGet != nil:
		if err := r.get(ctx, h.HTTPGet, container, podIP); err != nil {
			return fmt.Errorf("HTTP lifecycle hook (%s) for container %q failed: %w", clip(h.HTTPGet.Path), container.Name, err)
		}
		return nil
	case h.Sleep != nil:
		if err := sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second); err != nil {
			return fmt.Errorf("sleep lifecycle hook (%d) for container %q failed: %w", h.Sleep.Seconds, container.Name, err)
		}
		return nil
	case h.TCPSocket != nil: // valid in old objects, and never built: Kubernetes v1.36.3 pkg/kubelet/lifecycle/handlers.go:105
		return fmt.Errorf("lifecycle hook for container %q failed: invalid handler: tcpSocket is not supported for hooks", container.Name)
	default:
		return fmt.Errorf("lifecycle hook for container %q failed: invalid handler: it names no action", container.Name)
	}
}

// PreStop runs a preStop hook for as long as the grace period lasts, and returns what of it is left for the container's
// stop: at least 2 s. The error of a hook that failed, or did not end in time, changes nothing about the stop. A
// negative or zero grace runs no hook, as in a kubelet.
func (r Runner) PreStop(ctx context.Context, h *corev1.LifecycleHandler, container *corev1.Container, containerID, podIP string, grace time.Duration) (left time.Duration, err error) {
	if h == nil || grace <= 0 {
		return max(grace, minStop), nil
	}
	start := time.Now()
	limited, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err = r.Run(limited, h, container, containerID, podIP)
	if limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("preStop hook for container %q did not end within the grace period of %s", container.Name, grace)
	}
	return max(grace-time.Since(start), minStop), err
}

// Recorded returns the preStop hook of a container whose manifest is not known any more, from its annotations
// io.kubernetes.container.preStopHandler and io.kubernetes.container.ports, with as much of a container as Run looks
// at. The hook is nil when none was recorded.
func Recorded(name, preStop, ports string) (*corev1.LifecycleHandler, *corev1.Container, error) {
	container := &corev1.Container{Name: name}
	if preStop == "" {
		return nil, container, nil
	}
	h := &corev1.LifecycleHandler{}
	if err := json.Unmarshal([]byte(preStop), h); err != nil {
		return nil, container, fmt.Errorf("reading the recorded preStop hook of container %q: %w", name, err)
	}
	if ports == "" {
		return h, container, nil
	}
	if err := json.Unmarshal([]byte(ports), &container.Ports); err != nil {
		return nil, container, fmt.Errorf("reading the recorded ports of container %q: %w", name, err)
	}
	return h, container, nil
}

func (r Runner) exec(ctx context.Context, a *corev1.ExecAction, name, containerID string) error {
	if r.Exec == nil {
		return fmt.Errorf("exec lifecycle hook for container %q failed: nothing to run commands with", name)
	}
	output, exit, err := r.Exec(ctx, containerID, a.Command, 0) // as it is: a kubelet expands no variables in hooks
	if err == nil && exit != 0 {
		err = fmt.Errorf("exit code %d", exit)
	}
	if err != nil {
		return fmt.Errorf("exec lifecycle hook (%s) for container %q failed: %w, message: %q", clip(fmt.Sprint(a.Command)), name, err, clip(output))
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return errors.New("container terminated before sleep hook finished")
	case <-timer.C:
		return nil
	}
}

func clip(s string) string {
	if len(s) > maxOutput {
		return strings.ToValidUTF8(s[:maxOutput], "") + "…"
	}
	return s
}
