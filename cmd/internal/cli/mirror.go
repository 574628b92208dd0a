package cli

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/mirror"
	"github.com/slipway-k8s/slipway/runtime/podspec"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// defaultMaxPods is the kubelet's.
const defaultMaxPods = 110

// mirrored is what is shown in the Kubernetes API, and how to get there.
type mirrored struct {
	kubeconfig string
	node       podspec.Node
	kubelet    *kubeletv1beta1.KubeletConfiguration
	runtime    *cri.Client
	board      *status.Board
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
	return mirror.New(mirror.Config{
		Kubeconfig: c.kubeconfig, NodeName: c.node.Name, HostIPs: c.node.HostIPs, Capacity: capacity, Info: info,
		Pods: func() (*corev1.PodList, <-chan struct{}) {
			list, _, changed := c.board.Pods()
			return list, changed
		},
		Log: c.log, Now: time.Now,
	}).Run(ctx)
}
