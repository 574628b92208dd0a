package containerd

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/slipway-k8s/slipway/runtime/cri/critest"
)

func TestVersion(t *testing.T) {
	name, version, err := Version(t.Context(), critest.Serve(t, critest.New(critest.Options{})).Socket)
	if err != nil || name != "critest" || version != "v0.0.0" {
		t.Errorf("got %q %q, %v", name, version, err)
	}
}

func TestWaitReadyOutlastsTheStart(t *testing.T) {
	rt := critest.New(critest.Options{})
	rt.Fail("*", status.Error(codes.Unavailable, "server is not initialized yet"), 3)
	server := critest.Serve(t, rt)
	server.Stop()
	result := make(chan error, 1)
	go func() { result <- WaitReady(t.Context(), server.Socket) }()
	server.Start(t)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestWaitReadySaysWhatItWaitedFor(t *testing.T) {
	died := errors.New("containerd ended with exit status 1")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(died) })
	err := WaitReady(ctx, critest.ShortDir(t)+"/none.sock")
	if !errors.Is(err, died) || !strings.Contains(err.Error(), "the socket does not exist") {
		t.Errorf("got %v; want the cause of the end and the last try's reason", err)
	}
}

func TestWaitReadyGivesUpOnAnotherServer(t *testing.T) {
	rt := critest.New(critest.Options{})
	rt.Fail("*", status.Error(codes.Unimplemented, "unknown service runtime.v1.RuntimeService"), -1)
	err := WaitReady(t.Context(), critest.Serve(t, rt).Socket)
	if err == nil || !strings.Contains(err.Error(), "disabled_plugins") {
		t.Errorf("got %v; want it to end at once and to name the likely cause", err)
	}
}
