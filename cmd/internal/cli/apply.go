package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/apply"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/controlplane"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/status"
)

// applyTimeout is what a component gets to become ready: ten times what one takes on a small machine, and less than
// the supervisor would give it.
const applyTimeout = 2 * time.Minute

// applyFlags are those of apply.
type applyFlags struct {
	config             configFlags
	yes, preview, back bool
	archives, root     string
	timeout            time.Duration
}

func newApply(std Streams, g *global) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply", Short: "Change the configuration of this control-plane node", Args: noArguments,
		Long: "apply shows what a configuration changes on this node, as diff does, asks, and does it: it writes the files that differ, and\n" +
			"replaces or restarts the components that they affect, one after the other, each when the one before is ready. What does not\n" +
			"become and stay ready is taken back: every file is what it was, and what was ready is ready again. The exit code is 3 then.\n\n" +
			"A file is the whole configuration: what it leaves out has its default. Without --config, what the cluster has stored is\n" +
			"changed by the flags alone; patches are not stored, so they must be named again.\n\n" +
			"An apply that was interrupted is continued by running it again, and taken back by apply --take-back. docs/apply.md says of\n" +
			"every field what a change of it does, and which are refused.",
		Example: "  slipway apply --config kubeadm.yaml --dry-run\n  slipway apply --config kubeadm.yaml --yes",
		RunE:    func(cmd *cobra.Command, _ []string) error { return runApply(cmd.Context(), std, g, f) },
	}
	f.config.register(cmd.Flags())
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&f.preview, "dry-run", false, "show what would be done, and do nothing")
	cmd.Flags().StringVar(&f.root, "root", "", "with --dry-run: compare with the files below `DIRECTORY`, as init --root writes them")
	cmd.Flags().BoolVar(&f.back, "take-back", false, "put everything back as it was before an apply that was interrupted")
	cmd.Flags().StringVar(&f.archives, "image-archives", "", "`DIRECTORY` of image archives, docker or OCI (default /var/lib/slipway/images)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", applyTimeout, "how long each component may take to become ready before everything is taken back")
	return cmd
}

func runApply(ctx context.Context, std Streams, g *global, f applyFlags) error {
	if f.preview && f.back {
		return errors.New("--dry-run shows what a configuration changes, --take-back asks for none: use one of them")
	}
	if f.root == "" {
		if err := besideStandstill(artifact.Disk{}, g.paths(), g.suffix()); err != nil {
			return err
		}
	}
	was, err := apply.OnDisk(artifact.Disk{Root: f.root}, g.paths())
	if err != nil {
		if errors.Is(err, apply.ErrNoControlPlane) && f.root == "" {
			err = withHint(err, "make it one with: slipway init"+g.suffix())
		}
		return err
	}
	cluster, err := f.load(ctx, std, g, was)
	if err != nil {
		return err
	}
	f.preview = f.preview || cluster.PlanOnly
	if f.preview {
		change, err := planApply(ctx, std, cluster, was, artifact.Disk{Root: f.root})
		if err == nil {
			err = change.show(std, "would ")
		}
		return err
	}
	if f.root != "" {
		return errors.New("--root is only for --dry-run: what runs reads the files of this machine")
	}
	if os.Geteuid() != 0 {
		return withHint(errors.New("apply must run as root"), "--dry-run needs no more than to read the files")
	}
	live, disk, book, err := openLive(std, cluster)
	if err != nil {
		return err
	}
	defer book.close()
	screen := newUI(std, false, nil)
	defer screen.close()
	env := &phases.Env{
		Config: cluster, Files: disk, Host: live, API: ownAPI(cluster, disk, true), Now: time.Now, Join: &phases.Join{}, Report: screen.report,
	}
	a := applyWith(g, env, f.timeout)
	change, err := planApply(ctx, std, cluster, was, disk)
	if err != nil && (change == nil || !change.unfinished(f.back)) {
		return err
	}
	if change.unfinished(f.back) {
		return f.takeBack(ctx, std, g, a, change)
	}
	if f.back {
		return errors.New("no apply was interrupted: there is nothing to take back")
	}
	return f.do(ctx, std, g, a, change)
}

// load returns the cluster that is wanted: what the file and the flags say, or what the cluster has stored and the
// flags.
func (f *applyFlags) load(ctx context.Context, std Streams, g *global, was *apply.Node) (*config.Cluster, error) {
	var cluster *config.Cluster
	var err error
	if f.stored() {
		var data []byte
		if data, err = storedConfiguration(ctx, g, was, artifact.Disk{Root: f.root}); err != nil {
			return nil, withHint(err, "with --config FILE the cluster is not asked")
		}
		cluster, err = f.config.loadFrom(std, g, "ConfigMap kube-system/kubeadm-config", data)
	} else {
		cluster, err = f.config.load(std, g)
	}
	if err != nil {
		return nil, err
	}
	if f.archives != "" {
		if cluster.Paths.ImageArchives, err = filepath.Abs(f.archives); err != nil {
			return nil, fmt.Errorf("--image-archives: %w", err)
		}
	}
	return cluster, nil
}

