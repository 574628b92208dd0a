package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

func newRestart(std Streams, g *global) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use: "restart POD...", Short: "Restart the containers of static pods", Args: someArguments("pod", "slipway restart kube-apiserver"),
		Long: "restart has the supervisor stop every running container of a pod, each with its hook and its grace period, and start it again in\n" +
			"the same sandbox, at once: without back-off, and with a restart count that is one higher. It returns when the supervisor has\n" +
			"taken the order; slipway status POD shows what becomes of it. " + podHelp,
		Example:           "  slipway restart kube-apiserver\n  slipway restart etcd --why 'new certificate'",
		ValidArgsFunction: completePods(g, 1000, false),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRestart(cmd.Context(), std, g, args, why) },
	}
	cmd.Flags().StringVar(&why, "why", "", "`TEXT` of one line that events and logs give as the reason")
	return cmd
}

// runRestart orders nothing unless every name means a pod.
func runRestart(ctx context.Context, std Streams, g *global, typed []string, why string) error {
	client := g.supervisor()
	list, err := client.pods(ctx)
	if err != nil {
		return explained(g, err)
	}
	var names []string
	for _, name := range typed {
		pod, err := findPod(name, podNames(list))
		if err != nil {
			return err
		}
		names = append(names, pod.full())
	}
	var failed []error
	for _, full := range names {
		if err := client.restart(ctx, full, why); err != nil {
			failed = append(failed, fmt.Errorf("restarting %s: %w", full, err))
			continue
		}
		fmt.Fprintf(std.Out, "restarting %s\n", full)
	}
	return errors.Join(failed...)
}
