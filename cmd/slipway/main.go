// Command slipway turns a bare Linux machine into a Kubernetes control-plane node, and back.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/slipway-k8s/slipway/cmd/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	code := cli.Main(ctx, os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()})
	stop()
	os.Exit(code)
}