// stored tells whether what the cluster has stored stands for the file.
func (f *applyFlags) stored() bool { return f.config.file == "" && !f.back }

// storedTimeout is how long the API server may take to tell the configuration.
const storedTimeout = 20 * time.Second

// storedConfiguration returns kubeadm's documents for this node: what the cluster has stored, and what the node's files
// say of itself.
func storedConfiguration(ctx context.Context, g *global, was *apply.Node, files artifact.Store) ([]byte, error) {
	address, port, err := was.Endpoint()
	if err != nil {
		return nil, err
	}
	api := ownAPI(&config.Cluster{Paths: g.paths(), AdvertiseAddress: address, BindPort: port}, files, false)
	ctx, cancel := context.WithTimeout(ctx, storedTimeout)
	defer cancel()
	o, err := api.Get(ctx, kubeapi.Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: "kube-system", Name: "kubeadm-config"})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration that the cluster has stored: %w", err)
	}
	document, found, err := unstructured.NestedString(o.Object, "data", "ClusterConfiguration")
	if err != nil || !found {
		return nil, errors.New("reading the configuration that the cluster has stored: ConfigMap kube-system/kubeadm-config has no ClusterConfiguration")
	}
	registration := fmt.Sprintf("name: %q", was.Name)
	if socket := was.Kubelet.ContainerRuntimeEndpoint; socket != "unix://"+g.paths().ContainerdSocket {
		registration += fmt.Sprintf(", criSocket: %q", socket)
	}
	kubelet, err := files.ReadFile(g.paths().KubeletConfig)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint: {advertiseAddress: %q, bindPort: %d}\n"+
		"nodeRegistration: {%s}\n---\n%s", document, address, port, registration, kubelet.Data), nil
}

// pending is what an apply is about to do.
type pending struct {
	changes []artifact.Change
	steps   []apply.Step
	record  *apply.Record // of an apply that was interrupted; nil for none
	was     *apply.Node
}

// unfinished tells whether what was interrupted is to be taken back before anything else.
func (p *pending) unfinished(asked bool) bool {
	return p.record != nil && (asked || p.record.Reason != "")
}

// planApply compares the configuration with the files. Where a change is refused the record is returned all the same.
func planApply(ctx context.Context, std Streams, cluster *config.Cluster, was *apply.Node, disk artifact.Store) (*pending, error) {
	p := &pending{was: was}
	var err error
	if p.record, err = apply.LoadRecord(disk, cluster.Paths.ApplyRecord()); err != nil {
		return nil, err
	}
	ca, err := controlplane.FindSigningCA(cluster, disk)
	if err != nil {
		return nil, err
	}
	is, err := apply.Configured(cluster, ca)
	if err != nil {
		return p, err
	}
	if err := apply.Refuse(was, is); err != nil {
		return p, err
	}
	overlay := artifact.NewOverlay(disk)
	changes, err := previewInit(ctx, cluster, overlay, func(e phases.Event) { fmt.Fprintf(std.Err, "warning: %s\n", e.Text) })
	if err != nil {
		return p, err
	}
	if p.changes, err = p.record.Since(changes, overlay.ReadFile); err != nil {
		return p, err
	}
	p.steps = apply.Plan(p.changes, cluster.Paths, is)
	return p, nil
}

// show prints the differences to standard output, and the steps to standard error.
func (p *pending) show(std Streams, would string) error {
	if _, err := fmt.Fprint(std.Out, artifact.Diff(p.changes)); err != nil {
		return fmt.Errorf("printing the differences: %w", err)
	}
	for _, s := range p.steps {
		fmt.Fprintf(std.Err, "%s%s\n", would, s)
	}
	if len(p.steps) == 0 {
		fmt.Fprintln(std.Err, "there is nothing to change")
	}
	return nil
}

