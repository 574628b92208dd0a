package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/supervisor"
	"github.com/slipway-k8s/slipway/runtime/containerd"
)

func newImages(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "images", Short: "List, load and pull the control plane's images", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newImagesList(std, g), newImagesLoad(std, g), newImagesPull(std, g))
	return cmd
}

// imageRow is one image that init needs, or that the store holds.
type imageRow struct {
	Ref    string `json:"ref"`
	Needed bool   `json:"needed"` // init needs it
	Stored bool   `json:"stored"` // the runtime has it
	Digest string `json:"digest,omitempty"`
	Size   int64  `json:"size,omitempty"` // bytes
}

func newImagesList(std Streams, g *global) *cobra.Command {
	var f configFlags
	var out output
	cmd := &cobra.Command{
		Use: "list", Short: "List the images that init needs, and which of them the runtime has", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runImagesList(cmd.Context(), std, g, f, out) },
	}
	f.register(cmd.Flags())
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

func runImagesList(ctx context.Context, std Streams, g *global, f configFlags, out output) error {
	cluster, err := f.load(std, g)
	if err != nil {
		return err
	}
	needed := map[string]bool{}
	var rows []imageRow
	for _, ref := range supervisor.Images(cluster) {
		needed[ref] = true
		rows = append(rows, imageRow{Ref: ref, Needed: true})
	}
	// Without a runtime the list is only of what is needed: that is what an air-gapped site copies.
	if store, err := containerd.Open(ctx, socketOf(g, f.criSocket)); err == nil {
		defer store.Close()
		stored, err := store.List(ctx)
		if err != nil {
			return err
		}
		for _, im := range stored {
			found := false
			for i := range rows {
				if rows[i].Ref == im.Ref {
					rows[i].Stored, rows[i].Digest, rows[i].Size, found = true, im.Digest, im.Size, true
				}
			}
			if !found && !strings.HasPrefix(im.Ref, "sha256:") {
				rows = append(rows, imageRow{Ref: im.Ref, Stored: true, Digest: im.Digest, Size: im.Size})
			}
		}
	}
	if out.format == "json" {
		return printJSON(std.Out, rows)
	}
	var lines [][]string
	for _, r := range rows {
		state, size := "missing", "-"
		if r.Stored {
			state, size = "stored", fmt.Sprintf("%.1f MB", float64(r.Size)/1e6)
		}
		if !r.Needed {
			state = "not needed"
		}
		lines = append(lines, []string{r.Ref, state, size})
	}
	return table(std.Out, []string{"IMAGE", "STATE", "SIZE"}, lines)
}

// socketOf is the path of the runtime's socket: the given one, or that of slipway's own containerd.
func socketOf(g *global, given string) string {
	if given != "" {
		return host.SocketPath(given)
	}
	return g.paths().ContainerdSocket
}

func newImagesLoad(std Streams, g *global) *cobra.Command {
	var socket string
	var out output
	cmd := &cobra.Command{
		Use: "load ARCHIVE...", Short: "Load image archives, docker or OCI, into the runtime", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withStore(cmd.Context(), g, socket, func(ctx context.Context, store *containerd.Store) error {
				var loaded []string
				for _, path := range args {
					refs, err := store.Load(ctx, path, nil)
					if err != nil {
						return err
					}
					loaded = append(loaded, refs...)
				}
				return printRefs(std, out, "loaded", loaded)
			})
		},
	}
	cmd.Flags().StringVar(&socket, "cri-socket", "", "`SOCKET` of the runtime; default: slipway's own containerd")
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

func newImagesPull(std Streams, g *global) *cobra.Command {
	var f configFlags
	var out output
	cmd := &cobra.Command{
		Use: "pull [IMAGE...]", Short: "Pull the images that init needs, or the given ones, from their registry",
		RunE: func(cmd *cobra.Command, args []string) error {
			refs := args
			if len(refs) == 0 {
				cluster, err := f.load(std, g)
				if err != nil {
					return err
				}
				refs = supervisor.Images(cluster)
			}
			return withStore(cmd.Context(), g, f.criSocket, func(ctx context.Context, store *containerd.Store) error {
				for _, ref := range refs {
					start := time.Now()
					if err := store.Pull(ctx, ref, nil); err != nil {
						return err
					}
					fmt.Fprintf(std.Err, "%s %s\n", ref, elapsed(time.Since(start)))
				}
				return printRefs(std, out, "pulled", refs)
			})
		},
	}
	f.register(cmd.Flags())
	out.register(cmd.Flags(), "text", "json")
	return cmd
}

func withStore(ctx context.Context, g *global, socket string, do func(context.Context, *containerd.Store) error) error {
	store, err := containerd.Open(ctx, socketOf(g, socket))
	if err != nil {
		return withHint(err, "slipway's own containerd runs once \"slipway init\" started it; name another one with --cri-socket")
	}
	defer store.Close()
	return do(ctx, store)
}

func printRefs(std Streams, out output, verb string, refs []string) error {
	if out.format == "json" {
		return printJSON(std.Out, refs)
	}
	for _, ref := range refs {
		fmt.Fprintf(std.Out, "%s %s\n", verb, ref)
	}
	return nil
}
