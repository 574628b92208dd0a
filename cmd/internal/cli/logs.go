package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/runtime/status"
)

// logsFlags are those of logs.
type logsFlags struct {
	follow, previous, timestamps bool
	tail                         int
	since, container             string
}

func newLogs(std Streams, g *global) *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use: "logs POD [CONTAINER]", Short: "Print the log of a container", Args: podAndContainer("slipway logs etcd"),
		Long: "logs prints the log of the newest attempt of a static pod's container, with what was rotated away and compressed meanwhile.\n" +
			podHelp + " The files are read directly: neither the supervisor nor the API server needs to run.",
		Example: "  slipway logs kube-apiserver -f\n" +
			"  slipway logs etcd --tail 50\n" +
			"  slipway logs etcd --previous --timestamps     what the attempt that has ended last wrote\n" +
			"  slipway logs kube-system/web nginx --since 10m",
		ValidArgsFunction: completePods(g, 1, true),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && f.container != "" && f.container != args[1] {
				return fmt.Errorf("two containers are named: %q and, with --container, %q", args[1], f.container)
			}
			if len(args) > 1 {
				f.container = args[1]
			}
			return runLogs(cmd.Context(), std, g, args[0], f)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what is appended, and with the next attempts")
	flags.BoolVarP(&f.previous, "previous", "p", false, "the attempt that has ended last")
	flags.IntVar(&f.tail, "tail", -1, "only the last `LINES`; -1 means all")
	flags.StringVar(&f.since, "since", "", "only what was written since `WHEN`: a duration such as 10m, or a time such as 2026-03-01T12:00:00Z")
	flags.BoolVar(&f.timestamps, "timestamps", false, "print the time before each line")
	flags.StringVarP(&f.container, "container", "c", "", "the container, where the pod has several")
	if err := cmd.RegisterFlagCompletionFunc("container", completeContainers(g)); err != nil {
		panic(err) // the flag is there, and this is the first function for it
	}
	return cmd
}

func runLogs(ctx context.Context, std Streams, g *global, typed string, f logsFlags) error {
	since, err := sinceTime(f.since, time.Now())
	if err != nil {
		return err
	}
	podLogs := g.places(ctx).PodLogs
	pod, err := findLogs(ctx, g, podLogs, typed)
	if err != nil {
		return err
	}
	of := status.LogOf{Namespace: pod.namespace, Pod: pod.name, Container: f.container, Attempt: status.NewestAttempt}
	if f.previous {
		of.Attempt = lastEnded(ctx, g, pod, f.container)
	}
	path, err := status.FindLog(podLogs, of)
	if err != nil {
		return err
	}
	return status.CopyLog(ctx, path, status.LogOptions{Tail: f.tail, Since: since, Timestamps: f.timestamps, Follow: f.follow}, std.Out)
}

// lastEnded is the attempt that has ended last, as kubectl has it: while a container waits for its restart that is the
// newest. Where the supervisor does not tell it is the one before the newest.
func lastEnded(ctx context.Context, g *global, pod podName, container string) int {
	details, err := g.supervisor().details(ctx, pod.full())
	if err != nil || len(details) == 0 {
		return status.PreviousAttempt
	}
	for _, c := range details[0].Containers { // the newest of each name first
		if c.ExitCode != nil && (container == "" || c.Name == container) {
			return int(c.Attempt)
		}
	}
	return status.PreviousAttempt
}

// sinceTime reads a duration before now, or a time; zero for "".
func sinceTime(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since: %q is neither a duration such as 10m nor a time such as 2026-03-01T12:00:00Z", text)
	}
	return t, nil
}

// findLogs returns the pod that a user means: one that the supervisor tells of, else one that has log directories,
// NAMESPACE_NAME_UID.
func findLogs(ctx context.Context, g *global, podLogs, typed string) (podName, error) {
	list, away := g.supervisor().pods(ctx)
	if pod, err := findPod(typed, podNames(list)); err == nil {
		return pod, nil
	}
	dirs, err := filepath.Glob(filepath.Join(podLogs, "*_*_*"))
	if err != nil {
		return podName{}, fmt.Errorf("reading %q: %w", podLogs, err)
	}
	seen := map[podName]bool{}
	var pods []podName
	for _, dir := range dirs {
		parts := strings.SplitN(filepath.Base(dir), "_", 3)
		if p := (podName{namespace: parts[0], name: parts[1]}); !seen[p] {
			seen[p] = true
			pods = append(pods, p)
		}
	}
	pod, err := findPod(typed, pods)
	if err != nil && away == nil {
		return findPod(typed, podNames(list)) // which says it better
	}
	if hint := (*hinted)(nil); errors.As(err, &hint) && len(pods) == 0 {
		return podName{}, withHint(fmt.Errorf("no pod has a log below %s", podLogs), supervisorHint(g))
	}
	return pod, err
}

// podAndContainer wants a pod, and takes a container.
func podAndContainer(example string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 || len(args) == 2 {
			return nil
		}
		return withHint(fmt.Errorf("%s takes a pod and perhaps a container, not %d arguments", cmd.CommandPath(), len(args)), "for example: "+example)
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
