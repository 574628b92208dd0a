package status

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// The kubelet's words where it has one. Kubernetes v1.36.3 pkg/kubelet/kubelet_pods.go:95, pkg/kubelet/kuberuntime/
// kuberuntime_container.go:69, pkg/kubelet/images/types.go:29.
const (
	containerCreating = "ContainerCreating"
	podInitializing   = "PodInitializing"
	postStartFailed   = "PostStartHookError"
	statusUnknown     = "ContainerStatusUnknown"
	unknownExitCode   = 137
	forgottenInit     = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
)

// containerStatuses returns one status per container of the spec, in its order. The restart count is the newest
// attempt: the runtime keeps it, so it survives the supervisor.
func containerStatuses(pod *corev1.Pod, specs []corev1.Container, v View) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for i := range specs {
		out = append(out, containerStatus(pod, &specs[i], v))
	}
	return out
}

func containerStatus(pod *corev1.Pod, spec *corev1.Container, v View) corev1.ContainerStatus {
	newest, previous := attempts(spec.Name, string(pod.UID), v.Seen.Containers)
	s := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, Started: new(bool), VolumeMounts: volumeMounts(spec, v)}
	if newest == nil {
		s.RestartCount = int32(v.Seen.LastAttempt[spec.Name])
		if isInit(pod, spec) && !isSidecar(spec) && anyMade(pod, v.Seen.Containers) {
			s.State.Terminated = &corev1.ContainerStateTerminated{Reason: "Completed", Message: forgottenInit}
			s.Ready = true
		} else {
			s.State.Waiting = waiting(pod, spec, v)
		}
		return s
	}
	s.RestartCount = int32(newest.Attempt)
	s.ContainerID = containerID(newest)
	s.ImageID = newest.ImageRef
	s.Resources, s.AllocatedResources = spec.Resources.DeepCopy(), spec.Resources.Requests
	if user := v.Users[newest.ID]; user != nil {
		s.User = &corev1.ContainerUser{Linux: user}
	}
	if previous != nil {
		s.LastTerminationState.Terminated = terminated(previous)
	}
	setState(&s, pod, spec, newest, v)
	return s
}

// setState fills in what a container's newest attempt does. While its post-start hook runs a kubelet has not yet
// looked at it again, and after the hook's failure it calls the container by that.
func setState(s *corev1.ContainerStatus, pod *corev1.Pod, spec *corev1.Container, c *lifecycle.Container, v View) {
	switch {
	case c.State == lifecycle.ContainerRunning && c.Hook.State == lifecycle.HookRunning:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: creating(pod), Message: c.Hook.Message}
	case c.State == lifecycle.ContainerRunning && c.Hook.State == lifecycle.HookFailed:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: postStartFailed, Message: c.Hook.Message}
	case c.State == lifecycle.ContainerRunning:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt)}
		*s.Started = c.Probe.Started
		s.Ready = c.Probe.Ready && (!isInit(pod, spec) || isSidecar(spec))
	case c.State == lifecycle.ContainerCreated:
		s.State.Waiting = &corev1.ContainerStateWaiting{Reason: creating(pod)}
		if failed(v, spec) {
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "RunContainerError", Message: v.Failure}
		}
	default:
		s.State.Terminated = terminated(c)
		s.Ready = c.ExitCode == 0 && c.State == lifecycle.ContainerExited && isInit(pod, spec) && !isSidecar(spec) // as a kubelet calls it
		if w := restarting(pod, spec, c, v); w != nil {
			s.State = corev1.ContainerState{Waiting: w}
			s.LastTerminationState.Terminated = terminated(c)
		}
	}
}

// restarting says what the restart of an ended container waits for; nil when it does not wait.
func restarting(pod *corev1.Pod, spec *corev1.Container, c *lifecycle.Container, v View) *corev1.ContainerStateWaiting {
	if v.Want == nil || !restartsAfter(pod, spec, c.ExitCode) {
		return nil
	}
	if v.Decision.State == lifecycle.BackOff {
		return &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: explanation(v)}
	}
	if w := waiting(pod, spec, v); w.Reason != creating(pod) {
		return w
	}
	return nil
}

