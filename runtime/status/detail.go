package status

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// Detail is what the supervisor knows of a pod and a v1.Pod has no field for. It is a value: nobody changes one that
// was handed out.
type Detail struct {
	Pod      string `json:"pod"` // full name
	State    string `json:"state"`
	Why      string `json:"why,omitempty"`
	Failure  string `json:"failure,omitempty"` // of the last look or action
	Problem  string `json:"problem,omitempty"` // why a newer version of the manifest is not taken
	Manifest string `json:"manifest,omitempty"`
	UID      string `json:"uid,omitempty"`
	SpecHash string `json:"specHash,omitempty"`
	// Until is when the supervisor looks again without being told of anything: in state BackOff or Pulling, the end of
	// the back-off in force.
	Until      time.Time           `json:"until,omitzero"`
	Sandboxes  []SandboxDetail     `json:"sandboxes"`  // newest first
	Containers []ContainerDetail   `json:"containers"` // by name, newest attempt first
	Rejected   *lastgood.Rejection `json:"rejected,omitempty"`
	// NotShown is why the API server does not take the pod's mirror.
	NotShown string `json:"notShown,omitempty"`
}

// SandboxDetail is one pod sandbox as the runtime has it.
type SandboxDetail struct {
	ID        string    `json:"id"`
	UID       string    `json:"uid"`
	Attempt   uint32    `json:"attempt"`
	Ready     bool      `json:"ready"`
	IP        string    `json:"ip,omitempty"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
}

// ContainerDetail is one container as the runtime has it, with the latest results of its probes; or, in state waiting
// and without an ID, one of the manifest that is not there yet.
type ContainerDetail struct {
	Name       string    `json:"name"`
	ID         string    `json:"id,omitempty"`
	Sandbox    string    `json:"sandbox,omitempty"`
	UID        string    `json:"uid"` // of the pod
	Attempt    uint32    `json:"attempt"`
	State      string    `json:"state"` // created, running, exited, unknown or waiting
	Image      string    `json:"image,omitempty"`
	ImageID    string    `json:"imageID,omitempty"`
	CreatedAt  time.Time `json:"createdAt,omitzero"`
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   *int32    `json:"exitCode,omitempty"` // of one that has exited
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	Started    bool      `json:"started"`
	Ready      bool      `json:"ready"`
	Probe      string    `json:"probe,omitempty"` // what the last failed probe said
	Hook       string    `json:"hook,omitempty"`  // that the post-start hook runs, or why it failed
	// Waiting is the kubelet's word for what the next start waits for, such as CrashLoopBackOff.
	Waiting string `json:"waiting,omitempty"`
}

// detailOf is the part of a view that Pod, which made pod, leaves out.
func detailOf(v View, pod *corev1.Pod, notShown string) Detail {
	d := Detail{
		Pod: v.Name, State: v.Decision.State.String(), Why: v.Decision.Why, Failure: v.Failure, Problem: v.Problem,
		Rejected: v.Rejected, NotShown: notShown, Sandboxes: []SandboxDetail{}, Containers: []ContainerDetail{},
		Until: v.Decision.Wake.Round(0), // without the monotonic clock two of the same time are equal
	}
	if v.Want != nil {
		d.Manifest, d.UID, d.SpecHash = v.Want.Source, v.Want.UID, v.Want.SpecHash
	}
	for _, sb := range v.Seen.Sandboxes {
		d.Sandboxes = append(d.Sandboxes, SandboxDetail{ID: sb.ID, UID: sb.UID, Attempt: sb.Attempt, Ready: sb.Ready, IP: sb.IP, CreatedAt: sb.CreatedAt})
	}
	slices.SortFunc(d.Sandboxes, func(a, b SandboxDetail) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.ID, b.ID))
	})
	for i := range v.Seen.Containers {
		d.Containers = append(d.Containers, containerDetail(&v.Seen.Containers[i]))
	}
	if v.Want != nil {
		for _, of := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
			for i := range of {
				d.join(&of[i])
			}
		}
	}
	slices.SortFunc(d.Containers, func(a, b ContainerDetail) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt), cmp.Compare(a.ID, b.ID))
	})
	return d
}

// join adds what a container's status says of the manifest and of what is waited for.
func (d *Detail) join(s *corev1.ContainerStatus) {
	there := false
	for i := range d.Containers {
		c := &d.Containers[i]
		if c.Name != s.Name {
			continue
		}
		c.Image = s.Image
		if s.ContainerID == runtimePrefix+c.ID {
			there = true
			if s.State.Waiting != nil {
				c.Waiting = s.State.Waiting.Reason
			}
		}
	}
	if w := s.State.Waiting; !there && w != nil {
		d.Containers = append(d.Containers, ContainerDetail{Name: s.Name, UID: d.UID, Attempt: uint32(s.RestartCount), State: "waiting",
			Image: s.Image, Waiting: w.Reason, Message: w.Message})
	}
}

func containerDetail(c *lifecycle.Container) ContainerDetail {
	d := ContainerDetail{
		Name: c.Name, ID: c.ID, Sandbox: c.SandboxID, UID: c.UID, Attempt: c.Attempt, State: c.State.String(), Image: c.ImageRef, ImageID: c.ImageRef,
		CreatedAt: c.CreatedAt, StartedAt: c.StartedAt, FinishedAt: c.FinishedAt, Reason: c.Reason, Message: c.Message,
		Started: c.Probe.Started, Ready: c.Probe.Ready,
		Probe: cmp.Or(c.Probe.StartupFailed, c.Probe.LivenessFailed, c.Probe.Message),
	}
	if c.State == lifecycle.ContainerExited {
		code := c.ExitCode
		d.ExitCode = &code
	}
	switch c.Hook.State {
	case lifecycle.HookRunning:
		d.Started, d.Ready, d.Hook = false, false, cmp.Or(c.Hook.Message, "the post-start hook runs")
	case lifecycle.HookFailed:
		d.Started, d.Ready, d.Hook = false, false, "the post-start hook failed: "+c.Hook.Message
	}
	return d
}
