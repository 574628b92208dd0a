package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// statusFlags are those of status.
type statusFlags struct {
	watch bool
	out   output
}

func newStatus(std Streams, g *global) *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use: "status [POD]", Short: "Show the control plane of this node, or one pod: what is wanted, what is there, and why not",
		Args: atMostOne("pod", "slipway status etcd"),
		Long: "status shows what runs on this node, since when and why not, how long the certificates are good, and where things are. With a\n" +
			"POD it shows all that the supervisor knows of it: the version that is wanted and one that was given up, sandboxes and\n" +
			"containers, probes, back-off, the last exit with the end of its log, and what has happened.\n" + podHelp + "\n\n" +
			"It asks the supervisor and reads files: no API server is needed. The exit code is 1 when a pod is not ready.\n" +
			"With --watch it goes on with what changes, until Ctrl-C.",
		Example: "  slipway status\n" +
			"  slipway status kube-apiserver\n" +
			"  slipway status etcd -o json\n" +
			"  slipway status --watch",
		ValidArgsFunction: completePods(g, 1, false),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return runPodStatus(cmd.Context(), std, g, f, args[0])
			}
			return runStatus(cmd.Context(), std, g, f)
		},
	}
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on with what changes")
	f.out.register(cmd.Flags(), "text", "wide", "json", "yaml")
	return cmd
}

// nodeStatus is what `slipway status -o json` prints.
type nodeStatus struct {
	Supervisor   supervisorState  `json:"supervisor"`
	Components   []component      `json:"components"`
	Problems     []status.Problem `json:"problems"`
	Certificates []certificate    `json:"certificates"`
	Paths        places           `json:"paths"`
}

type supervisorState struct {
	Running bool   `json:"running"`
	Error   string `json:"error,omitempty"`
}

type component struct {
	Name      string    `json:"name"`
	Namespace string    `json:"namespace"`
	State     string    `json:"state"`
	Ready     bool      `json:"ready"`
	Restarts  int32     `json:"restarts"`
	Since     time.Time `json:"since,omitzero"`
	Why       string    `json:"why,omitempty"`
	Problem   string    `json:"problem,omitempty"`
	LastExit  string    `json:"lastExit,omitempty"`
	Manifest  string    `json:"manifest,omitempty"`
	Version   string    `json:"version,omitempty"`  // UID/SpecHash
	Rejected  string    `json:"rejected,omitempty"` // why a newer version was given up
	NotShown  string    `json:"notShown,omitempty"` // why the Kubernetes API does not show it
	ended     bool      // well, as its restart policy lets it
}

type certificate struct {
	Name     string    `json:"name"`
	Path     string    `json:"path"`
	NotAfter time.Time `json:"notAfter,omitzero"`
	DaysLeft int       `json:"daysLeft"`
	Missing  bool      `json:"missing,omitempty"`
	Error    string    `json:"error,omitempty"`
}

type places struct {
	Manifests  string `json:"manifests"`
	Config     string `json:"kubeletConfiguration"`
	Runtime    string `json:"runtimeSocket"`
	Supervisor string `json:"supervisorSocket"`
	PodLogs    string `json:"podLogs"`
	Logs       string `json:"logs"`
	PKI        string `json:"certificates"`
	Ledger     string `json:"ledger"`
}

func runStatus(ctx context.Context, std Streams, g *global, f statusFlags) error {
	if f.watch {
		return watchComponents(ctx, std, g, f)
	}
	paths := g.paths()
	s := nodeStatus{Paths: g.places(ctx), Components: []component{}, Problems: []status.Problem{}}
	if s.Paths.PKI != "" {
		paths.PKI = s.Paths.PKI
	}
	if err := s.ask(ctx, g.supervisor()); err != nil {
		s.Supervisor.Error = err.Error()
	}
	for _, e := range pki.Expirations(os.ReadFile, paths) {
		s.Certificates = append(s.Certificates, certificateOf(e, g.now()))
	}
	done, err := f.out.print(std.Out, s, false)
	if !done {
		err = printStatus(std.Out, s, g.now(), f.out.format == "wide")
	}
	if err != nil {
		return err
	}
	if !s.Supervisor.Running {
		return withHint(errors.New(s.Supervisor.Error), supervisorHint(g))
	}
	return allReady(s.Components)
}

// ask fills in what the supervisor knows.
func (s *nodeStatus) ask(ctx context.Context, client *local) error {
	list, err := client.pods(ctx)
	if err != nil {
		return err
	}
	details, err := client.details(ctx, "")
	if err != nil {
		return err
	}
	if s.Problems, err = client.problems(ctx); err != nil {
		return err
	}
	s.Components, s.Supervisor.Running = componentsOf(list, details), true
	return nil
}

