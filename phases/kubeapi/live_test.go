package kubeapi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeapi/kubeapitest"
	"github.com/slipway-k8s/slipway/phases/objects"
)

const path = "/api/v1/namespaces/kube-system/configmaps/chart"

func chart(data map[string]string) *unstructured.Unstructured {
	return objects.ConfigMap("kube-system", "chart", data, nil)
}

// apply applies the data and returns what was reported.
func apply(t *testing.T, api kubeapi.API, data map[string]string) string {
	t.Helper()
	var told []string
	err := api.Apply(limited(t), chart(data), func(r kubeapi.Report) {
		if r.Warning {
			r.Text = "warning: " + r.Text
		}
		told = append(told, r.Text)
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(told, "\n")
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("gave up"))
	t.Cleanup(cancel)
	return ctx
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%q\nwant\n%q", what, got, want)
	}
}

func data(s *kubeapitest.Server) string {
	m, _, _ := unstructured.NestedStringMap(s.Object(path).Object, "data")
	return fmt.Sprint(m)
}

func TestApplyTellsWhatChanges(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	expect(t, "first", apply(t, api, map[string]string{"a": "1", "b": "2"}), "created ConfigMap kube-system/chart")
	expect(t, "again", apply(t, api, map[string]string{"a": "1", "b": "2"}), "")
	expect(t, "another value", apply(t, api, map[string]string{"a": "2"}), "changed ConfigMap kube-system/chart")
	expect(t, "what is left", data(s), "map[a:2]")
}

// What a user has changed is the user's, whatever else slipway changes, and each run says so.
func TestApplyKeepsWhatOthersHaveSet(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	apply(t, api, map[string]string{"a.conf": "1", "b": "2"})
	s.Update(t, path, "kubectl-edit", func(o *unstructured.Unstructured) {
		unstructured.SetNestedField(o.Object, "mine", "data", "a.conf")
		unstructured.SetNestedField(o.Object, "my own", "data", "c")
	})
	const kept = "warning: ConfigMap kube-system/chart: kept what somebody else has set: .data.a.conf (set by \"kubectl-edit\" using v1)"
	again := apply(t, api, map[string]string{"a.conf": "1", "b": "2"})
	if !strings.HasPrefix(again, kept) || !strings.HasSuffix(again, "--force-conflicts") {
		t.Errorf("the same again: %s", again)
	}
	if again := apply(t, api, map[string]string{"a.conf": "3", "b": "3"}); !strings.HasPrefix(again, "changed ConfigMap kube-system/chart\n"+kept) {
		t.Errorf("other values: %s", again)
	}
	expect(t, "data", data(s), "map[a.conf:mine b:3 c:my own]")
	expect(t, "the user's value", apply(t, api, map[string]string{"a.conf": "mine", "b": "3"}), "")
	expect(t, "by force", apply(t, s.API(t, true), map[string]string{"a.conf": "4", "b": "3"}), "changed ConfigMap kube-system/chart")
	expect(t, "data", data(s), "map[a.conf:4 b:3 c:my own]")
}

// An API server that has just started refuses for a while what it will take.
func TestStartingServerIsAskedAgain(t *testing.T) {
	for name, refusal := range map[string]error{
		"no namespace yet": apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "kube-system"),
		"overloaded":       apierrors.NewTooManyRequests("later", 0),
		"no leader":        apierrors.NewInternalError(errors.New("etcdserver: leader changed")),
		"unavailable":      apierrors.NewServiceUnavailable("starting"),
	} {
		t.Run(name, func(t *testing.T) {
			s := kubeapitest.New(t)
			var asked atomic.Int32
			s.Refuse = func(r *http.Request) error {
				if asked.Add(1) < 4 {
					return refusal
				}
				return nil
			}
			expect(t, "report", apply(t, s.API(t, false), map[string]string{"a": "1"}), "created ConfigMap kube-system/chart")
		})
	}
}

// What no further attempt changes is told at once.
func TestRefusalEndsTheCall(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	var asked atomic.Int32
	s.Refuse = func(*http.Request) error {
		asked.Add(1)
		return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "chart", errors.New("no"))
	}
	err := api.Apply(limited(t), chart(nil), func(kubeapi.Report) {})
	if err == nil || asked.Load() != 1 || !strings.Contains(err.Error(), "slipway init phase cluster-admins") {
		t.Errorf("after %d requests: %v", asked.Load(), err)
	}
	// A right that the super administrator has just given is on its way.
	asked.Store(0)
	s.Refuse = func(r *http.Request) error {
		if n := asked.Add(1); n > 2 && n < 5 {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "configmaps"}, "chart", errors.New("no"))
		}
		return nil
	}
	if err := api.AsSuperAdmin().Apply(limited(t), chart(nil), func(kubeapi.Report) {}); err != nil {
		t.Fatal(err)
	}
	apply(t, api, nil)
}

func TestDeadlineSaysWhy(t *testing.T) {
	s := kubeapitest.New(t)
	s.Refuse = func(*http.Request) error { return apierrors.NewServiceUnavailable("starting up") }
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("gave up after 50ms"))
	defer cancel()
	err := s.API(t, false).Apply(ctx, chart(nil), func(kubeapi.Report) {})
	if err == nil {
		t.Fatal("no error")
	}
	expect(t, "error", err.Error(), "applying ConfigMap kube-system/chart: gave up after 50ms; the last answer was: starting up")
	s.Refuse = nil
	ctx, cancel = context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("gave up after 50ms"))
	defer cancel()
	err = s.API(t, false).Await(ctx, kubeapi.RefOf(chart(nil)), "is signed", func(*unstructured.Unstructured) bool { return false }, nil)
	if err == nil {
		t.Fatal("no error")
	}
	expect(t, "error", err.Error(), "waiting until it is signed: ConfigMap kube-system/chart: gave up after 50ms")
}

func TestAwaitSeesTheChange(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	seen := make(chan error)
	go func() {
		seen <- api.Await(limited(t), kubeapi.RefOf(chart(nil)), "is signed", func(o *unstructured.Unstructured) bool {
			signature, _, _ := unstructured.NestedString(o.Object, "data", "signature")
			return signature != ""
		}, nil)
	}()
	apply(t, api, map[string]string{"a": "1"})
	s.Update(t, path, "signer", func(o *unstructured.Unstructured) { unstructured.SetNestedField(o.Object, "x", "data", "signature") })
	if err := <-seen; err != nil {
		t.Error(err)
	}
}

// An edit that somebody overtakes is made again, on what they left.
func TestEditIsMadeOnTheNewestVersion(t *testing.T) {
	s := kubeapitest.New(t)
	api := s.API(t, false)
	apply(t, api, map[string]string{"a": "1"})
	tries := 0
	edit := func(o *unstructured.Unstructured) error {
		if tries++; tries == 1 {
			s.Update(t, path, "faster", func(o *unstructured.Unstructured) { unstructured.SetNestedField(o.Object, "2", "data", "b") })
		}
		return unstructured.SetNestedField(o.Object, "3", "data", "c")
	}
	var told []string
	report := func(r kubeapi.Report) { told = append(told, r.Text) }
	for range 2 {
		if err := api.Edit(limited(t), kubeapi.RefOf(chart(nil)), "c is 3", edit, report); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, "data", data(s), "map[a:1 b:2 c:3]")
	expect(t, "reports", fmt.Sprint(told), "[changed ConfigMap kube-system/chart: c is 3]")
}
