// Package cli is slipway's command line: one file per verb, each a thin adapter over the packages that do the work.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/slipway-k8s/slipway/phases/config"
)

// Streams are what a run reads and writes, and the environment it sees.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string
}

// Main runs one command and returns its exit code: 0 for success, 1 for an error, 2 where diff finds a difference.
// Errors are printed to std.Err.
func Main(ctx context.Context, args []string, std Streams) int {
	return run(ctx, NewRoot(std), args, std)
}

func run(ctx context.Context, root *cobra.Command, args []string, std Streams) int {
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	if err := root.ExecuteContext(ctx); err != nil {
		return fail(std.Err, err)
	}
	return 0
}

// global is what every command shares: the flags of the root command.
type global struct {
	instance string
	// origins names the environment variable that set a flag, by the flag's name.
	origins map[string]string
	// socket and now take the place of the instance's supervisor and of the clock, for tests.
	socket string
	now    func() time.Time
}

func (g *global) paths() config.Paths { return config.NewPaths(g.instance) }

// supervisor is the client of this instance's supervisor.
func (g *global) supervisor() *local {
	return newLocal(cmp.Or(g.socket, g.paths().SupervisorSocket))
}

// suffix is what a command that a message shows needs to mean the same instance.
func (g *global) suffix() string {
	if g.instance == "" {
		return ""
	}
	return " --instance " + g.instance
}

var instanceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?$`)

// NewRoot returns the command tree.
func NewRoot(std Streams) *cobra.Command {
	return newRoot(std, &global{origins: map[string]string{}, now: time.Now})
}

func newRoot(std Streams, g *global) *cobra.Command {
	settings := viper.New()
	root := &cobra.Command{
		Use: "slipway", Short: "Run a Kubernetes control plane on a bare Linux machine",
		Long: "slipway turns a bare Linux machine into a Kubernetes control-plane node, and back. It renders etcd, kube-apiserver,\n" +
			"kube-controller-manager and kube-scheduler as static pods and runs them through containerd under a supervisor of its own:\n" +
			"no kubelet, no init system and no Docker needed.\n\n" +
			"Every flag can also be set by a variable: SLIPWAY_ and the flag's name in capitals, with _ for -.",
		SilenceUsage: true, SilenceErrors: true, Args: noArguments,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := applyEnvironment(settings, cmd.Flags(), g.origins); err != nil {
				return err
			}
			if g.instance != "" && !instanceName.MatchString(g.instance) {
				return fmt.Errorf("--instance: %q is not a name: use up to 22 lower-case letters, digits and dashes", g.instance)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVar(&g.instance, "instance", "", "`NAME` of the instance, where a host has several; each has its own directories")
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newInit(std, g), newDiff(std, g), newApply(std, g), newReset(std, g), newSupervise(std, g), newStatus(std, g), newPs(std, g),
		newLogs(std, g), newExec(std, g), newEvents(std, g), newRestart(std, g), newEtcd(std, g), newValidate(std), newImages(std, g), newVersion(std))
	root.AddCommand(newDoctor(std, g))
	root.AddCommand(newCerts(std, g), newKubeconfig(std, g), newToken(std, g))
	root.AddCommand(newConfig(std, g))
	root.AddCommand(newBackup(std, g), newRestore(std, g), newReaddress(std, g))
	completeFlags(root)
	return root
}

// applyEnvironment sets every flag that was not given from its SLIPWAY_* variable, where that is set.
func applyEnvironment(settings *viper.Viper, flags *pflag.FlagSet, origins map[string]string) error {
	settings.SetEnvPrefix("slipway")
	settings.SetEnvKeyReplacer(strings.NewReplacer("-", "_"))
	settings.AutomaticEnv()
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "help" || failed != nil || !settings.IsSet(f.Name) {
			return
		}
		variable := "SLIPWAY_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if err := flags.Set(f.Name, settings.GetString(f.Name)); err != nil {
			if invalid := (*pflag.InvalidValueError)(nil); errors.As(err, &invalid) {
				err = valueError(invalid)
			}
			failed = fmt.Errorf("%s: %w", variable, err)
			return
		}
		origins[f.Name] = variable
	})
	return failed
}

// output is the -o flag of a command that prints a result.
type output struct {
	format  string
	allowed []string
}

func (o *output) register(flags *pflag.FlagSet, allowed ...string) {
	o.allowed = allowed
	o.format = allowed[0]
	flags.VarP(o, "output", "o", "how to print the result: "+strings.Join(allowed, ", "))
}

func (o *output) String() string { return o.format }
func (o *output) Type() string   { return "FORMAT" }

// Set implements pflag.Value.
func (o *output) Set(s string) error {
	for _, a := range o.allowed {
		if s == a {
			o.format = s
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", s, strings.Join(o.allowed, ", "))
}

// lookup returns a variable of an environment, the last one winning as in a shell.
func lookup(environ []string, name string) string {
	value := ""
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}
