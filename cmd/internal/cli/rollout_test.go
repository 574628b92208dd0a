package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// rollout returns one for the node, and what it reports.
func (n *node) rollout(deadline time.Duration) (*rollout, *[]string) {
	n.t.Helper()
	var lines []string
	r, err := newRollout(n.t.Context(), newLocal(n.g.socket), deadline, func(text string) { lines = append(lines, text) })
	if err != nil {
		n.t.Fatal(err)
	}
	return r, &lines
}

// again publishes a pod's next run, not ready and then ready.
func (n *node) again(pod string, attempt uint32) {
	starting := runs("main", attempt)
	starting.Probe.Ready = false
	n.board.Publish(viewOf(staticPod(n.t, "kube-system", pod, oneContainer), starting))
	n.board.Publish(viewOf(staticPod(n.t, "kube-system", pod, oneContainer), runs("main", attempt)))
}

// TestRolloutRestartsOneAfterTheOther: the next only once the one before is ready anew and checked.
func TestRolloutRestartsOneAfterTheOther(t *testing.T) {
	n := newNode(t)
	n.again("etcd", 0)
	n.board.Publish(viewOf(staticPod(t, "kube-system", "kube-apiserver", oneContainer))) // no container yet
	var order []string
	n.obey = func(pod string) error {
		order = append(order, "restart "+pod)
		name := strings.TrimSuffix(strings.TrimPrefix(pod, "kube-system/"), "-n1")
		n.again(name, 1)
		if name == "kube-apiserver" {
			return status.ErrNothingRuns
		}
		return nil
	}
	r, lines := n.rollout(10 * time.Second)
	tries := 0
	err := r.restart(t.Context(), []restartStep{
		{pod: "etcd", why: "new certificate", check: func(context.Context) error {
			order = append(order, "check etcd")
			if tries++; tries < 3 {
				return errors.New("it serves serial 1, not 2")
			}
			return nil
		}},
		{pod: "kube-apiserver", why: "new certificate"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"restart kube-system/etcd-n1", "check etcd", "check etcd", "check etcd", "restart kube-system/kube-apiserver-n1"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
	if !slices.Contains(*lines, "waiting for etcd: it serves serial 1, not 2") || !slices.Contains(*lines, "restarting kube-apiserver: new certificate") {
		t.Errorf("reported %q", *lines)
	}
}

// TestRolloutEndsAtTheFirstFailure: a pod that stays as it was, or does not pass its check, leaves those after it alone.
func TestRolloutEndsAtTheFirstFailure(t *testing.T) {
	never := func(context.Context) error { return errors.New("it serves serial 1, not 2") }
	for _, tc := range []struct {
		name string
		obey func(n *node) error
		step restartStep
		want string
	}{
		{"it is not restarted", func(*node) error { return nil }, restartStep{pod: "etcd"}, "restarting etcd: etcd not ready after 300ms:\n  etcd: it has not been restarted yet"},
		{"its check fails", func(n *node) error { n.again("etcd", 1); return nil }, restartStep{pod: "etcd", check: never},
			"restarting etcd: it is ready, but it serves serial 1, not 2: context deadline exceeded"},
		{"it is refused", func(*node) error { return errors.New("not now") }, restartStep{pod: "etcd"}, "restarting etcd: not now"},
		{"there is no such pod", func(*node) error { return nil }, restartStep{pod: "etdc"}, `restarting etdc: no pod is named "kube-system/etdc"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := newNode(t)
			n.again("etcd", 0)
			n.again("kube-apiserver", 0)
			n.obey = func(string) error { return tc.obey(n) }
			r, _ := n.rollout(300 * time.Millisecond)
			err := r.restart(t.Context(), []restartStep{tc.step, {pod: "kube-apiserver"}})
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if slices.Contains(n.restarts, "kube-system/kube-apiserver-n1: ") {
				t.Error("the next one was restarted")
			}
		})
	}
}

// TestRolloutTaken tells a version that was taken from one that was given up.
func TestRolloutTaken(t *testing.T) {
	n := newNode(t)
	n.again("etcd", 0)
	next := staticPod(t, "kube-system", "etcd", oneContainer)
	next.UID, next.SpecHash, next.Pod.UID = "next", "hash", "next"
	r, _ := n.rollout(10 * time.Second)
	done := make(chan error, 1)
	go func() { done <- r.taken(t.Context(), map[string]string{"etcd": "next/hash"}) }()
	select {
	case err := <-done:
		t.Fatalf("the version before counted: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	n.board.Publish(viewOf(next, runs("main", 0)))
	if err := <-done; err != nil {
		t.Error(err)
	}
	back := viewOf(staticPod(t, "kube-system", "etcd", oneContainer), runs("main", 0))
	back.Rejected = &lastgood.Rejection{Version: "bad/hash", Reason: "it exited 3 times", Log: []string{"no such flag"}}
	n.board.Publish(back)
	err := r.taken(t.Context(), map[string]string{"etcd": "bad/hash"})
	if up, ok := errors.AsType[*host.NotReady](err); !ok || !up.GivenUp || !up.Recovered || !strings.Contains(up.Reason, "it exited 3 times") || !slices.Equal(up.Log, []string{"no such flag"}) {
		t.Errorf("got %#v", err)
	}
}

func TestByDependency(t *testing.T) {
	got := byDependency([]string{"web", "kube-scheduler", "etcd", "app", "kube-apiserver"})
	if want := []string{"etcd", "kube-apiserver", "kube-scheduler", "app", "web"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
