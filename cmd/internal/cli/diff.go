package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
)

func newDiff(std Streams, g *global) *cobra.Command {
	var f configFlags
	var root string
	var out output
	cmd := &cobra.Command{
		Use: "diff", Short: "Show what init would change on this machine", Args: noArguments,
		Long: "diff compares the files that init would write with those that are there. The exit code is 0 when they are the same, 2 when\n" +
			"they differ and 1 after an error. Secrets are shown by size and SHA-256 only.",
		RunE: func(cmd *cobra.Command, _ []string) error { return runDiff(cmd.Context(), std, g, f, root, out) },
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&root, "root", "", "compare with the files below `DIRECTORY`, as init --root writes them")
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

func runDiff(ctx context.Context, std Streams, g *global, f configFlags, root string, out output) error {
	cluster, err := f.load(std, g)
	if err != nil {
		return err
	}
	changes, err := previewInit(ctx, cluster, artifact.NewOverlay(artifact.Disk{Root: root}), func(phases.Event) {})
	if err != nil {
		return err
	}
	if out.format == "json" {
		err = printJSON(std.Out, changesOf(changes))
	} else {
		_, err = fmt.Fprint(std.Out, artifact.Diff(changes))
	}
	if err == nil && len(changes) > 0 {
		return &exit{code: 2}
	}
	return err
}

// previewInit returns what init would change below the overlay, where that can be read afterwards. warn is told of what
// the phases warn of.
func previewInit(ctx context.Context, cluster *config.Cluster, overlay *artifact.Overlay, warn func(phases.Event)) ([]artifact.Change, error) {
	var changes []artifact.Change
	env := &phases.Env{Config: cluster, Files: overlay, Host: host.NewNarrator(), API: kubeapi.Narrator{}, Now: time.Now, Join: &phases.Join{}, Report: func(e phases.Event) {
		switch {
		case e.Kind == phases.Changed && e.Change.Op != artifact.Unchanged:
			changes = append(changes, e.Change)
		case e.Kind == phases.Warning:
			warn(e)
		}
	}}
	plan, err := initWorkflow().Plan(nil, cluster.SkipPhases)
	if err != nil {
		return nil, err
	}
	return changes, plan.Run(ctx, env, overlay.Preview)
}

// change is a Change in JSON. Contents are never part of it.
type change struct {
	Op     string `json:"op"`
	Path   string `json:"path"`
	Mode   string `json:"mode"`
	Dir    bool   `json:"dir,omitempty"`
	Secret bool   `json:"secret,omitempty"`
	Size   int    `json:"size"`
}

func changesOf(list []artifact.Change) []change {
	out := []change{}
	for _, c := range list {
		f := c.File()
		out = append(out, change{Op: c.Op.String(), Path: f.Path, Mode: permission(f.Mode), Dir: f.Mode.IsDir(), Secret: f.Secret, Size: len(f.Data)})
	}
	return out
}