// applyWith returns what acts through the phases of init and the supervisor's socket.
func applyWith(g *global, env *phases.Env, timeout time.Duration) *apply.Apply {
	return &apply.Apply{
		Env: env, Timeout: timeout,
		Phase: func(ctx context.Context, name string) error {
			plan, err := initWorkflow().Plan([]string{name}, nil)
			if err != nil {
				return err
			}
			return plan.Run(ctx, env, func(context.Context) ([]artifact.Change, error) { return nil, nil })
		},
		Restart: func(ctx context.Context, component, why string, deadline time.Duration) error {
			tell := func(text string) {
				env.Report(phases.Event{Kind: phases.Progress, Phase: component, Text: text, Time: env.Now()})
			}
			r, err := newRollout(ctx, g.supervisor(), deadline, tell)
			if err != nil {
				return err
			}
			return r.restart(ctx, []restartStep{{pod: component, why: why}})
		},
	}
}

// do shows the change, asks, and makes it.
func (f *applyFlags) do(ctx context.Context, std Streams, g *global, a *apply.Apply, change *pending) error {
	start := time.Now()
	if err := change.show(std, ""); err != nil {
		return err
	}
	if len(change.steps) == 0 && change.record == nil {
		return f.store(ctx, a)
	}
	ready, err := readyComponents(ctx, g)
	if err != nil {
		return err
	}
	if !f.yes && !confirmed(std) {
		return errors.New("nothing was done")
	}
	record := change.record
	if record == nil {
		record = &apply.Record{Began: a.Env.Now(), Node: a.Env.Config.NodeName, Ready: ready}
	}
	if slices.ContainsFunc(change.steps, func(s apply.Step) bool { return s.Kind == apply.NewVersion }) {
		if err := a.Phase(ctx, "supervisor/images"); err != nil { // before anything is changed
			return err
		}
	}
	if err := a.Forward(ctx, record, change.steps); err != nil {
		return f.outcome(ctx, g, err)
	}
	if err := f.store(ctx, a); err != nil {
		return err
	}
	fmt.Fprintf(std.Err, "apply done (%s)\n", elapsed(time.Since(start)))
	return nil
}

// store puts the configuration into the cluster, as init does. What this node runs does not depend on it.
func (f *applyFlags) store(ctx context.Context, a *apply.Apply) error {
	phase := "upload-config"
	if f.stored() {
		phase = "upload-config/kubeadm" // this node's KubeletConfiguration is not that of others
	}
	if slices.ContainsFunc(a.Env.Config.SkipPhases, func(s string) bool { return strings.HasPrefix(s, "upload-config") }) {
		return nil
	}
	if err := a.Phase(ctx, phase); err != nil {
		return withHint(fmt.Errorf("this node runs as configured, but what the cluster has stored is the former configuration: %w", err), "run the same command again")
	}
	return nil
}

// takeBack undoes what was interrupted.
func (f *applyFlags) takeBack(ctx context.Context, std Streams, g *global, a *apply.Apply, change *pending) error {
	r, node := change.record, *a.Env.Config // as it is on disk, whatever the flags say
	node.NodeName, node.Paths.Manifests = r.Node, change.was.Manifests
	a.Env.Config = &node
	reason := errors.New("taken back, as asked: the apply that was begun on " + r.Began.Format(time.DateTime))
	if r.Reason != "" {
		reason = errors.New(r.Reason)
	} else {
		r.Reason = reason.Error()
	}
	err := a.Back(ctx, r, reason)
	if back := (*apply.RolledBack)(nil); errors.As(err, &back) && f.back {
		fmt.Fprintln(std.Err, back)
		return nil
	}
	return f.outcome(ctx, g, err)
}

// outcome gives an error of an apply its exit code and the next step.
func (f *applyFlags) outcome(ctx context.Context, g *global, err error) error {
	again := "slipway apply" + g.suffix()
	switch {
	case errors.As(err, new(*apply.RolledBack)):
		return &exit{code: 3, err: withHint(err, "mend the configuration, then run: "+again+" --config FILE")}
	case ctx.Err() != nil:
		return withHint(fmt.Errorf("interrupted: %w", err), "go on with: "+again+" --config FILE\ntake it back with: "+again+" --take-back")
	}
	return withHint(err, "take it back with: "+again+" --take-back")
}

// readyComponents asks the supervisor which components are ready in the version that their manifest has.
func readyComponents(ctx context.Context, g *global) ([]string, error) {
	list, err := g.supervisor().pods(ctx)
	if errors.Is(err, errNotRunning) {
		return nil, withHint(err, "start it again with: slipway init phase supervisor supervise"+g.suffix())
	}
	if err != nil {
		return nil, err
	}
	var ready []string
	for _, name := range plane.Components() {
		for i := range list.Items {
			p := &list.Items[i]
			if p.Name == name+"-"+strings.ToLower(p.Spec.NodeName) && p.Annotations[status.AnnotationRejected] == "" && isReady(p) {
				ready = append(ready, name)
			}
		}
	}
	return ready, nil
}
