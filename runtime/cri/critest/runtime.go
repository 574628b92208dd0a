// Package critest is an in-memory container runtime that holds its callers to the rules of the CRI.
//
// Runtime keeps the state. A test reaches it over a unix socket (Serve), or inside the process without a goroutine of
// its own (Runtime.Conn), which is what testing/synctest needs:
//
//	rt := critest.New(critest.Options{})
//	client := cri.New(rt.Conn())
//
// What it refuses, containerd refuses too: RunContract is the suite that both pass.
package critest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options are what a Runtime is made with. The zero value is a runtime without images, with a sandbox image built in.
type Options struct {
	// Images are present from the start.
	Images []string
	// SandboxImage must be present, or pullable, for a sandbox to run; "" asks for none.
	SandboxImage string
	// CgroupDriver is what RuntimeConfig answers. Without it the call is unimplemented, as in containerd 1.6.
	CgroupDriver *runtimeapi.CgroupDriver
	// Info is the verbose status.
	Info map[string]string
	// Logs makes StartContainer create the container's log file; the log directory must then exist, as with containerd,
	// which makes the file's own parent only. See WriteLog.
	Logs bool
	// Version is what the runtime calls itself; nil is critest v0.0.0.
	Version *runtimeapi.VersionResponse
	// Handlers are what Status tells of runtime handlers; none, as in containerd 1.6, by default.
	Handlers []*runtimeapi.RuntimeHandler
	// ImageDir is the directory that ImageFsInfo names; "" is the directory for temporary files.
	ImageDir string
	// Program says what a container does once it is started; nil means that it runs until it is stopped.
	Program func(*runtimeapi.ContainerConfig) Outcome
}

// Outcome is what becomes of a started container. The zero value runs.
type Outcome struct {
	Exits bool   // at once, with Code
	Code  int32  // exit code
	Err   error  // StartContainer fails with it, and the container is left exited with code 128
	Says  string // one line in its log, with Options.Logs

	IgnoresStop bool // the stop signal does nothing; only the kill after the grace ends it
}

// Event is a change of state, by containerd's topics.
type Event struct {
	Topic string // such as /tasks/exit
	ID    string // container or sandbox
}

// Runtime is the runtime's state. It is safe for concurrent use.
type Runtime struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer
	options Options

	mu         sync.Mutex
	sandboxes  []*sandbox   // in order of creation
	containers []*container // in order of creation
	names      map[string]string
	images     map[string]*runtimeapi.Image // by id
	pulls      map[string]func() error
	stops      map[string]stop
	hungStarts map[string]time.Duration
	execs      map[string]func([]string) (*runtimeapi.ExecSyncResponse, error)
	faults     []*fault
	calls      []Call
	hooks      []func(Event)
	pending    []Event
	made       int   // objects made so far; ids follow from it
	last       int64 // latest timestamp given out
}

type sandbox struct {
	id, name  string
	config    *runtimeapi.PodSandboxConfig
	handler   string
	ready     bool
	createdAt int64
}

type container struct {
	id, name            string
	sandbox             *sandbox
	config              *runtimeapi.ContainerConfig
	imageID             string
	state               runtimeapi.ContainerState
	created, start, end int64
	code                int32
	reason, message     string
	ignoresStop         bool
	starting            bool          // its start has neither succeeded nor failed yet
	log                 *os.File      // while it runs; nil without Options.Logs
	ended               chan struct{} // closed once the container has left the running state
}

// stop is how a container takes its stop signal.
type stop struct {
	takes time.Duration
	code  int32
}

// New returns a runtime.
func New(o Options) *Runtime {
	r := &Runtime{
		options: o,
		names:   map[string]string{},
		images:  map[string]*runtimeapi.Image{},
		pulls:   map[string]func() error{},
		stops:   map[string]stop{}, hungStarts: map[string]time.Duration{},
		execs: map[string]func([]string) (*runtimeapi.ExecSyncResponse, error){},
	}
	for _, ref := range o.Images {
		r.AddImage(ref)
	}
	if r.findImage(o.SandboxImage) != nil {
		r.PinImage(o.SandboxImage)
	}
	return r
}

// unlock releases the state, then tells the hooks what happened to it.
func (r *Runtime) unlock() {
	events, hooks := r.pending, r.hooks
	r.pending = nil
	r.mu.Unlock()
	for _, e := range events {
		for _, hook := range hooks {
			hook(e)
		}
	}
}

func (r *Runtime) emit(topic, id string) { r.pending = append(r.pending, Event{topic, id}) }

// newID looks like containerd's and is the same in every run.
func (r *Runtime) newID(kind string) string {
	r.made++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", kind, r.made))
	return hex.EncodeToString(sum[:])
}

// now never gives the same time twice, so that "newest" is always one.
func (r *Runtime) now() int64 {
	r.last = max(r.last+1, time.Now().UnixNano())
	return r.last
}

// reserve holds name for id until release. As in containerd, an exited object holds its name until it is removed.
func (r *Runtime) reserve(kind, name, id string) error {
	if owner, taken := r.names[kind+name]; taken {
		return status.Errorf(codes.Unknown, "failed to reserve %s name %q: name %q is reserved for %q", kind, name, name, owner)
	}
	r.names[kind+name] = id
	return nil
}

func (r *Runtime) release(kind, name string) { delete(r.names, kind+name) }

// findSandbox takes an id or an unambiguous beginning of one, as containerd does.
func (r *Runtime) findSandbox(id string) (*sandbox, error) {
	var found *sandbox
	for _, s := range r.sandboxes {
		if id != "" && strings.HasPrefix(s.id, id) {
			if found != nil {
				return nil, status.Errorf(codes.NotFound, "sandbox id %q is ambiguous: not found", id)
			}
			found = s
		}
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "an error occurred when try to find sandbox %q: not found", id)
	}
	return found, nil
}

func (r *Runtime) findContainer(id string) (*container, error) {
	var found *container
	for _, c := range r.containers {
		if id != "" && strings.HasPrefix(c.id, id) {
			if found != nil {
				return nil, status.Errorf(codes.NotFound, "container id %q is ambiguous: not found", id)
			}
			found = c
		}
	}
	if found == nil {
		return nil, status.Errorf(codes.NotFound, "an error occurred when try to find container %q: not found", id)
	}
	return found, nil
}

// matches reports whether have carries every label of want.
func matches(want, have map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return false
		}
	}
	return true
}
