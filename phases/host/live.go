package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// Live acts on the running machine. Its methods may be called at the same time.
type Live struct {
	paths    config.Paths
	facts    config.HostFacts
	files    artifact.Store
	ledger   Ledger
	images   ImageStore
	version  func(manifest []byte, nodeName string) (string, error)
	services services
	inspect  inspector
	registry func(ctx context.Context, name string) error

	// starting lets one caller at a time start a program: an early and a late one may both ensure containerd.
	starting sync.Mutex
}

// Options are what Live needs of the program around it.
type Options struct {
	Paths   config.Paths
	Facts   config.HostFacts
	Files   artifact.Store // the disk itself: pid files and the record of imported archives are durable at once
	Ledger  Ledger
	Images  ImageStore
	Version func(manifest []byte, nodeName string) (string, error) // of a pod, as the supervisor shows it; nil takes any
	Environ []string                                               // of the programs that are started: PATH and proxies
}

// Ledger is told of what runs on the machine before it is started, so that reset can end it.
type Ledger interface {
	// Process is called before the start, with only what is known by then, and again with the ProcessID.
	Process(Process) error
	// Unit is called before the unit is enabled.
	Unit(name string) error
	// Tree is called before a program is started that fills the directory at path.
	Tree(path string) error
	// Owns reports whether slipway made the file or directory at path.
	Owns(path string) bool
}

// Process is a detached process. A zero ProcessID means that it is about to be started.
type Process struct {
	Name string
	ProcessID
	Argv    []string
	PIDFile string
	LogFile string
}

// ImageStore is what Live needs of a container runtime. Sockets are paths, references are complete.
type ImageStore interface {
	// Version answers once the runtime serves.
	Version(ctx context.Context, socket string) (name, version string, err error)
	// CgroupDriver returns "systemd", "cgroupfs", or "" when this version does not tell.
	CgroupDriver(ctx context.Context, socket string) (string, error)
	// List returns the references in the store.
	List(ctx context.Context, socket string) ([]string, error)
	// Refs returns the references that an archive holds for this machine, sorted. It takes what Load takes, and asks no
	// runtime. An error names the archive.
	Refs(archive string) ([]string, error)
	// Load imports an archive. progress takes bytes read of bytes in all.
	Load(ctx context.Context, socket, archive string, progress func(done, total int64)) error
	// Pull fetches a reference from its registry. progress takes bytes; a total of 0 is unknown.
	Pull(ctx context.Context, socket, ref string, progress func(done, total int64)) error
	// Pin keeps the images of these references, and no others that it pinned before, from every garbage collector.
	Pin(ctx context.Context, socket string, refs []string) error
}

// NewLive returns a host that starts units where facts say that systemd runs, and detached processes elsewhere.
func NewLive(o Options) *Live {
	l := &Live{
		paths: o.Paths, facts: o.Facts, files: o.Files, ledger: o.Ledger, images: o.Images, version: o.Version,
		inspect:  inspector{paths: o.Paths, ledger: o.Ledger},
		registry: pingRegistry(o.Facts.ProxyEnv),
	}
	l.services = &processes{files: o.Files, ledger: o.Ledger, environ: o.Environ, grace: restartGrace}
	if o.Facts.Systemd {
		l.services = &units{ledger: o.Ledger}
	}
	return l
}

// restartGrace is what containerd and the supervisor get to end by themselves: neither has pods to wait for.
const restartGrace = 10 * time.Second

// ContainerdArgv returns the command line of slipway's own containerd.
func ContainerdArgv(program string, p config.Paths) []string {
	return []string{program, "--config", p.ContainerdConfig}
}

// SuperviseArgv returns the command line of the supervisor.
func SuperviseArgv(program string, s Supervisor) []string {
	argv := []string{program, "supervise", "--config", s.KubeletConfig, "--node-name", s.NodeName}
	if s.Runtime != "" {
		argv = append(argv, "--cri-socket", s.Runtime)
	}
	if s.Kubeconfig != "" {
		argv = append(argv, "--kubeconfig", s.Kubeconfig)
	}
	if s.Instance != "" {
		argv = append(argv, "--instance", s.Instance)
	}
	return argv
}

func (l *Live) EnsureRuntime(ctx context.Context, r Runtime, report func(Progress)) error {
	ready := func(ctx context.Context) error { return l.runtimeReady(ctx, r.Socket) }
	if !r.Own {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := awaitReady(ctx, ready); err != nil {
			return fmt.Errorf("the container runtime at %s does not answer: %w; start it, or leave out --cri-socket to use slipway's own containerd", r.Socket, err)
		}
		return nil
	}
	program := r.Program
	if program == "" {
		found, err := exec.LookPath("containerd")
		if err != nil {
			return errors.New("containerd is not on PATH: install it, for example with apt-get install containerd runc")
		}
		program = found
	}
	for _, tree := range []string{l.paths.Containerd, l.paths.ContainerdState} {
		if err := l.ledger.Tree(tree); err != nil {
			return fmt.Errorf("starting containerd: %w", err)
		}
	}
	l.starting.Lock()
	defer l.starting.Unlock()
	began := time.Now()
	started, err := l.services.ensure(ctx, service{
		Name: "containerd", Unit: l.paths.ContainerdUnit,
		Argv: ContainerdArgv(program, l.paths), Configs: []string{l.paths.ContainerdConfig},
		PIDFile: l.paths.ContainerdPID, LogFile: filepath.Join(l.paths.Logs, "containerd.log"),
		Ready: ready,
	})
	if err != nil {
		return err
	}
	report(Progress{Text: startedText("containerd", started, time.Since(began))})
	return nil
}

// runtimeReady first knocks at the socket: a gRPC client that finds none would pause for a second before it asks again.
func (l *Live) runtimeReady(ctx context.Context, socket string) error {
	if err := knock(ctx, socket); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _, err := l.images.Version(ctx, socket)
	return err
}

func (l *Live) EnsureSupervisor(ctx context.Context, s Supervisor, report func(Progress)) error {
	client := newSupervisorClient(l.paths.SupervisorSocket)
	defer client.close()
	l.starting.Lock()
	defer l.starting.Unlock()
	began := time.Now()
	started, err := l.services.ensure(ctx, service{
		Name: "slipway supervise", Unit: l.paths.SupervisorUnit,
		Argv: SuperviseArgv(l.facts.Executable, s), Configs: []string{s.KubeletConfig},
		PIDFile: l.paths.SupervisorPID, LogFile: filepath.Join(l.paths.Logs, "supervise.log"),
		Ready: client.healthy,
	})
	if err != nil {
		return err
	}
	report(Progress{Text: startedText("supervisor", started, time.Since(began))})
	return nil
}

func startedText(name string, started bool, took time.Duration) string {
	if !started {
		return name + " runs already"
	}
	return fmt.Sprintf("%s started (%s)", name, seconds(took))
}

// seconds prints a duration as people read it off a stopwatch: "0.9 s".
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// knock reports whether something listens on the unix socket.
func knock(ctx context.Context, socket string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// SocketPath returns the path of a "unix:///path" endpoint, or the path itself when it has no scheme.
func SocketPath(endpoint string) string { return strings.TrimPrefix(endpoint, "unix://") }
