package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/reset"
)

// journal is a system that only writes down what it is told to do.
type journal struct {
	done []string
	fail string
}

func (j *journal) Do(_ context.Context, a reset.Action) error {
	j.done = append(j.done, a.String())
	if a.String() == j.fail {
		return errors.New("no")
	}
	return nil
}

var (
	stopContainerd = reset.Action{Op: reset.StopProcess, Name: "containerd"}
	endLeftovers   = reset.Action{Op: reset.EndLeftovers, Socket: "/run/slipway/containerd.sock"}
	removeConfig   = reset.Action{Op: reset.RemoveFile, Path: "/var/lib/slipway/containerd.toml"}
	removeStore    = reset.Action{Op: reset.RemoveTree, Path: "/var/lib/slipway/containerd"}
	removeLedger   = reset.Action{Op: reset.RemoveLedger, Path: "/var/lib/slipway/ledger.jsonl"}
)

// TestUndoLooksAgainOnceNothingRuns: a containerd that was starting when the plan was made has made its directory by the
// time it is stopped. It goes too, and is told.
func TestUndoLooksAgainOnceNothingRuns(t *testing.T) {
	looks := [][]reset.Action{{endLeftovers, removeConfig, removeStore, removeLedger}, {removeConfig, removeStore, removeLedger}}
	again := func() ([]reset.Action, error) {
		next := looks[0]
		looks = looks[1:]
		return next, nil
	}
	var errs bytes.Buffer
	j := &journal{}
	if err := undo(t.Context(), Streams{Err: &errs}, []reset.Action{stopContainerd, removeConfig, removeLedger}, again, j); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, a := range []reset.Action{stopContainerd, endLeftovers, removeConfig, removeStore, removeLedger} {
		want = append(want, a.String())
	}
	if diff := cmp.Diff(want, j.done); diff != "" {
		t.Errorf("- want, + done:\n%s", diff)
	}
	if want := fmt.Sprintf("also: %s\nalso: %s\n", endLeftovers, removeStore); errs.String() != want {
		t.Errorf("it tells\n%swant\n%s", &errs, want)
	}
}

// TestUndoRemovesNoFileOfWhatRuns: what does not stop keeps everything.
func TestUndoRemovesNoFileOfWhatRuns(t *testing.T) {
	j := &journal{fail: stopContainerd.String()}
	again := func() ([]reset.Action, error) { return nil, errors.New("not reached") }
	err := undo(t.Context(), Streams{Err: &bytes.Buffer{}}, []reset.Action{stopContainerd, removeConfig, removeLedger}, again, j)
	if err == nil || len(j.done) != 1 {
		t.Errorf("error %v after %q", err, j.done)
	}
}

// TestUndoOfFilesAlone needs no second look.
func TestUndoOfFilesAlone(t *testing.T) {
	j := &journal{}
	again := func() ([]reset.Action, error) { return nil, errors.New("not reached") }
	if err := undo(t.Context(), Streams{}, []reset.Action{removeConfig, removeLedger}, again, j); err != nil || len(j.done) != 2 {
		t.Errorf("error %v after %q", err, j.done)
	}
}
