package wait

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

type waiting struct {
	host.Host
	asked host.Wait
}

func (w *waiting) WaitReady(_ context.Context, asked host.Wait, report func(host.Progress)) error {
	w.asked = asked
	report(host.Progress{Text: "etcd ready (0.9 s)"})
	report(host.Progress{Text: "waiting for kube-apiserver", Done: 1, Total: 4, Unit: "pods"})
	return errors.New("too slow")
}

func TestPhaseWaitsForWhatRunsHere(t *testing.T) {
	for _, tc := range []struct {
		name string
		etcd config.Etcd
		want host.Wait
	}{
		{"with etcd on this node", config.Etcd{Local: &config.LocalEtcd{}}, host.Wait{
			Namespace: "kube-system", NodeName: "node-1", Deadline: time.Minute,
			Pods: []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"},
			Needs: map[string][]string{
				"kube-apiserver": {"etcd"}, "kube-controller-manager": {"kube-apiserver"}, "kube-scheduler": {"kube-apiserver"},
			},
		}},
		{"with an external etcd", config.Etcd{External: &config.ExternalEtcd{}}, host.Wait{
			Namespace: "kube-system", NodeName: "node-1", Deadline: time.Minute,
			Pods:  []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler"},
			Needs: map[string][]string{"kube-controller-manager": {"kube-apiserver"}, "kube-scheduler": {"kube-apiserver"}},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := &waiting{}
			var events []string
			err := New().Run(t.Context(), &phases.Env{
				Config: &config.Cluster{NodeName: "node-1", Etcd: tc.etcd, Timeouts: config.Timeouts{ControlPlaneComponentHealthCheck: time.Minute}},
				Host:   w,
				Report: func(e phases.Event) {
					events = append(events, fmt.Sprintf("%s %s %d/%d %s", e.Kind, e.Text, e.Done, e.Total, e.Unit))
				},
			})
			if err == nil || err.Error() != "too slow" {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(tc.want, w.asked); diff != "" {
				t.Errorf("asked differs (-want +got):\n%s", diff)
			}
			if want := []string{"note etcd ready (0.9 s) 0/0 ", "progress waiting for kube-apiserver 1/4 pods"}; !slices.Equal(events, want) {
				t.Errorf("events %q, want %q", events, want)
			}
		})
	}
}
