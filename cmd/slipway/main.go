// Command slipway turns a bare Linux machine into a Kubernetes control-plane node, and back.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/slipway-k8s/slipway/cmd/internal/cli"
)

// gcPercent spares commands most of the garbage collections of their short lives: with Go's 100 a dry run has six.
// supervise, which lives long, sets its own.
const gcPercent = 800

func main() {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	code := cli.Main(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()})
	stop()
	os.Exit(code)
}
