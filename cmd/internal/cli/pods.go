package cli

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/phases/reset"
	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// stopGrace is what a container gets whose own grace period is not recorded: the default of a pod.
const stopGrace = 30 * time.Second

// stopSlack is what the runtime gets on top of a grace period to kill and report. A runtime that needs longer is
// broken, and reset has another way for what is left.
const stopSlack = 10 * time.Second

// podStore finds and stops, for reset, the pods that this instance's supervisor made.
type podStore struct{ instance string }

func (s podStore) List(ctx context.Context, socket string) ([]reset.Pod, error) {
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	sandboxes, err := client.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	var pods []reset.Pod
	for _, sb := range sandboxes {
		notes := sb.GetAnnotations()
		if notes[podspec.AnnotationSpecHash] == "" || notes[podspec.AnnotationInstance] != s.instance {
			continue
		}
		pods = append(pods, reset.Pod{ID: sb.GetId(), Namespace: sb.GetMetadata().GetNamespace(), Name: sb.GetMetadata().GetName(), UID: sb.GetMetadata().GetUid()})
	}
	return pods, nil
}

// Stop stops the pod's containers at the same time, each with its recorded grace period, and removes the pod.
func (s podStore) Stop(ctx context.Context, socket string, pod reset.Pod) error {
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer client.Close()
	containers, err := client.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: pod.ID})
	if err != nil {
		return err
	}
	var group errgroup.Group
	for _, c := range containers {
		if c.GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			continue
		}
		group.Go(func() error {
			grace, err := time.ParseDuration(strings.TrimSpace(c.GetAnnotations()[podspec.AnnotationGracePeriod]) + "s")
			if err != nil {
				grace = stopGrace
			}
			ctx, cancel := context.WithTimeout(ctx, grace+stopSlack)
			defer cancel()
			return client.StopContainer(ctx, c.GetId(), grace)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := client.StopPodSandbox(ctx, pod.ID); err != nil {
		return err
	}
	return client.RemovePodSandbox(ctx, pod.ID)
}
