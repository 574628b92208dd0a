package cli

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/runtime/status"
)

func newLogs(std Streams, g *global) *cobra.Command {
	var f struct {
		follow    bool
		tail      int
		container string
	}
	cmd := &cobra.Command{
		Use: "logs COMPONENT", Short: "Print the log of a component", Args: oneArgument("component", "slipway logs etcd"),
		Long: "logs prints the log of the newest attempt of a static pod's container. COMPONENT is a pod's name with or without the node\n" +
			"(etcd, kube-apiserver-node1), optionally as NAMESPACE/NAME. The files are read directly: neither the supervisor nor the API\n" +
			"server needs to run.",
		Example:           "  slipway logs kube-apiserver -f\n  slipway logs etcd --tail 50",
		ValidArgsFunction: completeComponents(g),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogs(cmd.Context(), std, g, args[0], f.container, f.tail, f.follow)
		},
	}
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what is appended, and with the next attempt")
	cmd.Flags().IntVar(&f.tail, "tail", 0, "only the last `LINES`; 0 means all")
	cmd.Flags().StringVarP(&f.container, "container", "c", "", "the container, where the pod has several")
	return cmd
}

func runLogs(ctx context.Context, std Streams, g *global, component, container string, tail int, follow bool) error {
	namespace, pod, err := findLogs(g, component)
	if err != nil {
		return err
	}
	path, err := status.LatestLog(g.paths().PodLogs, namespace, pod, container)
	if err != nil {
		return err
	}
	if tail > 0 && !follow {
		lines, err := status.Tail(path, tail)
		for _, line := range lines {
			fmt.Fprintln(std.Out, line)
		}
		return err
	}
	return status.Copy(ctx, path, follow, std.Out)
}

// findLogs returns the namespace and name of the pod that a component name means, by the log directories that exist:
// NAMESPACE_NAME_UID.
func findLogs(g *global, component string) (namespace, pod string, err error) {
	podLogs := g.paths().PodLogs
	wantNS, want, qualified := strings.Cut(component, "/")
	if !qualified {
		wantNS, want = "", component
	}
	if strings.ContainsAny(component, `*?[\`) {
		return "", "", fmt.Errorf("%q is not the name of a component", component)
	}
	dirs, err := filepath.Glob(filepath.Join(podLogs, "*_*_*"))
	if err != nil {
		return "", "", fmt.Errorf("reading %q: %w", podLogs, err)
	}
	found := map[string]bool{}
	names := map[string]bool{}
	for _, dir := range dirs {
		parts := strings.SplitN(filepath.Base(dir), "_", 3)
		names[parts[0]+"/"+parts[1]] = true
		if (parts[1] == want || strings.HasPrefix(parts[1], want+"-")) && (wantNS == "" || parts[0] == wantNS) {
			found[parts[0]+"/"+parts[1]] = true
		}
	}
	switch matches := sortedKeys(found); {
	case len(matches) == 1:
		namespace, pod, _ = strings.Cut(matches[0], "/")
		return namespace, pod, nil
	case len(matches) > 1:
		return "", "", fmt.Errorf("%q may mean any of: %s", component, strings.Join(matches, ", "))
	case len(names) == 0:
		return "", "", withHint(fmt.Errorf("no pod has a log below %s", podLogs), supervisorHint(g))
	}
	return "", "", withHint(fmt.Errorf("no pod named %q has a log", component), "there are logs of: "+strings.Join(sortedKeys(names), ", "))
}

// completeComponents offers the pods that the supervisor runs.
func completeComponents(g *global) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		list, err := newLocal(g.paths().SupervisorSocket).pods(cmd.Context())
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, p := range list.Items {
			names = append(names, p.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// supervisorHint is what to do when the supervisor does not answer.
func supervisorHint(g *global) string {
	paths := g.paths()
	if !exists(paths.Ledger) && !exists(paths.KubeletConfig) {
		return "this machine is no node yet: make it one with: slipway init" + g.suffix()
	}
	return "start it with: slipway init phase supervisor supervise" + g.suffix() + ", or under systemd: systemctl start " + paths.SupervisorUnit +
		"\nits log is in " + paths.Logs + ", or under systemd: journalctl -u " + paths.SupervisorUnit
}
