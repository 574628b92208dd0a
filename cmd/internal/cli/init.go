package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/preflight"
)

// initFlags are those of init and of each of its phases.
type initFlags struct {
	config   configFlags
	preview  bool
	root     string
	archives string
	trace    string
	// hideToken and hideCertificateKey keep secrets out of what init prints at its end.
	hideToken, hideCertificateKey bool
	overwrite                     bool
	out                           output
}

func (f *initFlags) register(flags *pflag.FlagSet) {
	f.config.register(flags)
	f.config.registerJoin(flags)
	flags.BoolVar(&f.hideToken, "skip-token-print", false, "do not print the token to join with")
	flags.BoolVar(&f.hideCertificateKey, "skip-certificate-key-print", false, "do not print the key of the uploaded certificates")
	flags.BoolVar(&f.overwrite, "force-conflicts", false, "overwrite what others have set in the cluster's objects, instead of keeping it")
	flags.BoolVar(&f.preview, "dry-run", false, "show what would be done and do nothing; needs no root, runtime or network")
	flags.StringVar(&f.root, "root", "", "write the files below `DIRECTORY` instead of /, start nothing")
	flags.StringVar(&f.archives, "image-archives", "", "`DIRECTORY` of image archives, docker or OCI (default /var/lib/slipway/images)")
	flags.StringVar(&f.trace, "trace", "", "write a timeline of the run to `FILE`, in the Chrome trace format")
	f.out.register(flags, "text", "json", "yaml")
}

func newInit(std Streams, g *global) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: "init", Short: "Turn this machine into a control-plane node", Args: noArguments,
		Long: "init runs these phases, in this order. Each can be run alone with \"slipway init phase NAME\", and left out with --skip-phases.\n" +
			"An init that was interrupted is continued by running it again, and taken back by \"slipway reset\".\n" +
			"While an apply, a readdress or a restore of a snapshot is interrupted init refuses, and says how to go on with it.\n\n" + phaseList(initWorkflow()),
		Example: "  slipway init\n  slipway init --dry-run -o yaml\n  slipway init --config kubeadm.yaml --image-archives /media/images",
		RunE:    func(cmd *cobra.Command, _ []string) error { return runInit(cmd.Context(), std, g, f, nil) },
	}
	f.register(cmd.Flags())
	cmd.AddCommand(newInitPhase(std, g))
	return cmd
}

// newInitPhase builds one command per phase, nested as the phases are.
func newInitPhase(std Streams, g *global) *cobra.Command {
	root := &cobra.Command{Use: "phase", Short: "Run one phase of init", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	commands := map[string]*cobra.Command{"": root}
	var names []string
	initWorkflow().Walk(func(name string, _ int, p phases.Phase) {
		commands[name] = newOnePhase(std, g, name, p)
		names = append(names, name)
		if len(p.Phases) > 0 {
			all := newOnePhase(std, g, name, p)
			all.Use, all.Short = "all", "Run every phase of "+name
			commands[name].AddCommand(all)
		}
	})
	for _, name := range names { // a phase may stand in the workflow before the group that it belongs to
		commands[name[:max(0, strings.LastIndex(name, "/"))]].AddCommand(commands[name])
	}
	return root
}

func newOnePhase(std Streams, g *global, name string, p phases.Phase) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use: name[strings.LastIndex(name, "/")+1:], Short: p.Short, Long: p.Long, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runInit(cmd.Context(), std, g, f, []string{name}) },
	}
	f.register(cmd.Flags())
	return cmd
}

// phaseList is the tree of phases for the help text.
func phaseList(w phases.Workflow) string {
	var b strings.Builder
	w.Walk(func(name string, depth int, p phases.Phase) {
		short := name
		if depth > 0 {
			short = name[strings.LastIndex(name, "/")+1:]
		}
		fmt.Fprintf(&b, "%-34s %s\n", strings.Repeat("  ", depth+1)+short, p.Short)
	})
	return strings.TrimRight(b.String(), "\n")
}

// session is one run of the init workflow: where its files go, what acts, and who is told.
type session struct {
	env     *phases.Env
	overlay *artifact.Overlay
	flush   artifact.Flush
	ui      *ui
	// refused takes back what was noted on the machine before preflight: a machine that is refused stays as it was.
	refused func() error
}

func runInit(ctx context.Context, std Streams, g *global, f initFlags, only []string) error {
	start := time.Now()
	cluster, err := f.config.load(std, g)
	if err != nil {
		return err
	}
	f.preview = f.preview || cluster.PlanOnly
	if f.preview && f.root != "" {
		return errors.New("--dry-run writes nothing, --root writes below a directory: use one of them")
	}
	plan, err := initWorkflow().Plan(only, cluster.SkipPhases)
	if err != nil {
		return withHint(err, "slipway init --help lists the phases")
	}
	if f.archives != "" {
		if cluster.Paths.ImageArchives, err = filepath.Abs(f.archives); err != nil {
			return fmt.Errorf("--image-archives: %w", err)
		}
	}
	var timeline *trace
	if f.trace != "" {
		timeline = newTrace(start)
	}
	screen := newUI(std, f.preview, timeline)
	s, release, err := open(std, cluster, f, screen)
	if err != nil {
		screen.close()
		return err
	}
	defer release()
	if !f.preview && f.root == "" {
		if err := unfinished(s.overlay, cluster.Paths, only, g.suffix()); err != nil {
			screen.close()
			return err
		}
	}
	err = s.run(ctx, plan)
	screen.close()
	if timeline != nil {
		err = errors.Join(err, timeline.write(f.trace))
	}
	if err != nil {
		return interrupted(ctx, g, err)
	}
	if err := printChanges(std, s, f.out.format, cluster); err != nil {
		return err
	}
	if only == nil && !f.preview && f.root == "" && f.out.format == "text" {
		fmt.Fprint(std.Out, welcome(cluster, time.Since(start)))
	}
	if !f.preview && f.root == "" && f.out.format == "text" {
		fmt.Fprint(std.Out, invitation(s.env.Join, f.hideToken, f.hideCertificateKey))
	}
	return nil
}

