package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

func newPs(std Streams, g *global) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "ps", Short: "List the containers of this node's static pods", Args: noArguments,
		Long: "ps lists every container that the supervisor runs, as crictl ps shows it. It asks the supervisor's socket: no API server is needed.",
		RunE: func(cmd *cobra.Command, _ []string) error { return runPs(cmd.Context(), std, g, out) },
	}
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

// process is one row of ps.
type process struct {
	Container string    `json:"container"`
	ID        string    `json:"id"`
	Image     string    `json:"image"`
	State     string    `json:"state"`
	Ready     bool      `json:"ready"`
	Attempt   int32     `json:"attempt"`
	Since     time.Time `json:"since,omitzero"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
}

func runPs(ctx context.Context, std Streams, g *global, out output) error {
	list, err := newLocal(g.paths().SupervisorSocket).pods(ctx)
	if err != nil {
		return withHint(err, supervisorHint(g))
	}
	rows := processes(list)
	if out.format == "json" {
		return printJSON(std.Out, rows)
	}
	var lines [][]string
	for _, p := range rows {
		since := "-"
		if !p.Since.IsZero() {
			since = age(time.Since(p.Since))
		}
		lines = append(lines, []string{short(p.ID), p.Container, p.State, since, fmt.Sprint(p.Attempt), p.Image, p.Namespace + "/" + p.Pod})
	}
	return table(std.Out, []string{"CONTAINER", "NAME", "STATE", "SINCE", "ATTEMPT", "IMAGE", "POD"}, lines)
}

// processes flattens pods into their containers, init containers first.
func processes(list *corev1.PodList) []process {
	rows := []process{}
	for _, pod := range list.Items {
		for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			p := process{Container: s.Name, ID: s.ContainerID, Image: s.Image, Ready: s.Ready, Attempt: s.RestartCount, Namespace: pod.Namespace, Pod: pod.Name}
			p.State, p.Since = containerState(s)
			rows = append(rows, p)
		}
	}
	return rows
}

// containerState is the word for a container's state, and since when.
func containerState(s corev1.ContainerStatus) (string, time.Time) {
	switch {
	case s.State.Running != nil:
		return "Running", s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		return s.State.Terminated.Reason, s.State.Terminated.FinishedAt.Time
	case s.State.Waiting != nil:
		if last := s.LastTerminationState.Terminated; last != nil {
			return s.State.Waiting.Reason, last.FinishedAt.Time
		}
		return s.State.Waiting.Reason, time.Time{}
	}
	return "Unknown", time.Time{}
}

// short cuts "containerd://<64 hex digits>" to the 13 digits that crictl shows.
func short(id string) string {
	for i := range id {
		if i+3 <= len(id) && id[i:i+3] == "://" {
			id = id[i+3:]
			break
		}
	}
	return id[:min(13, len(id))]
}
