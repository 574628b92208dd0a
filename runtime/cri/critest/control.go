package critest

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Call is one request as it came in, refused or not.
type Call struct {
	Method  string // such as RunPodSandbox
	Request proto.Message
}

// fault is what happens to calls of a method instead of, or after, their effect.
type fault struct {
	method  string        // "*" for all
	left    int           // calls it still applies to; below 0 without end
	err     error         // answer instead of an effect
	release chan struct{} // closed when a hanging call may go on; nil when it does not hang
	lose    bool          // take effect, then fail
}

// Exit makes a running container end by itself with the exit code. It is named by id, or by container name: then the
// newest running one is meant. It reports whether one was found.
func (r *Runtime) Exit(idOrName string, code int32) bool {
	r.mu.Lock()
	defer r.unlock()
	for _, c := range slices.Backward(r.containers) {
		if c.state == runtimeapi.ContainerState_CONTAINER_RUNNING && (c.id == idOrName || c.config.GetMetadata().GetName() == idOrName) {
			r.end(c, code)
			return true
		}
	}
	return false
}

// KillSandbox ends the sandbox's own process, so that it is not ready any more. Its containers run on, as they do when
// they have a PID namespace of their own. It is named by id, or by pod name: then the newest ready one is meant. It
// reports whether one was found.
func (r *Runtime) KillSandbox(idOrPod string) bool {
	r.mu.Lock()
	defer r.unlock()
	for _, s := range slices.Backward(r.sandboxes) {
		if s.ready && (s.id == idOrPod || s.config.GetMetadata().GetName() == idOrPod) {
			r.killSandbox(s)
			return true
		}
	}
	return false
}

// StopTakes says how containers of that name take their stop signal: they end after that time with the code, unless
// the grace is shorter. By default they end at once with 143.
func (r *Runtime) StopTakes(containerName string, takes time.Duration, code int32) {
	r.mu.Lock()
	defer r.unlock()
	r.stops[containerName] = stop{takes, code}
}

// HangStarts makes starts of containers of that name from now on come to nothing: each lasts until its caller goes away,
// and is given up that long afterwards. Until then the container can be neither started nor removed, as with containerd.
func (r *Runtime) HangStarts(containerName string, givesUpAfter time.Duration) {
	r.mu.Lock()
	defer r.unlock()
	r.hungStarts[containerName] = givesUpAfter
}

// StartsWork undoes HangStarts for starts from now on.
func (r *Runtime) StartsWork(containerName string) {
	r.mu.Lock()
	defer r.unlock()
	delete(r.hungStarts, containerName)
}

// OnExec says what a command in containers of that name answers.
func (r *Runtime) OnExec(containerName string, run func(cmd []string) (*runtimeapi.ExecSyncResponse, error)) {
	r.mu.Lock()
	defer r.unlock()
	r.execs[containerName] = run
}

// Fail makes the next calls of the method fail with err before they have an effect; "*" is every method, and times
// below zero is for ever. An err without a gRPC status becomes code Unknown, as with containerd.
func (r *Runtime) Fail(method string, err error, times int) {
	r.addFault(&fault{method: method, err: err, left: times})
}

// Lose makes the next calls of the method take effect and then fail as if the connection had broken.
func (r *Runtime) Lose(method string, times int) {
	r.addFault(&fault{method: method, lose: true, left: times})
}

// Hang makes calls of the method wait, before they have an effect, until release is called or their context ends.
func (r *Runtime) Hang(method string) (release func()) {
	f := &fault{method: method, left: -1, release: make(chan struct{})}
	r.addFault(f)
	return func() {
		r.mu.Lock()
		defer r.unlock()
		if i := slices.Index(r.faults, f); i >= 0 {
			r.faults = slices.Delete(r.faults, i, i+1)
			close(f.release)
		}
	}
}

// Heal ends every Fail, Lose and Hang.
func (r *Runtime) Heal() {
	r.mu.Lock()
	defer r.unlock()
	for _, f := range r.faults {
		if f.release != nil {
			close(f.release)
		}
	}
	r.faults = nil
}

// OnEvent calls hook after every change, on the goroutine that made it and without a lock held.
func (r *Runtime) OnEvent(hook func(Event)) {
	r.mu.Lock()
	defer r.unlock()
	r.hooks = append(slices.Clone(r.hooks), hook)
}

// Calls returns the calls so far in order. With methods, only calls of those.
func (r *Runtime) Calls(methods ...string) []Call {
	r.mu.Lock()
	defer r.unlock()
	return slices.DeleteFunc(slices.Clone(r.calls), func(c Call) bool {
		return len(methods) > 0 && !slices.Contains(methods, c.Method)
	})
}

// ForgetCalls empties the call log.
func (r *Runtime) ForgetCalls() {
	r.mu.Lock()
	defer r.unlock()
	r.calls = nil
}

func (r *Runtime) addFault(f *fault) {
	r.mu.Lock()
	defer r.unlock()
	r.faults = append(r.faults, f)
}

// take returns the fault that the next call of method meets, nil for none.
func (r *Runtime) take(method string) *fault {
	for _, f := range r.faults {
		if f.left == 0 || f.method != "*" && f.method != method {
			continue
		}
		if f.left > 0 {
			f.left--
		}
		return f
	}
	return nil
}

// intercept logs every call and applies the faults. It serves the socket and the in-process connection alike.
func (r *Runtime) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndex(info.FullMethod, "/")+1:]
	r.mu.Lock()
	r.calls = append(r.calls, Call{method, proto.Clone(req.(proto.Message))})
	f := r.take(method)
	r.mu.Unlock()
	if f != nil && f.release != nil {
		select {
		case <-f.release:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
	if f != nil && f.err != nil {
		return nil, withStatus(f.err)
	}
	resp, err := handler(ctx, req)
	if f != nil && f.lose {
		return nil, status.Error(codes.Unavailable, "error reading from server: EOF")
	}
	if err != nil {
		return nil, withStatus(err)
	}
	return resp, nil
}

func withStatus(err error) error {
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	return status.Error(codes.Unknown, err.Error())
}
