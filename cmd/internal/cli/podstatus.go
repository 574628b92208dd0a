package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/status"
)

const (
	// tailOfLog is how many lines of a failed container's log are shown.
	tailOfLog = 10
	// recentEvents is how many of a pod's events are shown; slipway events has all.
	recentEvents = 10
)

// podReport is what `slipway status POD -o json` prints.
type podReport struct {
	status.Detail
	Ready  bool              `json:"ready"`
	Status *corev1.PodStatus `json:"status"`
	// Logs has the end of the log of each container's last exit, by the container's name.
	Logs   map[string][]string `json:"logs,omitempty"`
	Events []event.Event       `json:"events"`
}

func runPodStatus(ctx context.Context, std Streams, g *global, f statusFlags, typed string) error {
	client := g.supervisor()
	full, err := podFilter(ctx, client, typed)
	if err != nil {
		return explained(g, err)
	}
	if f.watch {
		return explained(g, watchPod(ctx, std, g, f, full))
	}
	report, err := client.report(ctx, full)
	if err != nil {
		return explained(g, err)
	}
	if err := report.print(std.Out, g, f, false); err != nil {
		return err
	}
	if !report.Ready && report.Status.Phase != corev1.PodSucceeded {
		return &exit{code: 1}
	}
	return nil
}

// watchPod prints a pod's report, and again whenever it says something else.
func watchPod(ctx context.Context, std Streams, g *global, f statusFlags, full string) error {
	client := g.supervisor()
	var last *podReport
	return watch(ctx, client, "/status"+query("pod", full, "watch", "true"), func([]status.Detail) error {
		report, err := client.report(ctx, full) // may be newer than what was announced
		if err != nil || !report.differs(last) {
			return err
		}
		last = report
		return report.print(std.Out, g, f, true)
	})
}

// differs tells whether the pod is otherwise than in an earlier report; its events do not count.
func (r *podReport) differs(from *podReport) bool {
	return from == nil || !reflect.DeepEqual(r.Detail, from.Detail)
}

func (r *podReport) print(out io.Writer, g *global, f statusFlags, series bool) error {
	if done, err := f.out.print(out, r, series); done {
		return err
	}
	if series {
		fmt.Fprintf(out, "--- %s\n", g.now().UTC().Format(time.TimeOnly))
	}
	return r.write(out, g.now(), f.out.format == "wide")
}

// report gathers what there is to say about one pod.
func (l *local) report(ctx context.Context, full string) (*podReport, error) {
	details, err := l.details(ctx, full)
	if err != nil {
		return nil, err
	}
	list, err := l.pods(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list.Items, func(p corev1.Pod) bool { return p.Namespace+"/"+p.Name == full })
	if i < 0 || len(details) == 0 {
		return nil, fmt.Errorf("pod %s is gone", full)
	}
	r := &podReport{Detail: details[0], Ready: isReady(&list.Items[i]), Status: &list.Items[i].Status, Logs: map[string][]string{}}
	if r.Events, err = l.events(ctx, full); err != nil {
		return nil, err
	}
	for _, c := range r.lastExits() {
		if lines := l.logEnd(ctx, full, c); len(lines) > 0 {
			r.Logs[c.Name] = lines
		}
	}
	return r, nil
}

// lastExits are the newest ended containers of those names that have not ended well at last.
func (r *podReport) lastExits() []*status.ContainerDetail {
	var out []*status.ContainerDetail
	seen := map[string]bool{}
	for i := range r.Containers {
		c := &r.Containers[i]
		if c.ExitCode != nil && !seen[c.Name] {
			seen[c.Name] = true
			if *c.ExitCode != 0 {
				out = append(out, c)
			}
		}
	}
	return out
}

