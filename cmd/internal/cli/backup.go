package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/backup"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/etcd/snapshot"
)

func newBackup(std Streams, g *global) *cobra.Command {
	var out output
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "backup [FILE]", Short: "Save all that this control plane is, in one archive", Args: cobra.MaximumNArgs(1),
		Long: "backup saves a snapshot of etcd, all certificates and keys (the authorities' and the service accounts' among them), kubeconfigs,\n" +
			"manifests, the KubeletConfiguration, and the files that the components' flags name: encryption and audit configuration and the\n" +
			"like, up to 1 MiB each. Directories that extra volumes mount are named, not copied. slipway restore makes a control plane of it,\n" +
			"on this machine or another.\n\n" +
			"The archive appears, readable by root alone, once it is complete, read back and on disk; without a name in /var/backups/slipway.\n" +
			"Whoever has it has the cluster: keep it where you would keep the CA's key.",
		Example: "  slipway backup\n  slipway backup /media/usb/edge1.tar.gz",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return runBackup(ctx, std, g, args, out)
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 2*snapshotTimeout, "how long it may take")
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

func runBackup(ctx context.Context, std Streams, g *global, args []string, out output) error {
	start := time.Now()
	p, err := g.node()
	if err != nil {
		return err
	}
	if p.Member == nil {
		return withHint(errors.New("etcd is external: a backup would hold this node's files and not the cluster"),
			"save its data with slipway etcd snapshot save, and the files below "+p.Paths.Kubernetes)
	}
	if err := besideStandstill(artifact.Disk{}, p.Paths, g.suffix()); err != nil { // a restore of it would lack manifests
		return err
	}
	path := filepath.Join(p.Paths.Backups, fmt.Sprintf("%s-%s.tar.gz", p.Member.Name, g.now().UTC().Format(stamp)))
	if len(args) == 1 {
		if path, err = filepath.Abs(args[0]); err != nil {
			return fmt.Errorf("backing up: %w", err)
		}
	} else if err := os.MkdirAll(p.Paths.Backups, 0o700); err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	if exists(path) {
		return fmt.Errorf("backing up: %s is there already; name another file", path)
	}
	m, err := saveBackup(ctx, g, p, path)
	if err != nil {
		return fmt.Errorf("backing up to %s: %w", path, err)
	}
	if out.format != "text" {
		return printValue(std.Out, out, m)
	}
	stat, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("backing up: %w", err)
	}
	fmt.Fprintf(std.Out, "saved %s (%s): %d files, etcd at revision %d with %d keys (%s)\n", path, megabytes(stat.Size()), len(m.Files), m.Revision, m.Keys, elapsed(time.Since(start)))
	for _, left := range m.Left {
		fmt.Fprintf(std.Err, "warning: %s is mounted into a component and is not in the archive: bring it to the other machine yourself\n", left)
	}
	return nil
}

// workPrefix begins the name of the directory in which a backup is made. The pid of the process that makes it follows.
const workPrefix = ".slipway-backup-"

// sweep removes what backups that were killed have left in dir: secrets lie in it.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), workPrefix)
		number, _, _ := strings.Cut(name, "-")
		pid, err := strconv.Atoi(number)
		if !ours || !e.IsDir() || err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// saveBackup makes the archive beside its place, reads it back, and moves it there.
func saveBackup(ctx context.Context, g *global, p *plane.Plane, path string) (backup.Manifest, error) {
	if err := sweep(filepath.Dir(path)); err != nil {
		return backup.Manifest{}, reason(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(path), fmt.Sprintf("%s%d-*", workPrefix, os.Getpid())) // 0700
	if err != nil {
		return backup.Manifest{}, reason(err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // a hidden directory of root's
	database := filepath.Join(work, "snapshot.db")
	saved, err := saveSnapshot(ctx, p, database, g.now())
	if err != nil {
		return backup.Manifest{}, err
	}
	files, left, err := backup.Collect(artifact.Disk{}, p)
	if err != nil {
		return backup.Manifest{}, err
	}
	m := backup.Manifest{
		Time: g.now().UTC().Truncate(time.Second), Node: p.Member.Name, Instance: g.instance, Address: p.Address, Port: p.Port,
		KubernetesVersion: p.Version, Cluster: saved.Cluster, Revision: saved.Revision, Keys: saved.Keys, Left: left,
	}
	temporary := filepath.Join(work, "archive")
	if err := writeArchive(temporary, m, files, database, saved); err != nil {
		return backup.Manifest{}, err
	}
	if m, _, _, err = readArchive(temporary, work); err != nil {
		return backup.Manifest{}, fmt.Errorf("reading it back: %w", err)
	}
	return m, snapshot.Place(temporary, path)
}

func writeArchive(path string, m backup.Manifest, files []artifact.File, database string, saved snapshot.Saved) error {
	in, err := os.Open(database)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = backup.Write(f, m, files, in, saved.Size, saved.SHA256)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// readArchive verifies an archive to its end, the snapshot in it too, which it leaves in dir.
func readArchive(path, dir string) (backup.Manifest, []artifact.File, snapshotFile, error) {
	in, err := os.Open(path)
	if err != nil {
		return backup.Manifest{}, nil, snapshotFile{}, fmt.Errorf("opening %s: %w", path, reason(err))
	}
	defer in.Close()
	database, err := os.CreateTemp(dir, "snapshot-*.db") // 0600
	if err != nil {
		return backup.Manifest{}, nil, snapshotFile{}, err
	}
	m, files, err := backup.Read(in, database)
	if err == nil {
		err = database.Sync()
	}
	if err := errors.Join(err, database.Close()); err != nil {
		return backup.Manifest{}, nil, snapshotFile{}, err
	}
	info, err := snapshot.Read(database.Name())
	return m, files, snapshotFile{database.Name(), info}, err
}

// snapshotFile is a verified snapshot.
type snapshotFile struct {
	path string
	info snapshot.Info
}
