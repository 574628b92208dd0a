package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/mirror"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

const (
	// defaultMaxPods is the kubelet's.
	defaultMaxPods = 110
	// failedMirror and mirrorShown are reasons of events.
	failedMirror = "FailedMirror"
	mirrorShown  = "MirrorShown"
)

// mirrored is what is shown in the Kubernetes API, and how to get there.
type mirrored struct {
	kubeconfig string
	node       podspec.Node
	kubelet    *kubeletv1beta1.KubeletConfiguration
	runtime    *cri.Client
	board      *status.Board
	events     *event.Log // what has happened; nil: nothing is told
	log        *slog.Logger
}

// mirrorPods shows the pods of the board in the Kubernetes API from the moment that all of them are known: an API that
// took the board's first, empty list for the truth would lose its mirrors at each start. It ends with ctx. Whatever
// goes wrong here is logged and ends nothing: the pods come first.
func mirrorPods(ctx context.Context, known <-chan struct{}, c mirrored) error {
	select {
	case <-known:
	case <-ctx.Done():
		return nil
	}
	capacity, info, err := mirror.ReadMachine(c.node.KubeletRoot, cmp.Or(c.kubelet.MaxPods, defaultMaxPods))
	if err != nil {
		c.log.Warn("the pods are not shown in the Kubernetes API", "reason", err.Error())
		return nil
	}
	info.KubeletVersion = version + "+slipway"
	if v, err := c.runtime.Version(ctx); err == nil { // else the field is empty
		info.ContainerRuntimeVersion = v.GetRuntimeName() + "://" + v.GetRuntimeVersion()
	}
	thresholds, err := mirror.ParseThresholds(c.kubelet.EvictionHard)
	if err != nil {
		c.log.Warn("no pressure is shown on the node", "reason", err.Error())
	}
	config := mirror.Config{
		Kubeconfig: c.kubeconfig, NodeName: c.node.Name, HostIPs: c.node.HostIPs, Capacity: capacity, Info: info,
		Pods: func() (*corev1.PodList, <-chan struct{}) {
			list, _, changed := c.board.Pods()
			return list, changed
		},
		Log: c.log, Now: time.Now, Refused: c.refused,
		Healthy:  func(ctx context.Context) error { return runtimeAnswers(ctx, c.runtime) },
		Pressure: func() mirror.Pressure { return thresholds.ReadPressure(c.node.KubeletRoot) },
		Taints:   c.kubelet.RegisterWithTaints, ProviderID: c.kubelet.ProviderID,
		Unmanaged: c.kubelet.RegisterNode != nil && !*c.kubelet.RegisterNode, Rates: ratesOf(c.kubelet),
	}
	if c.events != nil {
		config.Events = c.events.Since
	}
	return mirror.New(config).Run(ctx)
}

// refused records why the API server does not take a mirror; the pod runs all the same. That the trouble is over is an
// event too.
func (c mirrored) refused(pod, reason string) {
	c.board.MirrorRefused(pod, reason)
	e := event.Event{Pod: pod, Type: event.Warning, Reason: failedMirror, Message: reason}
	if reason == "" {
		e.Type, e.Reason, e.Message = event.Normal, mirrorShown, "the Kubernetes API shows this pod now"
		if pod == "" {
			e.Message = "no other program claims this node any more"
		}
	}
	c.events.Record(e)
}

// runtimeAnswers returns an error while no pod could be started, as the kubelet words it.
func runtimeAnswers(ctx context.Context, runtime *cri.Client) error {
	if _, err := runtime.Version(ctx); err != nil {
		return fmt.Errorf("container runtime is down: %w", err)
	}
	return nil
}

// ratesOf is what the configuration says about how often the API server is to hear from this node.
func ratesOf(k *kubeletv1beta1.KubeletConfiguration) mirror.Rates {
	r := mirror.Rates{
		Status: k.NodeStatusUpdateFrequency.Duration, Report: k.NodeStatusReportFrequency.Duration,
		Lease: time.Duration(k.NodeLeaseDurationSeconds) * time.Second, Burst: int(k.EventBurst),
	}
	if k.EventRecordQPS != nil {
		if r.QPS = int(*k.EventRecordQPS); r.QPS == 0 {
			r.QPS = -1 // to a kubelet, 0 is no limit
		}
	}
	return r
}
