package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/config"
)

// version is slipway's own. A release is a commit that changes it.
const version = "v0.1.0"

// versions is what `slipway version -o json` prints.
type versions struct {
	Slipway    string `json:"slipway"`
	Commit     string `json:"commit,omitempty"`
	Kubernetes string `json:"kubernetes"` // the version that init installs unless told otherwise
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

func newVersion(std Streams) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "version", Short: "Print the versions of slipway and of the Kubernetes it installs", Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			v := versions{Slipway: version, Commit: commit(), Kubernetes: config.DefaultKubernetesVersion,
				Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			switch out.format {
			case "json":
				return printJSON(std.Out, v)
			case "short":
				fmt.Fprintln(std.Out, v.Slipway)
				return nil
			}
			fmt.Fprintf(std.Out, "slipway %s (%s, %s)\nkubernetes %s\n", v.Slipway, v.Go, v.Platform, v.Kubernetes)
			return nil
		},
	}
	out.register(cmd.Flags(), "text", "json", "short")
	return cmd
}

// commit is the revision that the binary was built from, where the build recorded it.
func commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}
