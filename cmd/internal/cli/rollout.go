package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// rollout brings static pods of the control plane to a new run through the supervisor's local socket, and waits for
// each until it is ready again: never for what was ready before.
type rollout struct {
	client   *local
	node     string            // name of this node
	deadline time.Duration     // for each pod, its check included
	report   func(text string) // a line of progress
}

// newRollout asks the supervisor which node this is.
func newRollout(ctx context.Context, client *local, deadline time.Duration, report func(string)) (*rollout, error) {
	list, err := client.pods(ctx)
	if err != nil {
		return nil, err
	}
	r := &rollout{client: client, deadline: deadline, report: report}
	for _, p := range list.Items {
		if p.Spec.NodeName != "" {
			r.node = p.Spec.NodeName
			return r, nil
		}
	}
	return nil, errors.New("the supervisor runs no pods")
}

// restartStep is one pod to restart.
type restartStep struct {
	pod string // name as in the manifest: "etcd"
	why string // one line
	// check is asked, over and over until the deadline, once the pod is ready; nil asks nothing.
	check func(context.Context) error
}

// restartOrder is that of dependency: each can be reached by those after it before they are restarted themselves.
var restartOrder = plane.Components()

// byDependency sorts pods for a restart one after the other. Pods that are not of the control plane come last.
func byDependency(pods []string) []string {
	rank := func(pod string) int {
		if i := slices.Index(restartOrder, pod); i >= 0 {
			return i
		}
		return len(restartOrder)
	}
	return slices.SortedFunc(slices.Values(pods), func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// restart restarts the pods in the given order: the next only when the one before is ready again in its new run and has
// passed its check. The first that fails ends it, and leaves those after it as they were.
func (r *rollout) restart(ctx context.Context, steps []restartStep) error {
	for _, s := range steps {
		if err := r.restartOne(ctx, s); err != nil {
			return fmt.Errorf("restarting %s: %w", s.pod, err)
		}
	}
	return nil
}

func (r *rollout) restartOne(ctx context.Context, s restartStep) error {
	ctx, cancel := context.WithTimeout(ctx, r.deadline)
	defer cancel()
	list, err := r.client.pods(ctx)
	if err != nil {
		return err
	}
	name, err := findPod(metav1.NamespaceSystem+"/"+s.pod, podNames(list))
	if err != nil {
		return err
	}
	former := host.RunOf(podOf(list, name))
	err = r.client.restart(ctx, name.full(), s.why)
	if refused := (*refusal)(nil); errors.As(err, &refused) && strings.Contains(refused.text, status.ErrNothingRuns.Error()) {
		err = nil // its next container is a new run as it is
	}
	if err != nil {
		return err
	}
	r.report(fmt.Sprintf("restarting %s: %s", s.pod, s.why))
	err = r.await(ctx, host.Wait{Pods: []string{s.pod}, Former: map[string]host.Run{s.pod: former}})
	if err != nil || s.check == nil {
		return err
	}
	return r.checked(ctx, s)
}

// checkPause is between two checks that fail.
const checkPause = 250 * time.Millisecond

func (r *rollout) checked(ctx context.Context, s restartStep) error {
	for said := ""; ; {
		err := s.check(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			r.report(fmt.Sprintf("waiting for %s: %s", s.pod, said))
		}
		pause := time.NewTimer(checkPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("it is ready, but %s: %w", cmp.Or(said, err.Error()), ctx.Err())
		}
	}
}

// taken waits until pods, whose manifests were changed, run by them and are ready. versions are those of the
// manifests (see versionOf), by name as in the manifest. Where the supervisor returns to the last version that was
// ready, the error is a *host.NotReady with GivenUp set. All pods share the deadline.
func (r *rollout) taken(ctx context.Context, versions map[string]string) error {
	var pods []string
	for pod := range versions {
		pods = append(pods, pod)
	}
	return r.await(ctx, host.Wait{Pods: byDependency(pods), Versions: versions, Verdict: true})
}

// await waits for pods of the control plane. What it waits for is reported as it changes.
func (r *rollout) await(ctx context.Context, w host.Wait) error {
	w.Namespace, w.NodeName, w.Deadline = metav1.NamespaceSystem, r.node, r.deadline
	w.Needs = map[string][]string{}
	for i, pod := range w.Pods {
		if slices.Contains(restartOrder, pod) {
			w.Needs[pod] = slices.DeleteFunc(slices.Clone(w.Pods[:i]), func(p string) bool { return !needs(pod, p) })
		}
	}
	return host.AwaitPods(ctx, r.client.socket, w, func(p host.Progress) { r.report(p.Text) })
}

// needs tells whether a component of the control plane cannot become ready without another.
func needs(pod, other string) bool {
	return other == "etcd" && pod == "kube-apiserver" || other == "kube-apiserver" && (pod == "kube-controller-manager" || pod == "kube-scheduler")
}
