package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/reset"
)

func newReset(std Streams, g *global) *cobra.Command {
	var f struct {
		force, preview bool
		root           string
		out            output
	}
	cmd := &cobra.Command{
		Use: "reset", Short: "Take away what init made, and nothing else", Args: noArguments,
		Long: "reset undoes what the ledger records: it stops the pods, the API server before etcd, and removes the files, directories and\n" +
			"units that init made. What slipway did not make stays. It saves nothing: etcd's data goes with the rest.\n" +
			"It works after an init that did not finish, and with containerd dead, and may be repeated.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runReset(cmd.Context(), std, g, f.root, f.force, f.preview, f.out)
		},
	}
	cmd.Flags().BoolVarP(&f.force, "force", "f", false, "do not ask")
	cmd.Flags().BoolVar(&f.preview, "dry-run", false, "print what would be done, and do nothing")
	cmd.Flags().StringVar(&f.root, "root", "", "undo what init --root wrote below `DIRECTORY`")
	f.out.register(cmd.Flags(), "text", "json")
	return cmd
}

func runReset(ctx context.Context, std Streams, g *global, root string, force, preview bool, out output) error {
	paths := g.paths()
	if !exists(filepath.Join(root, paths.State)) { // the lock would make it
		return printPlan(std.Out, nil, out)
	}
	if root == "" && os.Geteuid() != 0 {
		return withHint(errors.New("reset must run as root"), "what it would do is in the ledger "+paths.Ledger)
	}
	if !preview {
		release, err := ledger.Lock(root, paths.InitLock)
		if err != nil {
			return err
		}
		defer release()
	}
	system := &reset.Live{Root: root, Ledger: paths.Ledger, Lock: paths.InitLock, Pods: podStore{instance: g.instance}, Cgroups: "/sys/fs/cgroup"}
	if host.SystemdRuns() {
		units, err := host.ConnectUnits(ctx)
		if err != nil {
			return err
		}
		defer units.Close()
		system.Units = units
	}
	plan, err := planReset(ctx, root, paths, system)
	if err != nil {
		return err
	}
	if err := printPlan(std.Out, plan, out); err != nil || preview || len(plan) == 0 {
		return err
	}
	if !force && !confirmed(std) {
		return errors.New("nothing was done")
	}
	start := time.Now()
	again := func() ([]reset.Action, error) { return planReset(ctx, root, paths, system) }
	if err := undo(ctx, std, plan, again, system); err != nil {
		return interruptedReset(ctx, g, err)
	}
	fmt.Fprintf(std.Err, "reset done (%s)\n", elapsed(time.Since(start)))
	return nil
}

func planReset(ctx context.Context, root string, paths config.Paths, system *reset.Live) ([]reset.Action, error) {
	entries, err := ledger.Load(root, paths.Ledger)
	if err != nil {
		return nil, err
	}
	seen, err := system.Look(ctx, entries)
	if err != nil {
		return nil, err
	}
	return reset.Plan(entries, seen)
}

// looks is how often undo looks again for what still runs. One look is enough unless somebody starts things meanwhile.
const looks = 3

// undo does the plan. It was made while daemons ran, and those may go on until they are stopped: a containerd that was
// just starting makes its directories, a supervisor its next pod. So once they have ended undo looks again, and files
// are removed by what is there then.
func undo(ctx context.Context, std Streams, plan []reset.Action, again func() ([]reset.Action, error), system reset.System) error {
	report := func(p reset.Progress) {
		if p.Done && p.Err != nil {
			fmt.Fprintf(std.Err, "warning: %v\n", p.Err)
		}
	}
	told := map[string]bool{}
	for range looks {
		for _, a := range plan {
			told[a.String()] = true
		}
		stops := stopping(plan)
		if stops == 0 {
			break
		}
		if err := reset.Run(ctx, plan[:stops], system, report); err != nil {
			return err
		}
		var err error
		if plan, err = again(); err != nil {
			return err
		}
		for _, a := range plan {
			if !told[a.String()] {
				fmt.Fprintf(std.Err, "also: %s\n", a)
			}
		}
	}
	return reset.Run(ctx, plan, system, report)
}

// stopping returns how many of the plan's first actions it takes until nothing runs any more.
func stopping(plan []reset.Action) int {
	for i, a := range slices.Backward(plan) {
		if a.Op <= reset.EndLeftovers {
			return i + 1
		}
	}
	return 0
}

func interruptedReset(ctx context.Context, g *global, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return withHint(err, "go on with: slipway reset"+g.suffix())
}

// printPlan prints every action on a line of its own: the same before a reset and instead of one.
func printPlan(out io.Writer, plan []reset.Action, format output) error {
	if format.format == "json" {
		lines := []string{}
		for _, a := range plan {
			lines = append(lines, a.String())
		}
		return printJSON(out, lines)
	}
	if len(plan) == 0 {
		_, err := fmt.Fprintln(out, "there is nothing to reset")
		return err
	}
	for _, a := range plan {
		if _, err := fmt.Fprintln(out, a); err != nil {
			return fmt.Errorf("printing the plan: %w", err)
		}
	}
	return nil
}

// confirmed asks and tells whether the answer is yes. Everything else, the end of the input too, is no.
func confirmed(std Streams) bool {
	fmt.Fprint(std.Err, "Do all this? [y/N] ")
	answer, _ := bufio.NewReader(std.In).ReadString('\n')
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}
