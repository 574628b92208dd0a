package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

const (
	// readyPoll is short against the ~150 ms that containerd needs to start, and a failed try costs one system call.
	readyPoll = 10 * time.Millisecond
	// readyTry bounds one try, so that a socket that accepts and stays silent is tried again.
	readyTry = 2 * time.Second
)

// Version returns the name and version of the runtime behind the socket, such as containerd and v2.1.0.
func Version(ctx context.Context, socket string) (name, version string, err error) {
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return "", "", err
	}
	defer client.Close()
	v, err := client.Version(ctx)
	return v.GetRuntimeName(), v.GetRuntimeVersion(), err
}

// WaitReady returns once the runtime behind the socket answers CRI calls and says that it is ready. A network that is
// not ready does not count: the control plane needs none. When ctx ends, the error says what the last try met, and
// carries ctx's cause. What answers and is no CRI runtime ends the wait at once.
func WaitReady(ctx context.Context, socket string) error {
	start := time.Now()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		last := tryReady(ctx, socket)
		if last == nil {
			return nil
		}
		if errors.Is(last, cri.ErrUnimplemented) { // time does not change that
			return fmt.Errorf("waiting for the container runtime: %w", last)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return fmt.Errorf("waiting for the container runtime (%s so far): %w: %w", time.Since(start).Round(time.Millisecond), context.Cause(ctx), last)
		}
	}
}

func tryReady(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTry)
	defer cancel()
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer client.Close()
	status, err := client.Status(ctx, false)
	if err != nil {
		return err
	}
	for _, c := range status.GetStatus().GetConditions() {
		if c.GetType() == runtimeapi.RuntimeReady && !c.GetStatus() {
			return fmt.Errorf("the runtime is not ready: %s: %s", c.GetReason(), c.GetMessage())
		}
	}
	return nil
}