// logEnd returns the end of a container's log, nothing where there is none.
func (l *local) logEnd(ctx context.Context, full string, c *status.ContainerDetail) []string {
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	resp, err := l.open(ctx, "/logs"+query("pod", full, "container", c.Name, "attempt", fmt.Sprint(c.Attempt), "tail", fmt.Sprint(tailOfLog)))
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// write prints the report for a human.
func (r *podReport) write(out io.Writer, now time.Time, wide bool) error {
	w := &lines{}
	w.add("Pod", r.Pod)
	w.add("State", join(": ", r.State, r.Why))
	w.add("Ready", yesNo(r.Ready))
	if !r.Until.IsZero() {
		w.add("Waits until", fmt.Sprintf("%s (%s)", r.Until.UTC().Format(time.RFC3339), in(r.Until.Sub(now))))
	}
	w.add("Failure", r.Failure)
	w.add("Problem", r.Problem)
	w.add("Manifest", r.Manifest)
	w.add("Version", r.version())
	w.add("Phase", string(r.Status.Phase))
	w.add("Not in the API", r.NotShown)
	if v := r.Rejected; v != nil {
		w.add("Given up", fmt.Sprintf("version %s of %s, %s ago: %s", short(v.UID), v.Source, age(now.Sub(v.At)), v.Reason))
		w.block(v.Log)
	}
	for _, sb := range r.Sandboxes {
		w.add("Sandbox", r.sandbox(&sb, now, wide))
	}
	for i := range r.Containers {
		r.container(w, i, now, wide)
	}
	r.events(w, now)
	_, err := io.WriteString(out, w.text())
	return err
}

func (r *podReport) version() string {
	if r.UID == "" {
		return ""
	}
	if r.UID == r.SpecHash {
		return r.UID
	}
	return fmt.Sprintf("uid %s, content %s", r.UID, r.SpecHash)
}

func (r *podReport) sandbox(sb *status.SandboxDetail, now time.Time, wide bool) string {
	id, state := short(sb.ID), "not ready"
	if wide {
		id = sb.ID
	}
	if sb.Ready {
		state = "ready"
	}
	if r.UID != "" && sb.UID != r.UID {
		state += ", of another version"
	}
	text := fmt.Sprintf("%s, attempt %d, %s, made %s ago", id, sb.Attempt, state, since(now, sb.CreatedAt))
	return join(", ", text, sb.IP)
}

// container adds a container; of the attempts of one name only the newest has all its lines.
func (r *podReport) container(w *lines, i int, now time.Time, wide bool) {
	c := &r.Containers[i]
	id := short(c.ID)
	if wide {
		id = cmp.Or(c.ID, "-")
	}
	w.add("Container", fmt.Sprintf("%s, attempt %d, %s", c.Name, c.Attempt, id))
	w.under("state", r.containerState(c, now))
	w.under("waits", join(": ", c.Waiting, r.waitingMessage(c)))
	w.under("message", c.Message)
	w.under("hook", c.Hook)
	if c.State == "running" {
		w.under("probes", probes(c))
	}
	w.under("image", c.Image)
	if wide {
		w.under("image id", c.ImageID)
	}
	if lines := r.Logs[c.Name]; len(lines) > 0 && slices.Contains(r.lastExits(), c) {
		w.under("log", "ends:")
		w.block(lines)
	}
}

// waitingMessage is what a container's status says about its waiting.
func (r *podReport) waitingMessage(c *status.ContainerDetail) string {
	if c.Waiting == "" {
		return ""
	}
	for _, s := range slices.Concat(r.Status.InitContainerStatuses, r.Status.ContainerStatuses) {
		if s.Name == c.Name && s.State.Waiting != nil && s.State.Waiting.Message != c.Message {
			return s.State.Waiting.Message
		}
	}
	return ""
}

func (r *podReport) containerState(c *status.ContainerDetail, now time.Time) string {
	text := c.State
	switch {
	case c.ExitCode != nil:
		text = fmt.Sprintf("exited %s ago with exit code %d", since(now, c.FinishedAt), *c.ExitCode)
		if c.Reason != "" {
			text += " (" + c.Reason + ")"
		}
		if !c.StartedAt.IsZero() {
			text += ", having run " + age(c.FinishedAt.Sub(c.StartedAt))
		}
	case c.State == "running":
		text = "running for " + since(now, c.StartedAt)
	case !c.CreatedAt.IsZero():
		text += " " + since(now, c.CreatedAt) + " ago"
	}
	if r.UID != "" && c.UID != r.UID {
		text += ", of another version"
	}
	return text
}

func probes(c *status.ContainerDetail) string {
	text := "not started"
	if c.Started {
		text = "started, not ready"
	}
	if c.Ready {
		text = "started, ready"
	}
	return join(": ", text, c.Probe)
}

func (r *podReport) events(w *lines, now time.Time) {
	if len(r.Events) == 0 {
		return
	}
	shown := r.Events[max(0, len(r.Events)-recentEvents):]
	w.add("Events", fmt.Sprintf("the last %d of %d", len(shown), len(r.Events)))
	for _, e := range shown {
		w.raw(fmt.Sprintf("  %-8s %-8s %-12s %s", since(now, e.Last), e.Type, e.Reason, repeated(e, now)))
	}
}

// in says how far away a moment is.
func in(d time.Duration) string {
	if d <= 0 {
		return "now"
	}
	return "in " + age(d)
}

// join joins what is not empty.
func join(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), sep)
}

// lines is a text of names and values in two columns.
type lines struct{ b strings.Builder }

// nameWidth is the longest name, "Not in the API:", and a space.
const nameWidth = 16

func (l *lines) text() string    { return l.b.String() }
func (l *lines) raw(text string) { l.b.WriteString(strings.TrimRight(text, " ") + "\n") }

// add adds a value, unless it is empty. Further lines of it stand below its first.
func (l *lines) add(name, value string) { l.put(name+":", value) }

// under adds a value to what add has added last.
func (l *lines) under(name, value string) { l.put("  "+name+":", value) }

func (l *lines) put(name, value string) {
	if value == "" {
		return
	}
	for i, line := range strings.Split(strings.TrimRight(value, "\n"), "\n") {
		if i > 0 {
			name = ""
		}
		l.raw(fmt.Sprintf("%-*s%s", nameWidth, name, line))
	}
}

// block adds lines of a log.
func (l *lines) block(lines []string) {
	for _, line := range lines {
		l.raw(strings.Repeat(" ", nameWidth) + "| " + line)
	}
}