// restartsAfter tells whether a container that ended with this code is started again: by its own rules, else by its own
// policy, else by the pod's.
func restartsAfter(pod *corev1.Pod, spec *corev1.Container, code int32) bool {
	if spec == nil {
		return false
	}
	for _, rule := range spec.RestartPolicyRules {
		if rule.ExitCodes != nil && slices.Contains(rule.ExitCodes.Values, code) == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return true
		}
	}
	policy := pod.Spec.RestartPolicy
	if spec.RestartPolicy != nil {
		policy = corev1.RestartPolicy(*spec.RestartPolicy)
	}
	switch policy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return !isInit(pod, spec) || isSidecar(spec) || code != 0
}

func isSidecar(spec *corev1.Container) bool {
	return spec.RestartPolicy != nil && *spec.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isInit(pod *corev1.Pod, spec *corev1.Container) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == spec.Name })
}

// specOf returns the main container of that name; nil when there is none.
func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	return nil
}

// anyMade tells whether a main container of this version is, or was, in the runtime.
func anyMade(pod *corev1.Pod, all []lifecycle.Container) bool {
	return slices.ContainsFunc(all, func(c lifecycle.Container) bool { return c.UID == string(pod.UID) && specOf(pod, c.Name) != nil })
}

// runtimePrefix begins a container's id in a status: the runtime's name, as a URL.
const runtimePrefix = "containerd://"

func containerID(c *lifecycle.Container) string { return runtimePrefix + c.ID }

// attempts returns the newest and the second newest container of a name in this version of the pod.
func attempts(name, uid string, all []lifecycle.Container) (newest, previous *lifecycle.Container) {
	for i := range all {
		c := &all[i]
		if c.Name != name || c.UID != uid {
			continue
		}
		if newest == nil || c.Attempt > newest.Attempt || c.Attempt == newest.Attempt && c.CreatedAt.After(newest.CreatedAt) {
			newest, previous = c, newest
		} else if previous == nil || c.Attempt > previous.Attempt {
			previous = c
		}
	}
	return newest, previous
}

// volumeMounts says what of the mounts is not in the spec: how read-only they are. Kubernetes v1.36.3
// pkg/kubelet/kubelet_pods.go:2515.
func volumeMounts(spec *corev1.Container, v View) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, m := range spec.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			if v.RecursiveReadOnly && m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				mode = corev1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}

// creating is the kubelet's word for a container that is about to be made, whichever of the pod's it is.
func creating(pod *corev1.Pod) string {
	if len(pod.Spec.InitContainers) > 0 {
		return podInitializing
	}
	return containerCreating
}

// failed tells whether the last failure is that of starting this very container.
func failed(v View, spec *corev1.Container) bool {
	return strings.HasPrefix(v.Failure, lifecycle.StartContainer.String()+" "+spec.Name+" (")
}

// waiting says why a container that is to be made is not, with the kubelet's reasons where it has one.
func waiting(pod *corev1.Pod, spec *corev1.Container, v View) *corev1.ContainerStateWaiting {
	im := v.Seen.Images[spec.Image]
	absent := im.Err != "" && (!im.Present || spec.ImagePullPolicy == corev1.PullAlways)
	switch {
	case v.Decision.State == lifecycle.Held:
		return &corev1.ContainerStateWaiting{Reason: "StartAfter", Message: v.Decision.Why}
	case failed(v, spec):
		return &corev1.ContainerStateWaiting{Reason: "CreateContainerError", Message: v.Failure}
	case absent && spec.ImagePullPolicy == corev1.PullNever:
		return &corev1.ContainerStateWaiting{Reason: "ErrImageNeverPull", Message: im.Err}
	case absent && v.Decision.State == lifecycle.Pulling && !v.Decision.Wake.IsZero():
		return &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: im.Err}
	case absent:
		return &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: im.Err}
	}
	w := &corev1.ContainerStateWaiting{Reason: creating(pod)}
	if !strings.HasPrefix(v.Failure, lifecycle.StartContainer.String()+" ") { // of another one
		w.Message = v.Failure
	}
	return w
}

func terminated(c *lifecycle.Container) *corev1.ContainerStateTerminated {
	out := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message, ContainerID: containerID(c),
		StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt),
	}
	switch {
	case c.State == lifecycle.ContainerUnknown:
		out.ExitCode, out.Reason = unknownExitCode, statusUnknown
	case c.Reason == "" && c.ExitCode == 0:
		out.Reason = "Completed"
	case c.Reason == "":
		out.Reason = "Error"
	}
	return out
}
