package status

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestBoardTellsChanges wakes readers when there is something new to show, and only then.
func TestBoardTellsChanges(t *testing.T) {
	b := NewBoard()
	p := want(t, etcd)
	v := View{Name: p.FullName(), Want: p, Now: noon, Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "making the sandbox"}}
	for _, step := range []struct {
		name string
		do   func()
		news bool
	}{
		{"a new pod", func() { b.Publish(v) }, true},
		{"the same a minute later", func() { v.Now = v.Now.Add(time.Minute); b.Publish(v) }, false},
		{"another reason", func() { v.Decision.Why = "starting etcd"; b.Publish(v) }, true},
		{"a failure", func() { v.Failure = "no network"; b.Publish(v) }, true},
		{"a refused manifest", func() { b.SetProblems([]Problem{{Source: "/m/a.yaml", Reason: "not a pod"}}) }, true},
		{"the same refusal", func() { b.SetProblems([]Problem{{Source: "/m/a.yaml", Reason: "not a pod"}}) }, false},
		{"a pod gone", func() { b.Remove(p.FullName()) }, true},
		{"gone already", func() { b.Remove(p.FullName()) }, false},
	} {
		_, _, changed := b.Pods()
		step.do()
		if isClosed(changed) != step.news {
			t.Errorf("%s: readers woken: %v, want %v", step.name, !step.news, step.news)
		}
	}
}

// TestBoardKeepsTransitionTimes moves the time of a condition only with its value.
func TestBoardKeepsTransitionTimes(t *testing.T) {
	b := NewBoard()
	p := want(t, etcd)
	v := View{Name: p.FullName(), Want: p, Now: noon, Decision: lifecycle.Decision{State: lifecycle.Starting}}
	b.Publish(v)
	v.Now, v.Ready, v.Decision.State = noon.Add(time.Minute), true, lifecycle.Running
	v.Seen = lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("etcd", 0, true)}}
	b.Publish(v)
	list, _, _ := b.Pods()
	for _, c := range list.Items[0].Status.Conditions {
		at := noon.Add(time.Minute)
		if c.Type == "PodScheduled" || c.Type == "Initialized" { // were true before
			at = noon
		}
		if !c.LastTransitionTime.Time.Equal(at) {
			t.Errorf("%s changed at %v, want %v", c.Type, c.LastTransitionTime, at)
		}
	}
}

func TestBoardSortsPods(t *testing.T) {
	b := NewBoard()
	for _, name := range []string{"b", "c", "a"} {
		p := *want(t, etcd)
		pod := *p.Pod
		pod.Name, p.Pod = name, &pod
		b.Publish(View{Name: "kube-system/" + name, Want: &p, Now: noon})
	}
	list, _, _ := b.Pods()
	if got := list.Items[0].Name + list.Items[1].Name + list.Items[2].Name; got != "abc" {
		t.Errorf("order %s, want abc", got)
	}
}

func TestWait(t *testing.T) {
	b := NewBoard()
	_, _, changed := b.Pods()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ctx, changed); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait: %v, want %v", err, context.Canceled)
	}
	b.SetProblems([]Problem{{Source: "/m/a.yaml"}})
	if err := Wait(t.Context(), changed); err != nil {
		t.Errorf("Wait: %v", err)
	}
}
