package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// podTimes adds to a trace when containers start, become ready and exit. It takes the moments at which the supervisor
// tells so: the times in a pod's status are cut to the second, and all of init takes a few.
type podTimes struct {
	trace *trace
	seen  map[string]*podLife // by pod and container
}

// podLife is a container's present attempt.
type podLife struct {
	id             string
	known, started time.Time // first seen at all, and running; zero before
	ready, ended   bool
}

func newPodTimes(t *trace) *podTimes { return &podTimes{trace: t, seen: map[string]*podLife{}} }

// supervisorPause is how soon the supervisor's socket is tried again. It appears in the middle of init.
const supervisorPause = 20 * time.Millisecond

// follow watches until ctx ends.
func (p *podTimes) follow(ctx context.Context, supervisor *local) {
	pause := time.NewTicker(supervisorPause)
	defer pause.Stop()
	for {
		if body, err := supervisor.open(ctx, "/pods?watch=true"); err == nil {
			lines := json.NewDecoder(body.Body)
			for list := (corev1.PodList{}); lines.Decode(&list) == nil; list = (corev1.PodList{}) {
				p.see(list.Items, time.Now())
			}
			body.Body.Close()
		}
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// see takes a look at the pods.
func (p *podTimes) see(pods []corev1.Pod, now time.Time) {
	for _, pod := range pods {
		for _, c := range pod.Status.ContainerStatuses {
			p.container(pod, c, now)
		}
	}
}

func (p *podTimes) container(pod corev1.Pod, c corev1.ContainerStatus, now time.Time) {
	row := "pod " + pod.Name
	key := pod.Name + "/" + c.Name
	life := p.seen[key]
	p.exit(row, life, c, now)
	if life == nil || life.id != c.ContainerID && life.id != "" {
		life = &podLife{known: now}
		p.seen[key] = life
	}
	life.id = c.ContainerID
	attempt := fmt.Sprintf("%s (attempt %d)", c.Name, c.RestartCount)
	if running := c.State.Running; running != nil && life.started.IsZero() {
		life.started = now
		if running.StartedAt.Time.Before(p.trace.start.Truncate(time.Second)) {
			life.started = running.StartedAt.Time // an earlier init's
		}
		p.trace.span(row, "pod", "starting "+attempt, life.known, now, nil)
		p.trace.mark(row, "pod", attempt+" started", life.started)
	}
	if c.Ready && !life.ready && !life.started.IsZero() {
		life.ready = true
		p.trace.span(row, "pod", attempt+" until ready", life.started, now, nil)
		p.trace.mark(row, "pod", attempt+" ready", now)
	}
}

// exit marks the end of an attempt that was seen to run. By then the status may show the next one.
func (p *podTimes) exit(row string, life *podLife, c corev1.ContainerStatus, now time.Time) {
	for _, end := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
		if end != nil && life != nil && life.id == end.ContainerID && !life.ended {
			life.ended = true
			p.trace.mark(row, "pod", fmt.Sprintf("%s exited with code %d", c.Name, end.ExitCode), now)
		}
	}
}