// run runs the plan, and has the timeline follow the pods meanwhile.
func (s *session) run(ctx context.Context, plan phases.Plan) error {
	if s.ui.trace != nil {
		pods := newPodTimes(s.ui.trace)
		follow, stop := context.WithCancel(ctx)
		followed := make(chan struct{})
		supervisor := newLocal(s.env.Config.Paths.SupervisorSocket)
		go func() { // ended by stop, waited for below
			defer close(followed)
			pods.follow(follow, supervisor)
		}()
		defer func() {
			stop()
			<-followed
			if list, err := supervisor.pods(context.WithoutCancel(ctx)); err == nil { // what the stream had not told yet
				pods.see(list.Items, time.Now())
			}
		}()
	}
	err := plan.Run(ctx, s.env, s.flush)
	if errors.As(err, new(*preflight.Error)) {
		err = errors.Join(err, s.refused())
	}
	return err
}

// open puts a session together. What tells a run from its preview is decided here and nowhere else.
func open(std Streams, cluster *config.Cluster, f initFlags, screen *ui) (*session, func(), error) {
	s := &session{ui: screen, env: &phases.Env{Config: cluster, Now: time.Now, Report: screen.report, Join: &phases.Join{}}, refused: func() error { return nil }}
	release := func() {}
	switch {
	case f.preview:
		s.overlay = artifact.NewOverlay(artifact.Disk{})
		s.env.Host, s.env.API, s.flush = host.NewNarrator(), kubeapi.Narrator{}, s.overlay.Preview
	case f.root != "":
		below, unlock, err := openRoot(f.root, cluster)
		if err != nil {
			return nil, nil, err
		}
		s.overlay, release = artifact.NewOverlay(below), unlock
		s.env.Host, s.env.API, s.flush = host.NewNarrator(), kubeapi.Narrator{}, s.overlay.Commit
	default:
		if os.Geteuid() != 0 {
			return nil, nil, withHint(errors.New("init must run as root"), "--dry-run and --root DIRECTORY need no rights")
		}
		live, recorded, book, err := openLive(std, cluster)
		if err != nil {
			return nil, nil, err
		}
		s.overlay, release, s.refused = artifact.NewOverlay(recorded), book.close, book.discard
		s.env.Host, s.env.API, s.flush = live, ownAPI(cluster, s.overlay, f.overwrite), s.overlay.Commit
	}
	s.env.Files = s.overlay
	return s, release, nil
}

// interrupted adds to an error after Ctrl-C how to go on.
func interrupted(ctx context.Context, g *global, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return withHint(fmt.Errorf("interrupted: %w", err), "go on with: slipway init"+g.suffix()+"\ntake it back with: slipway reset"+g.suffix())
}

// welcome says how to use what init made.
func welcome(c *config.Cluster, took time.Duration) string {
	instance := (&global{instance: c.Instance}).suffix()
	return fmt.Sprintf("\nThe control plane of %s is ready (%s).\n\n  export KUBECONFIG=%s\n  kubectl get --raw '/readyz?verbose'\n\n"+
		"  slipway%[4]s status     what runs, since when, certificates\n  slipway%[4]s reset      take it away again\n",
		c.NodeName, elapsed(took), c.Paths.Kubeconfig("admin.conf"), instance)
}

// invitation says how other machines join.
func invitation(j *phases.Join, hideToken, hideKey bool) string {
	var b strings.Builder
	for _, c := range j.Commands {
		line := c.Line
		if hideToken {
			line = strings.ReplaceAll(line, c.Token, withheld)
		}
		if hideKey && j.CertificateKey != "" {
			line = strings.ReplaceAll(line, j.CertificateKey, withheld)
		}
		who := "A worker joins"
		if c.ControlPlane {
			who = "Another control-plane node joins"
		}
		fmt.Fprintf(&b, "\n%s with this command, as root:\n\n  %s\n", who, line)
	}
	if j.CertificateKey != "" && !hideKey {
		fmt.Fprintf(&b, "\nThe certificate authorities are in the cluster for two hours, encrypted with the certificate key\n\n  %s\n\n"+
			"It gives access to all of the cluster: keep it secret.\n", j.CertificateKey)
	}
	return b.String()
}

// withheld stands for a secret that is not to be printed, as with kubeadm.
const withheld = "<value withheld>"

// ownAPI is this node's API server, for the administrators whose kubeconfigs are among the files.
func ownAPI(c *config.Cluster, files artifact.Store, overwrite bool) kubeapi.API {
	return kubeapi.NewLive(kubeapi.Options{
		Server: kubeconfig.LocalServer(c), Overwrite: overwrite,
		Admin: c.Paths.Kubeconfig("admin.conf"), SuperAdmin: c.Paths.Kubeconfig("super-admin.conf"),
		Read: func(path string) ([]byte, error) {
			f, err := files.ReadFile(path)
			return f.Data, err
		},
	})
}
