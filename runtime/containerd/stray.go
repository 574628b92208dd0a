package containerd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

const (
	// strayTimeout bounds the end of a stray process, which is killed: milliseconds.
	strayTimeout = 5 * time.Second
	strayPoll    = 20 * time.Millisecond
)

// Runtime is the CRI of a runtime that may be a containerd, with a way out where containerd's CRI has none. Several
// goroutines may use it.
type Runtime struct {
	*cri.Client
	conn  *grpc.ClientConn
	tasks tasksapi.TasksClient
}

// Reach returns a runtime that makes its CRI calls by the client, which stays the caller's. It connects to the socket at the
// first need. The error is one of the socket's spelling.
func Reach(client *cri.Client, socket string) (*Runtime, error) {
	conn, err := cri.Connect(socket)
	if err != nil {
		return nil, fmt.Errorf("reaching the container runtime: %w", err)
	}
	return &Runtime{Client: client, conn: conn, tasks: tasksapi.NewTasksClient(conn)}, nil
}

// Close ends the connection that Reach made.
func (r *Runtime) Close() error { return r.conn.Close() }

// RemoveContainer removes a container that does not run. One that is gone is no error.
//
// When the caller of a start goes away at the wrong moment, containerd (1.6.20 was seen to) takes the container for ended and
// keeps its process all the same: from then on its CRI, that of 2.4.2 too, can neither stop nor remove it until containerd is
// started again. Such a process is killed here.
func (r *Runtime) RemoveContainer(ctx context.Context, id string) error {
	err := r.Client.RemoveContainer(ctx, id)
	if !cri.IsStray(err) {
		return err
	}
	if failed := r.endStray(ctx, id); failed != nil {
		return errors.Join(err, fmt.Errorf("ending the process that containerd has kept of container %s: %w", id, failed))
	}
	return r.Client.RemoveContainer(ctx, id)
}

func (r *Runtime) endStray(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, strayTimeout, fmt.Errorf("it has not ended within %s", strayTimeout))
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
	_, err := r.tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(syscall.SIGKILL), All: true})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	tick := time.NewTicker(strayPoll)
	defer tick.Stop()
	for {
		_, err := r.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
		switch {
		case err == nil || status.Code(err) == codes.NotFound: // the CRI, too, deletes what has ended
			return nil
		case status.Code(err) != codes.FailedPrecondition:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
