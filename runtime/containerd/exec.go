package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// ErrNotRunning is returned for a container that does not run, or is not there.
var ErrNotRunning = errors.New("the container does not run")

const (
	// execStart bounds the time until a command runs, which takes 50 ms: a containerd may accept and never answer.
	execStart = 30 * time.Second
	// execStop is how long a command has from SIGTERM to SIGKILL once its context has ended.
	execStop = 2 * time.Second
	// execDrain is how long output is waited for after the command's end: what it left in the background may hold its
	// pipes for ever.
	execDrain = 2 * time.Second
	// execDelete bounds the removal of what containerd keeps of a command, which also waits for such a process. What is
	// left goes with the container.
	execDelete = 2 * time.Second
)

// Exec is a command to be run in a container, as the container's own user and with its environment.
type Exec struct {
	ContainerID string
	Command     []string  // the program and its arguments
	Stdin       io.Reader // nil for none; read until its end, or as long as the command runs
	Stdout      io.Writer // nil discards; Stderr too
	Stderr      io.Writer // unused with Terminal, which has one output
	// Terminal gives the command a terminal, of the sizes that come from Sizes.
	Terminal bool
	Sizes    <-chan TerminalSize   // may be nil
	Signals  <-chan syscall.Signal // sent to the command; may be nil
	// Dir is where pipes are made, in a directory of their own that is removed afterwards. containerd must see it under
	// the same name.
	Dir string
}

// TerminalSize is in characters.
type TerminalSize struct{ Columns, Rows uint32 }

// Run runs the command and returns its exit code, 128 and the signal's number for one that a signal ended. It needs
// only containerd, behind socket. ctx ends the command: by SIGTERM, 2 s later by SIGKILL.
func (e Exec) Run(ctx context.Context, socket string) (int, error) {
	runtime, err := cri.Dial(ctx, socket)
	if err != nil {
		return 0, fmt.Errorf("running a command: %w", err)
	}
	defer runtime.Close()
	c, err := client.NewWithConn(runtime.Conn())
	if err != nil {
		return 0, fmt.Errorf("running a command: %w", err)
	}
	code, err := e.run(namespaces.WithNamespace(ctx, namespace), c)
	if err != nil {
		return 0, fmt.Errorf("running %q in container %s: %w", e.Command[0], e.ContainerID, err)
	}
	return code, nil
}

func (e Exec) run(ctx context.Context, c *client.Client) (int, error) {
	after, cancel := linger(ctx, 2*execStop) // the command outlives ctx by the time that it takes to end it
	defer cancel()
	start, started := context.WithTimeout(after, execStart)
	defer started()
	task, spec, err := e.task(start, c)
	if err != nil {
		return 0, err
	}
	input := newInput(e.Stdin)
	process, err := task.Exec(start, "slipway-"+rand.Text(), spec.Process, cio.NewCreator(e.streams(input)...))
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), execDelete)
		defer cancel()
		_, _ = process.Delete(ctx, client.WithProcessKill)
		pipes := process.IO() // nobody writes to e.Stdout after Run
		pipes.Cancel()
		pipes.Wait()
		_ = pipes.Close()
	}()
	ended, err := process.Wait(after)
	if err != nil {
		return 0, err
	}
	if err := process.Start(start); err != nil {
		return 0, err
	}
	var attending sync.WaitGroup
	defer attending.Wait()
	if !e.Terminal { // its end would hang the terminal up
		attending.Go(func() { input.closeAtEnd(after, process) })
	}
	defer input.abandon()
	return e.attend(ctx, after, process, ended)
}

func (e Exec) streams(input *input) []cio.Opt {
	out, errs := e.Stdout, e.Stderr
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = io.Discard
	}
	if e.Terminal {
		return []cio.Opt{cio.WithFIFODir(e.Dir), cio.WithStreams(input.reader(), out, nil), cio.WithTerminal}
	}
	return []cio.Opt{cio.WithFIFODir(e.Dir), cio.WithStreams(input.reader(), out, errs)}
}

// task returns the container's task, and its specification with the command as its process.
func (e Exec) task(ctx context.Context, c *client.Client) (client.Task, *oci.Spec, error) {
	container, err := c.LoadContainer(ctx, e.ContainerID)
	if errdefs.IsNotFound(err) {
		return nil, nil, ErrNotRunning
	}
	if err != nil {
		return nil, nil, err
	}
	spec, err := container.Spec(ctx)
	if err != nil {
		return nil, nil, err
	}
	task, err := container.Task(ctx, nil)
	if errdefs.IsNotFound(err) {
		return nil, nil, ErrNotRunning
	}
	if err != nil {
		return nil, nil, err
	}
	p := spec.Process
	p.Args, p.CommandLine, p.Terminal, p.ConsoleSize = e.Command, "", e.Terminal, nil
	if e.Terminal {
		p.Env = append(p.Env, "TERM=xterm") // as the CRI plugin has it
	}
	return task, spec, nil
}

// linger returns a context that ends the given time after ctx, or with cancel.
func linger(ctx context.Context, d time.Duration) (after context.Context, cancel context.CancelFunc) {
	after, cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-after.Done():
		}
	})
	return after, cancel
}

// attend passes on sizes and signals until the command has ended.
func (e Exec) attend(ctx, after context.Context, process client.Process, ended <-chan client.ExitStatus) (int, error) {
	done := ctx.Done()
	kill := time.NewTimer(0)
	kill.Stop()
	defer kill.Stop()
	sizes, signals := e.Sizes, e.Signals
	for {
		select {
		case status := <-ended:
			code, _, err := status.Result()
			if err != nil {
				return 0, err
			}
			drain(process)
			return int(code), nil
		case size, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			_ = process.Resize(after, size.Columns, size.Rows) // a wrong size is no reason to end
		case s, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			_ = process.Kill(after, s) // it may have ended
		case <-done:
			done = nil
			kill.Reset(execStop)
			_ = process.Kill(after, syscall.SIGTERM)
		case <-kill.C:
			_ = process.Kill(after, syscall.SIGKILL)
		}
	}
}

// drain waits for the rest of the command's output.
func drain(process client.Process) {
	all := make(chan struct{})
	go func() { process.IO().Wait(); close(all) }() // ends at the latest when the process is deleted
	timer := time.NewTimer(execDrain)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
	}
}

// input notices the end of a command's input: containerd holds the command's pipe open until it is told.
type input struct {
	from  io.Reader
	once  sync.Once
	ended chan struct{} // closed when there is no more, or nobody cares
	eof   bool          // read after ended was closed
}

func newInput(from io.Reader) *input { return &input{from: from, ended: make(chan struct{})} }

// reader is what the command reads from, nil for nothing at all.
func (i *input) reader() io.Reader {
	if i.from == nil {
		return nil
	}
	return i
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.from.Read(p)
	if err != nil {
		i.once.Do(func() { i.eof = true; close(i.ended) })
	}
	return n, err
}

// abandon ends closeAtEnd when the command has ended first. Its reader may still wait for input.
func (i *input) abandon() { i.once.Do(func() { close(i.ended) }) }

func (i *input) closeAtEnd(ctx context.Context, process client.Process) {
	<-i.ended
	if i.eof {
		_ = process.CloseIO(ctx, client.WithStdinCloser) // it may have ended
	}
}
