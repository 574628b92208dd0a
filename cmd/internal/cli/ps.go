package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/status"
)

// psFlags are those of ps.
type psFlags struct {
	all, quiet, watch bool
	pod               string
	out               output
}

func newPs(std Streams, g *global) *cobra.Command {
	var f psFlags
	cmd := &cobra.Command{
		Use: "ps", Short: "List the containers of this node's static pods", Args: noArguments,
		Long: "ps lists the containers that run, as crictl ps shows them; with --all also those that have ended and those that are not there\n" +
			"yet, and why not. It asks the supervisor's socket: no API server is needed.\n\n" +
			"With --watch it goes on with a line for each container that changes, until Ctrl-C.",
		Example: "  slipway ps\n" +
			"  slipway ps -a --pod etcd\n" +
			"  slipway ps -w\n" +
			"  slipway ps -q --pod etcd     the ids alone, for crictl and ctr",
		RunE: func(cmd *cobra.Command, _ []string) error { return runPs(cmd.Context(), std, g, f) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.all, "all", "a", false, "also containers that do not run")
	flags.StringVar(&f.pod, "pod", "", "only the containers of this `POD`, by the name of its manifest, by its own, or as NAMESPACE/NAME")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print only ids")
	flags.BoolVarP(&f.watch, "watch", "w", false, "go on with what changes")
	f.out.register(flags, "text", "wide", "json", "yaml")
	if err := cmd.RegisterFlagCompletionFunc("pod", completePods(g, 1, false)); err != nil {
		panic(err) // the flag is there, and this is the first function for it
	}
	return cmd
}

// process is one row of ps.
type process struct {
	Container string    `json:"container"`
	ID        string    `json:"id,omitempty"`
	PodID     string    `json:"podID,omitempty"`
	Image     string    `json:"image"`
	ImageID   string    `json:"imageID,omitempty"`
	State     string    `json:"state"` // Running, Exited, Created, Unknown, or why it is not there
	Waiting   string    `json:"waiting,omitempty"`
	Ready     bool      `json:"ready"`
	Attempt   uint32    `json:"attempt"`
	ExitCode  *int32    `json:"exitCode,omitempty"`
	Reason    string    `json:"reason,omitempty"` // of its end
	Since     time.Time `json:"since,omitzero"`   // it is in this state
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
}

func runPs(ctx context.Context, std Streams, g *global, f psFlags) error {
	client := g.supervisor()
	full, err := podFilter(ctx, client, f.pod)
	if err != nil {
		return explained(g, err)
	}
	p := &psPrinter{f: f, out: std.Out, now: g.now}
	if !f.watch {
		details, err := client.details(ctx, full)
		if err != nil {
			return explained(g, err)
		}
		return p.all(processes(details, f.all))
	}
	return explained(g, watch(ctx, client, "/status"+query("pod", full, "watch", "true"), func(details []status.Detail) error {
		return p.changes(processes(details, true))
	}))
}

// explained adds what to do to the error of a supervisor that does not run; others stay as they are.
func explained(g *global, err error) error {
	if !errors.Is(err, errNotRunning) {
		return err
	}
	return withHint(err, supervisorHint(g))
}

// podFilter returns the full name of the pod that a user means, "" for all.
func podFilter(ctx context.Context, client *local, typed string) (string, error) {
	if typed == "" {
		return "", nil
	}
	list, err := client.pods(ctx)
	if err != nil {
		return "", err
	}
	pod, err := findPod(typed, podNames(list))
	return pod.full(), err
}

// processes flattens pods into their containers, by pod, name and attempt, the newest first.
func processes(details []status.Detail, all bool) []process {
	rows := []process{}
	for _, d := range details {
		namespace, pod, _ := strings.Cut(d.Pod, "/")
		for i := range d.Containers {
			c := &d.Containers[i]
			if !all && c.State != "running" {
				continue
			}
			p := process{Container: c.Name, ID: c.ID, PodID: c.Sandbox, Image: c.Image, ImageID: c.ImageID, Waiting: c.Waiting, Ready: c.Ready,
				Attempt: c.Attempt, Namespace: namespace, Pod: pod}
			p.State, p.Since = containerState(c)
			if p.ExitCode = c.ExitCode; p.ExitCode != nil {
				p.Reason = c.Reason
			}
			rows = append(rows, p)
		}
	}
	return rows
}

// containerState is the word for a container's state, as crictl has it, and since when.
func containerState(c *status.ContainerDetail) (string, time.Time) {
	switch c.State {
	case "running":
		return "Running", c.StartedAt
	case "exited":
		return "Exited", c.FinishedAt
	case "created":
		return "Created", c.CreatedAt
	case "waiting":
		return c.Waiting, time.Time{}
	}
	return "Unknown", time.Time{}
}

// exit is the row's exit code, with a reason that says more than the code.
func (p *process) exit() string {
	switch {
	case p.ExitCode == nil:
		return "-"
	case slices.Contains([]string{"", "Error", "Completed"}, p.Reason):
		return fmt.Sprint(*p.ExitCode)
	}
	return fmt.Sprintf("%d (%s)", *p.ExitCode, p.Reason)
}

// psPrinter prints rows, and remembers what it printed.
type psPrinter struct {
	f       psFlags
	out     io.Writer
	now     func() time.Time
	columns columns
	begun   bool
	last    map[string]process // by key
}

func (p *psPrinter) all(rows []process) error {
	switch {
	case p.f.quiet:
		return p.ids(rows)
	default:
		if done, err := p.f.out.print(p.out, rows, false); done {
			return err
		}
	}
	return p.rows(rows)
}

// rows prints rows, below a header at the first time.
func (p *psPrinter) rows(rows []process) error {
	var lines [][]string
	if !p.begun {
		p.begun = true
		lines = append(lines, p.header())
	}
	for i := range rows {
		lines = append(lines, p.line(&rows[i]))
	}
	return p.columns.print(p.out, lines)
}

func (p *psPrinter) header() []string {
	line := []string{"CONTAINER", "NAME", "STATE"}
	if p.f.all {
		line = append(line, "EXIT")
	}
	line = append(line, "SINCE", "ATTEMPT", "IMAGE", "POD")
	if p.f.out.format == "wide" {
		line = append(line, "READY", "WAITING", "POD ID", "IMAGE ID")
	}
	return line
}

func (p *psPrinter) line(row *process) []string {
	line := []string{short(row.ID), row.Container, row.State}
	if p.f.all {
		line = append(line, row.exit())
	}
	line = append(line, since(p.now(), row.Since), fmt.Sprint(row.Attempt), row.Image, row.Namespace+"/"+row.Pod)
	if p.f.out.format == "wide" {
		line = append(line, yesNo(row.Ready), cmp.Or(row.Waiting, "-"), short(row.PodID), short(strings.TrimPrefix(row.ImageID, "sha256:")))
	}
	return line
}

func (p *psPrinter) ids(rows []process) error {
	for _, row := range rows {
		if row.ID == "" {
			continue
		}
		if _, err := fmt.Fprintln(p.out, row.ID); err != nil {
			return fmt.Errorf("printing ids: %w", err)
		}
	}
	return nil
}

// fresh prints the ids that were not printed yet.
func (p *psPrinter) fresh(next map[string]process, rows []process) error {
	rows = slices.DeleteFunc(rows, func(row process) bool { _, known := p.last[row.key()]; return known })
	p.last = next
	return p.ids(rows)
}

// changes prints what is otherwise than before: of containers that do not run only those that were shown running,
// unless all are wanted. What is gone is shown once more, as removed.
func (p *psPrinter) changes(rows []process) error {
	next, changed := map[string]process{}, []process{}
	for _, row := range rows {
		before, known := p.last[row.key()]
		if !p.f.all && row.State != "Running" && !known {
			continue
		}
		next[row.key()] = row
		if !known || p.visible(&before) != p.visible(&row) {
			changed = append(changed, row)
		}
	}
	if p.f.quiet {
		return p.fresh(next, changed)
	}
	for key, row := range p.last {
		if _, there := next[key]; !there && row.ID != "" && (p.f.all || row.State == "Running") {
			row.State, row.Since, row.Waiting = "Removed", time.Time{}, ""
			changed = append(changed, row)
		}
	}
	slices.SortFunc(changed, func(a, b process) int {
		return cmp.Or(cmp.Compare(a.Namespace+"/"+a.Pod, b.Namespace+"/"+b.Pod), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.ID, b.ID))
	})
	p.last = next
	for i := range changed {
		if done, err := p.f.out.print(p.out, changed[i], true); err != nil {
			return err
		} else if !done {
			return p.rows(changed)
		}
	}
	if p.f.out.format == "text" || p.f.out.format == "wide" {
		return p.rows(nil) // the header, at least
	}
	return nil
}

func (p *process) key() string {
	return strings.Join([]string{p.Namespace, p.Pod, p.Container, p.ID}, "/")
}

// visible is all that is printed of a row, with a time in the place of an age.
func (p *psPrinter) visible(row *process) string {
	line := *row
	line.Since = time.Time{}
	if p.f.out.format == "text" || p.f.out.format == "wide" {
		return fmt.Sprint(p.line(&line), row.Since.UnixNano())
	}
	line.ExitCode = nil
	return fmt.Sprint(line, row.exit(), row.Since.UnixNano())
}

// short cuts "containerd://<64 hex digits>" to the 13 digits that crictl shows.
func short(id string) string {
	if _, rest, found := strings.Cut(id, "://"); found {
		id = rest
	}
	return cmp.Or(id[:min(13, len(id))], "-")
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// isReady tells whether a pod's Ready condition is true.
func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
