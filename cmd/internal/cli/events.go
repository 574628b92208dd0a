package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/runtime/event"
)

// eventsFlags are those of events.
type eventsFlags struct {
	watch bool
	pod   string
	out   output
}

func newEvents(std Streams, g *global) *cobra.Command {
	var f eventsFlags
	cmd := &cobra.Command{
		Use: "events", Short: "Show what has happened to the static pods of this node", Args: noArguments,
		Long: "events prints what the supervisor has done and met since it was started, oldest first: the latest thousand, under the kubelet's\n" +
			"names. It asks the supervisor's socket: no API server is needed.\n\n" +
			"With --watch it goes on with what happens, until Ctrl-C.",
		Example: "  slipway events\n  slipway events --pod etcd -w\n  slipway events -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return runEvents(cmd.Context(), std, g, f) },
	}
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on with what happens")
	cmd.Flags().StringVar(&f.pod, "pod", "", "only what happened to this `POD`, by the name of its manifest, by its own, or as NAMESPACE/NAME")
	f.out.register(cmd.Flags(), "text", "wide", "json", "yaml")
	if err := cmd.RegisterFlagCompletionFunc("pod", completePods(g, 1, false)); err != nil {
		panic(err) // the flag is there, and this is the first function for it
	}
	return cmd
}

func runEvents(ctx context.Context, std Streams, g *global, f eventsFlags) error {
	client := g.supervisor()
	full, err := podFilter(ctx, client, f.pod)
	if err != nil {
		return explained(g, err)
	}
	events, err := client.events(ctx, full)
	if err != nil {
		return explained(g, err)
	}
	text := f.out.format == "text" || f.out.format == "wide"
	if !f.watch && !text {
		_, err := f.out.print(std.Out, events, false)
		return err
	}
	var columns columns
	show := func(events []event.Event, rows ...[]string) error {
		for i := range events {
			if done, err := f.out.print(std.Out, events[i], true); err != nil {
				return err
			} else if !done {
				rows = append(rows, eventRow(&events[i], g.now(), f.out.format == "wide"))
			}
		}
		return columns.print(std.Out, rows)
	}
	var header [][]string
	if text {
		header = append(header, eventHeader(f.out.format == "wide"))
	}
	if err := show(events, header...); err != nil || !f.watch {
		return err
	}
	last := ""
	if n := len(events); n > 0 {
		last = fmt.Sprint(events[n-1].Number)
	}
	return explained(g, watch(ctx, client, "/events"+query("pod", full, "since", last, "watch", "true"), func(e event.Event) error {
		return show([]event.Event{e})
	}))
}

func eventHeader(wide bool) []string {
	if wide {
		return []string{"LAST", "FIRST", "COUNT", "TYPE", "REASON", "POD", "CONTAINER", "UID", "MESSAGE"}
	}
	return []string{"LAST", "TYPE", "REASON", "POD", "MESSAGE"}
}

func eventRow(e *event.Event, now time.Time, wide bool) []string {
	of := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	if wide {
		return []string{since(now, e.Last), since(now, e.First), fmt.Sprint(e.Count), e.Type, e.Reason, of(e.Pod), of(e.Container), of(e.UID), e.Message}
	}
	return []string{since(now, e.Last), e.Type, e.Reason, of(e.Pod), repeated(*e, now)}
}

// repeated is an event's message, with how often it came, as kubectl describe has it.
func repeated(e event.Event, now time.Time) string {
	if e.Count < 2 {
		return e.Message
	}
	return fmt.Sprintf("%s (x%d over %s)", e.Message, e.Count, age(now.Sub(e.First)))
}
