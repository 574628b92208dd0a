package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/etcd"
	"github.com/slipway-k8s/slipway/runtime/etcd/snapshot"
)

// stamp is the form of times in file names: sortable, and without a colon, which some file systems refuse.
const stamp = "20060102T150405Z"

// snapshotTimeout bounds saving unless the user says otherwise: 8 GiB, etcd's largest advised size, at 30 MB/s.
const snapshotTimeout = 5 * time.Minute

func newSnapshotSave(std Streams, g *global) *cobra.Command {
	var out output
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "save [FILE]", Short: "Save a snapshot of etcd", Args: cobra.MaximumNArgs(1),
		Long: "save streams a snapshot from the running etcd and verifies it. The file appears, readable by root alone, once it is complete and\n" +
			"on disk; beside it FILE.json says when and of which cluster it was taken. Without a name it goes to /var/backups/slipway.\n" +
			"A snapshot holds the cluster's Secrets: guard it like the CA's key.",
		Example: "  slipway etcd snapshot save\n  slipway etcd snapshot save /media/usb/before-upgrade.db",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return runSnapshotSave(ctx, std, g, args, out)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", snapshotTimeout, "how long it may take")
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

func runSnapshotSave(ctx context.Context, std Streams, g *global, args []string, out output) error {
	p, err := g.node()
	if err != nil {
		return err
	}
	path := filepath.Join(g.paths().Backups, "etcd-"+g.now().UTC().Format(stamp)+".db")
	if len(args) == 1 {
		if path, err = filepath.Abs(args[0]); err != nil {
			return fmt.Errorf("saving a snapshot: %w", err)
		}
	} else if err := os.MkdirAll(g.paths().Backups, 0o700); err != nil {
		return fmt.Errorf("saving a snapshot: %w", err)
	}
	saved, err := saveSnapshot(ctx, p, path, g.now())
	if err != nil {
		return err
	}
	if out.format != "text" {
		return printValue(std.Out, out, saved)
	}
	_, err = fmt.Fprintf(std.Out, "saved %s (%s, revision %d, %d keys)\n", path, megabytes(saved.Size), saved.Revision, saved.Keys)
	return err
}

// saveSnapshot saves a snapshot of the node's etcd at path, with its note.
func saveSnapshot(ctx context.Context, p *plane.Plane, path string, now time.Time) (snapshot.Saved, error) {
	client, status, err := dialEtcd(ctx, p.Etcd, config.DefaultEtcdAPICall)
	if err != nil {
		return snapshot.Saved{}, withHint(fmt.Errorf("saving a snapshot: %w", err), "slipway status etcd says how etcd is")
	}
	defer client.Close()
	info, err := snapshot.Save(path, func(w io.Writer) error { return client.Snapshot(ctx, w, func(_, _ int64) {}) })
	if err != nil {
		return snapshot.Saved{}, err
	}
	note := noteOf(info, status, p, now)
	return snapshot.Saved{Path: path, Note: note}, snapshot.WriteNote(path, note)
}

func noteOf(info snapshot.Info, status etcd.Status, p *plane.Plane, now time.Time) snapshot.Note {
	n := snapshot.Note{
		Time: now.UTC().Truncate(time.Second), Revision: info.Revision, Keys: info.Keys, Size: info.Size, SHA256: info.SHA256,
		Cluster: info.Cluster, EtcdCluster: fmt.Sprintf("%x", status.ClusterID), EtcdVersion: status.Version, KubernetesVersion: p.Version,
	}
	if p.Member != nil {
		n.Node = p.Member.Name
	}
	return n
}

func newSnapshotList(std Streams, g *global) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use: "list [DIRECTORY]", Short: "List the snapshots that are there, each verified", Args: cobra.MaximumNArgs(1),
		Long: "list reads every snapshot (*.db) in /var/backups/slipway, or in DIRECTORY, to its end, and says which could be restored.\n" +
			"Where one could not, the reason follows, and the exit code is 2.",
		RunE: func(_ *cobra.Command, args []string) error {
			dir := g.paths().Backups
			if len(args) == 1 {
				dir = args[0]
				if _, err := os.Stat(dir); err != nil { // the default directory comes with the first snapshot; one that is named is there
					return fmt.Errorf("listing snapshots in %s: %w", dir, reason(err))
				}
			}
			return runSnapshotList(std, dir, out)
		},
	}
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

func runSnapshotList(std Streams, dir string, out output) error {
	list, err := snapshot.List(dir)
	if err != nil {
		return err
	}
	if out.format != "text" {
		if err := printValue(std.Out, out, list); err != nil {
			return err
		}
	} else if err := printSnapshots(std.Out, list, dir); err != nil {
		return err
	}
	var failed []error
	for _, s := range list {
		if s.Problem != "" {
			failed = append(failed, errors.New(s.Problem))
		}
	}
	if len(failed) > 0 {
		return &exit{2, errors.Join(failed...)}
	}
	return nil
}

func printSnapshots(out io.Writer, list []snapshot.Saved, dir string) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(out, "there is no snapshot in %s\n", dir)
		return err
	}
	var rows [][]string
	for _, s := range list {
		verified := "yes"
		if s.Problem != "" {
			verified = "no"
		}
		rows = append(rows, []string{s.Path, s.Time.UTC().Format(time.RFC3339), megabytes(s.Size), fmt.Sprint(s.Revision), fmt.Sprint(s.Keys), dash(s.KubernetesVersion), verified})
	}
	return table(out, []string{"SNAPSHOT", "TIME", "SIZE", "REVISION", "KEYS", "KUBERNETES", "VERIFIED"}, rows)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// printValue prints a result as JSON, or as YAML by the names that it has in JSON.
func printValue(out io.Writer, format output, v any) error {
	if format.format == "json" {
		return printJSON(out, v)
	}
	data, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("printing YAML: %w", err)
	}
	_, err = out.Write(data)
	return err
}