// allReady is an exit code of 1 unless every pod is ready, or has ended as it may.
func allReady(components []component) error {
	for _, c := range components {
		if !c.Ready && !c.ended {
			return &exit{code: 1}
		}
	}
	return nil
}

// kubeletFields are those of a KubeletConfiguration that say where things are.
type kubeletFields struct {
	StaticPodPath            string `json:"staticPodPath"`
	ContainerRuntimeEndpoint string `json:"containerRuntimeEndpoint"`
	PodLogsDir               string `json:"podLogsDir"`
	Authentication           struct {
		X509 struct {
			ClientCAFile string `json:"clientCAFile"`
		} `json:"x509"`
	} `json:"authentication"`
}

// places returns where things are, by the configuration that the supervisor has in force, else by the file.
func (g *global) places(ctx context.Context) places {
	var k kubeletFields
	if err := g.supervisor().get(ctx, "/configz", &k); err != nil {
		data, err := os.ReadFile(g.paths().KubeletConfig)
		if err != nil || yaml.Unmarshal(data, &k) != nil {
			k = kubeletFields{}
		}
	}
	return locate(g.paths(), k)
}

func locate(p config.Paths, k kubeletFields) places {
	at := places{Manifests: cmp.Or(k.StaticPodPath, p.Manifests), Config: p.KubeletConfig, Runtime: p.ContainerdSocket,
		Supervisor: p.SupervisorSocket, PodLogs: cmp.Or(k.PodLogsDir, p.PodLogs), Logs: p.Logs, PKI: p.PKI, Ledger: p.Ledger}
	if k.ContainerRuntimeEndpoint != "" {
		at.Runtime = strings.TrimPrefix(k.ContainerRuntimeEndpoint, "unix://")
	}
	if dir, found := strings.CutSuffix(k.Authentication.X509.ClientCAFile, "/ca.crt"); found {
		at.PKI = dir
	}
	return at
}

func componentsOf(list *corev1.PodList, details []status.Detail) []component {
	known := map[string]*status.Detail{}
	for i := range details {
		known[details[i].Pod] = &details[i]
	}
	out := []component{}
	for i := range list.Items {
		c := componentOf(&list.Items[i])
		if d := known[c.full()]; d != nil {
			c.NotShown = d.NotShown
			if d.UID != "" {
				c.Version = d.UID + "/" + d.SpecHash
			}
		}
		out = append(out, c)
	}
	return out
}

func (c *component) full() string { return c.Namespace + "/" + c.Name }

func componentOf(p *corev1.Pod) component {
	c := component{Name: p.Name, Namespace: p.Namespace, State: p.Annotations[status.AnnotationState], Ready: isReady(p),
		Why: p.Annotations[status.AnnotationWhy], Problem: p.Annotations[status.AnnotationProblem], Manifest: p.Annotations[status.AnnotationSource],
		Rejected: p.Annotations[status.AnnotationRejected], ended: p.Status.Phase == corev1.PodSucceeded}
	for _, s := range p.Status.ContainerStatuses {
		c.Restarts += s.RestartCount
		if at := changedAt(&s); at.After(c.Since) {
			c.Since = at
		}
		if last := s.LastTerminationState.Terminated; last != nil {
			c.LastExit = fmt.Sprintf("%s, exit code %d", last.Reason, last.ExitCode)
		}
	}
	return c
}

// changedAt is since when a container is in its state, zero where that is not known.
func changedAt(s *corev1.ContainerStatus) time.Time {
	switch {
	case s.State.Running != nil:
		return s.State.Running.StartedAt.Time
	case s.State.Terminated != nil:
		return s.State.Terminated.FinishedAt.Time
	case s.LastTerminationState.Terminated != nil:
		return s.LastTerminationState.Terminated.FinishedAt.Time
	}
	return time.Time{}
}

func certificateOf(e pki.Expiry, now time.Time) certificate {
	c := certificate{Name: e.Name, Path: e.Path, NotAfter: e.NotAfter, Missing: e.Missing}
	if e.Err != nil {
		c.Error = e.Err.Error()
	}
	if !e.NotAfter.IsZero() {
		c.DaysLeft = int(e.NotAfter.Sub(now).Hours() / 24)
	}
	return c
}

func printStatus(out io.Writer, s nodeStatus, now time.Time, wide bool) error {
	if s.Supervisor.Running {
		if err := printComponents(out, s, now, wide); err != nil {
			return err
		}
	}
	if err := printCertificates(out, s.Certificates, now); err != nil {
		return err
	}
	return table(out, []string{"PATH", ""}, [][]string{
		{"manifests", s.Paths.Manifests}, {"kubelet configuration", s.Paths.Config}, {"certificates", s.Paths.PKI},
		{"runtime socket", s.Paths.Runtime}, {"supervisor socket", s.Paths.Supervisor},
		{"pod logs", s.Paths.PodLogs}, {"own logs", s.Paths.Logs}, {"ledger", s.Paths.Ledger},
	})
}

func printComponents(out io.Writer, s nodeStatus, now time.Time, wide bool) error {
	var rows [][]string
	for i := range s.Components {
		rows = append(rows, s.Components[i].row(now, wide))
	}
	if err := table(out, componentHeader(wide), rows); err != nil {
		return err
	}
	for _, c := range s.Components {
		if c.Rejected != "" {
			fmt.Fprintf(out, "given up: a newer version of %s/%s: %s\n  slipway status %s shows the end of its log\n", c.Namespace, c.Name, c.Rejected, c.Name)
		}
		if c.NotShown != "" {
			fmt.Fprintf(out, "not in the Kubernetes API: %s/%s: %s\n", c.Namespace, c.Name, c.NotShown)
		}
	}
	for _, p := range s.Problems {
		if !slices.ContainsFunc(s.Components, func(c component) bool { return c.full() == p.Pod }) { // else its row says so
			fmt.Fprintf(out, "refused: %s\n", refused(p))
		}
	}
	fmt.Fprintln(out)
	return nil
}

// refused is a problem with its source once.
func refused(p status.Problem) string {
	if strings.HasPrefix(p.Reason, p.Source) {
		return p.Reason
	}
	return p.Source + ": " + p.Reason
}

func componentHeader(wide bool) []string {
	header := []string{"COMPONENT", "STATE", "READY", "RESTARTS", "SINCE", "WHY"}
	if wide {
		header = slices.Insert(header, 5, "LAST EXIT", "VERSION", "MANIFEST")
	}
	return header
}

func (c *component) row(now time.Time, wide bool) []string {
	why := c.Why
	if c.Ready {
		why = ""
	}
	name := c.Name
	if c.Namespace != metav1.NamespaceSystem { // where the control plane is
		name = c.Namespace + "/" + name
	}
	row := []string{name, c.State, yesNo(c.Ready), fmt.Sprint(c.Restarts), since(now, c.Since), cmp.Or(c.Problem, why)}
	if wide {
		uid, _, _ := strings.Cut(c.Version, "/")
		row = slices.Insert(row, 5, cmp.Or(c.LastExit, "-"), short(uid), cmp.Or(c.Manifest, "-"))
	}
	return row
}

func printCertificates(out io.Writer, certificates []certificate, now time.Time) error {
	var rows [][]string
	for _, c := range certificates {
		switch {
		case c.Missing:
			continue
		case c.Error != "":
			rows = append(rows, []string{c.Name, "-", "unreadable: " + c.Error})
		case c.NotAfter.Before(now):
			rows = append(rows, []string{c.Name, c.NotAfter.UTC().Format("2006-01-02 15:04"), "expired"})
		default:
			rows = append(rows, []string{c.Name, c.NotAfter.UTC().Format("2006-01-02 15:04"), fmt.Sprintf("%d days", c.DaysLeft)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if err := table(out, []string{"CERTIFICATE", "EXPIRES (UTC)", "LEFT"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(out)
	return nil
}

// watchComponents prints the table of components, and then a row for each that changes.
func watchComponents(ctx context.Context, std Streams, g *global, f statusFlags) error {
	client := g.supervisor()
	p := &componentPrinter{out: f.out, to: std.Out, now: g.now}
	return explained(g, watch(ctx, client, "/status?watch=true", func(details []status.Detail) error {
		list, err := client.pods(ctx)
		if err != nil {
			return err
		}
		return p.changes(componentsOf(list, details))
	}))
}

// componentPrinter prints components, and remembers what it printed.
type componentPrinter struct {
	out     output
	to      io.Writer
	now     func() time.Time
	columns columns
	last    map[string]component // by full name; nil before the first
}

// changes prints what is otherwise than before. What is gone is shown once more, as removed.
func (p *componentPrinter) changes(components []component) error {
	next := map[string]component{}
	var changed []component
	for _, c := range components {
		next[c.full()] = c
		if before, known := p.last[c.full()]; !known || before != c {
			changed = append(changed, c)
		}
	}
	for _, c := range slices.SortedFunc(maps.Values(p.last), func(a, b component) int { return cmp.Compare(a.full(), b.full()) }) {
		if _, there := next[c.full()]; !there {
			changed = append(changed, component{Name: c.Name, Namespace: c.Namespace, State: "Removed"})
		}
	}
	wide := p.out.format == "wide"
	var rows [][]string
	if p.last == nil && (wide || p.out.format == "text") {
		rows = append(rows, componentHeader(wide))
	}
	p.last = next
	for i := range changed {
		if done, err := p.out.print(p.to, changed[i], true); err != nil {
			return err
		} else if !done {
			rows = append(rows, changed[i].row(p.now(), wide))
		}
	}
	return p.columns.print(p.to, rows)
}
