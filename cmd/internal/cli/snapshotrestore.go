package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/etcd/snapshot"
)

// restoreReady is how long each start of the control plane may take in a restore: as long as in init.
const restoreReady = 4 * time.Minute

func newSnapshotRestore(std Streams, g *global) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a snapshot in the place of this cluster's data", Args: cobra.ExactArgs(1),
		Long: "restore verifies the snapshot, and that it is of this cluster, before it touches anything. It makes the new data directory beside\n" +
			"the old one, stops the control plane, the API server before etcd, exchanges the two, starts the control plane and waits until it\n" +
			"is ready. When that does not come, the old data returns, with exit code 3.\n\n" +
			"Over a control plane that lives it needs --force: what was written since the snapshot is lost. A snapshot of the data as it was\n" +
			"is saved first. Without one (etcd did not run) the old data directory stays beside the new one.\n" +
			"To build a cluster on another machine, use slipway backup and slipway restore.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSnapshotRestore(cmd.Context(), std, g, args[0], force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "restore although the control plane lives")
	return cmd
}

func runSnapshotRestore(ctx context.Context, std Streams, g *global, path string, force bool) error {
	start := time.Now()
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("restoring a snapshot: %w", err)
	}
	info, err := snapshot.Read(path)
	if err != nil {
		return err
	}
	p, err := g.node()
	if err != nil {
		return err
	}
	if err := restorable(p); err != nil {
		return err
	}
	switch begun, err := loadMove(artifact.Disk{}, p.Paths); {
	case err != nil:
		return err
	case begun != nil: // it would start what has half moved
		return withHint(begun.unfinished(), begun.next(g.suffix()))
	}
	answers, err := belongs(ctx, g, p, path, info, force)
	if err != nil {
		return err
	}
	book, err := openBook("", p.Paths)
	if err != nil {
		return err
	}
	defer book.close()
	report := func(text string) { fmt.Fprintln(std.Err, "  "+text) }
	s, err := newStandstill(ctx, g, p, book, report)
	if err != nil {
		return err
	}
	kept := ""
	if answers {
		if kept, err = saveBefore(ctx, p, g.now(), report); err != nil {
			return err
		}
	}
	r := &restoration{standstill: s, member: *p.Member, now: g.now()}
	if err := r.run(ctx, path, info); err != nil {
		return err
	}
	if err := r.settle(kept != ""); err != nil {
		return withHint(fmt.Errorf("the snapshot is restored and the control plane ready, but what is left of the restore could not be cleared away: %w", err),
			"look into "+r.member.DataDir)
	}
	_, err = fmt.Fprintf(std.Out, "restored %s: revision %d, %d keys (%s)\n", path, info.Revision, info.Keys, elapsed(time.Since(start)))
	if kept != "" {
		fmt.Fprintf(std.Out, "the data as it was is in %s\n", kept)
	} else if r.old != "" {
		fmt.Fprintf(std.Out, "the data as it was is in %s; remove it when nothing is missed\n", r.old)
	}
	return err
}

// restorable refuses what a restore of one member would break.
func restorable(p *plane.Plane) error {
	if p.Member == nil {
		return errors.New("etcd is external: restore a snapshot where it runs, with etcdutl snapshot restore")
	}
	etcd := p.Components[plane.Etcd]
	if dir, ok := etcd.Flag("wal-dir"); ok {
		return fmt.Errorf("etcd keeps its log in %s (--wal-dir): a restore would leave it there; take the flag out of %s first", dir, etcd.File.Path)
	}
	if cluster, _ := etcd.Flag("initial-cluster"); strings.Count(cluster, "=") > len(p.Member.PeerURLs) {
		return fmt.Errorf("etcd has several members (--initial-cluster=%s): remove the others first, and join them again afterwards", cluster)
	}
	return nil
}

// belongs refuses a snapshot of another cluster, and one that would replace living data without force. It reports whether
// etcd answers: only then its data can be saved.
func belongs(ctx context.Context, g *global, p *plane.Plane, path string, info snapshot.Info, force bool) (answers bool, err error) {
	target := snapshot.Target{}
	target.Trust, _ = os.ReadFile(filepath.Join(p.Paths.PKI, "ca.crt")) // where it is missing, the UIDs alone tell
	client, _, err := dialEtcd(ctx, p.Etcd, config.DefaultEtcdAPICall)
	if err == nil {
		defer client.Close()
		stored, err := client.Get(ctx, p.Etcd.Prefix+"/namespaces/kube-system")
		if err != nil {
			return false, err
		}
		target.Cluster, answers = snapshot.NamespaceUID(stored), true
	} else if ctx.Err() != nil {
		return false, err
	} else if db, failed := snapshot.Database(databaseOf(p.Member.DataDir)); errors.Is(failed, snapshot.ErrInUse) {
		return false, withHint(fmt.Errorf("etcd runs but does not answer, so its data cannot be looked at: %w", err), "slipway status etcd says how etcd is")
	} else if failed == nil {
		target.Cluster = db.Cluster
	}
	if err := info.Belongs(target); err != nil {
		return answers, withHint(fmt.Errorf("snapshot %s cannot be restored: %w", path, err),
			"nothing was touched; to bring another cluster here, reset this one and use slipway restore with a backup of the other")
	}
	alive := answers
	if !alive {
		if list, err := g.supervisor().pods(ctx); err == nil {
			if api := find(list.Items, plane.APIServer); api != nil {
				alive = podIsReady(api)
			}
		}
	}
	if alive && !force {
		return answers, withHint(errors.New("the control plane lives: a restore would lose what was written since the snapshot"), "to do it nevertheless: --force")
	}
	return answers, nil
}

// databaseOf is where etcd keeps its database.
func databaseOf(dataDir string) string { return filepath.Join(dataDir, "member", "snap", "db") }

func podIsReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func newStandstill(ctx context.Context, g *global, p *plane.Plane, book *book, report func(string)) (*standstill, error) {
	client := g.supervisor()
	roll, err := newRollout(ctx, client, restoreReady, report)
	if err != nil && p.Member != nil && !errors.Is(err, errNotRunning) {
		roll, err = &rollout{client: client, node: p.Member.Name, deadline: restoreReady, report: report}, nil // it runs no pods yet
	}
	if err != nil {
		return nil, withHint(err, "start it again with: slipway init phase supervisor supervise"+g.suffix())
	}
	return &standstill{client: client, disk: ledger.Recorded(artifact.Disk{}, book.Ledger), book: book.Ledger, plane: p, roll: roll}, nil
}

// saveBefore saves the data that a restore is about to replace.
func saveBefore(ctx context.Context, p *plane.Plane, now time.Time, report func(string)) (string, error) {
	if err := os.MkdirAll(p.Paths.Backups, 0o700); err != nil {
		return "", fmt.Errorf("saving the data as it is: %w", err)
	}
	path := filepath.Join(p.Paths.Backups, "before-restore-"+now.UTC().Format(stamp)+".db")
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout) // an etcd that stops in the middle would hold everything up
	defer cancel()
	saved, err := saveSnapshot(ctx, p, path, now)
	if err != nil {
		return "", err
	}
	report(fmt.Sprintf("saved the data as it is: %s (revision %d)", path, saved.Revision))
	return path, nil
}

// restoration is one exchange of etcd's data.
//
//	prepared ─► halted ─► exchanged ─► started ─► proven ─► the old data goes, or is kept
//	                          └── not ready: exchanged back ─► started
type restoration struct {
	*standstill
	member plane.Member
	now    time.Time
	old    string // where the data as it was is, once it is exchanged; "" where there was none
}

// The names below etcd's data directory, which may be a mount point: what etcd itself has there is "member".
const (
	restoring = "slipway-restore"
	// unused marks data that etcdutl made and that is not proven yet: from the exchange on, until it is, the data as it
	// was is in the directory above.
	unused = "slipway-unused"
	// between is where data is for a moment where the file system cannot exchange in one step.
	between = "member.swap"
)

func (r *restoration) prepared() string { return filepath.Join(r.member.DataDir, restoring) }
func (r *restoration) live() string     { return filepath.Join(r.member.DataDir, "member") }

// keep puts what the exchange has taken out under a name of its own, which nothing has yet.
func (r *restoration) keep() (string, error) {
	name := filepath.Join(r.member.DataDir, "before-restore-"+r.now.UTC().Format(stamp))
	path := name
	for i := 2; exists(path); i++ { // of the same second, or of the restore that this one begins anew
		path = fmt.Sprintf("%s-%d", name, i)
	}
	return path, os.Rename(r.prepared(), path)
}

func (r *restoration) run(ctx context.Context, path string, info snapshot.Info) error {
	if err := r.prepare(ctx, path); err != nil {
		return withHint(fmt.Errorf("making the new data directory: %w", err), "the control plane was not touched")
	}
	manifests := r.manifests()
	err := r.halt(ctx)
	if err == nil {
		err = r.exchange()
	}
	if err == nil {
		err = r.raise(ctx, manifests)
	}
	if err == nil {
		err = prove(ctx, r.plane.Etcd, config.DefaultEtcdAPICall, info)
	}
	if err == nil {
		return nil
	}
	return r.back(ctx, manifests, err)
}

// prepare has etcdutl make a data directory from the snapshot.
func (r *restoration) prepare(ctx context.Context, path string) error {
	pod := restorePod(r.member, path)
	if err := r.withdraw(ctx, pod.Name); err != nil {
		return err
	}
	if err := r.clear(); err != nil {
		return err
	}
	r.roll.report("making the new data directory with etcdutl")
	if err := r.once(ctx, pod); err != nil {
		return err
	}
	member := filepath.Join(r.prepared(), "member")
	if err := os.WriteFile(filepath.Join(member, unused), nil, 0o600); err != nil {
		return err
	}
	return syncDirs(member, r.prepared(), r.member.DataDir)
}

// clear makes room for new data. What an interrupted restore exchanged already is kept: it is the data as it was. What
// etcdutl made beside data that is still in its place is removed.
func (r *restoration) clear() error {
	marker := filepath.Join(r.live(), unused)
	there := map[string]bool{}
	for _, path := range []string{r.prepared(), r.live(), marker, filepath.Join(r.prepared(), between)} {
		_, err := os.Lstat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // what cannot be told is not removed
		}
		there[path] = err == nil
	}
	switch {
	case !there[r.prepared()]:
		return removed(marker) // of a restore that was interrupted at its very end
	case there[marker] || !there[r.live()] && there[filepath.Join(r.prepared(), between)]:
		path, err := r.keep()
		if err == nil {
			r.roll.report("a restore was interrupted here; the data that it took out is kept in " + path)
		}
		return err
	}
	return os.RemoveAll(r.prepared())
}

// removed makes sure that there is no file at path.
func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDirs makes durable which names are in the directories.
func syncDirs(dirs ...string) error {
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// restorePod is the pod that runs etcdutl once. The data directory is mounted where it is, so that paths mean the same.
func restorePod(m plane.Member, path string) *corev1.Pod {
	file, dir := corev1.HostPathFile, corev1.HostPathDirectory
	var cluster []string
	for _, u := range m.PeerURLs {
		cluster = append(cluster, m.Name+"="+u)
	}
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "etcd-restore", Namespace: metav1.NamespaceSystem},
		Spec: corev1.PodSpec{
			HostNetwork: true, RestartPolicy: corev1.RestartPolicyNever, PriorityClassName: "system-node-critical",
			Containers: []corev1.Container{{
				Name: "etcdutl", Image: m.Image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command: []string{"etcdutl", "snapshot", "restore", "/snapshot.db", "--data-dir=" + filepath.Join(m.DataDir, restoring),
					"--name=" + m.Name, "--initial-cluster=" + strings.Join(cluster, ","),
					"--initial-advertise-peer-urls=" + strings.Join(m.PeerURLs, ","),
					"--bump-revision=1000000000", "--mark-compacted"},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: m.DataDir}, {Name: "snapshot", MountPath: "/snapshot.db", ReadOnly: true}},
			}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: m.DataDir, Type: &dir}}},
				{Name: "snapshot", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &file}}},
			},
		},
	}
}

// exchange puts the prepared data in the place of the live one, in one step: at no moment is there none.
func (r *restoration) exchange() error {
	prepared := filepath.Join(r.prepared(), "member")
	if _, err := os.Lstat(r.live()); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(prepared, r.live()); err != nil {
			return fmt.Errorf("putting the new data in place: %w", err)
		}
		return syncDirs(r.member.DataDir)
	}
	if err := r.swap(); err != nil {
		return fmt.Errorf("exchanging etcd's data: %w", err)
	}
	r.old = r.prepared() // from here on the way back is to exchange again
	return syncDirs(r.prepared(), r.member.DataDir)
}

// swap exchanges the prepared data and the live one. It refuses while an etcd has the live one open, whatever the
// supervisor says of its pods: that etcd would go on writing into data that is nobody's any more.
func (r *restoration) swap() error {
	if err := snapshot.Idle(databaseOf(r.member.DataDir)); err != nil {
		return err
	}
	prepared := filepath.Join(r.prepared(), "member")
	err := unix.Renameat2(unix.AT_FDCWD, prepared, unix.AT_FDCWD, r.live(), unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		err = swapInSteps(prepared, r.live(), filepath.Join(r.prepared(), between), os.Rename)
	}
	return err
}

// swapInSteps exchanges two directories where the file system cannot do it in one step. A step that fails takes those
// before it back: a control plane that is started over a directory that is missing would make itself a new cluster.
func swapInSteps(a, b, third string, rename func(from, to string) error) error {
	if err := rename(a, third); err != nil {
		return err
	}
	if err := rename(b, a); err != nil {
		return errors.Join(err, rename(third, a))
	}
	if err := rename(third, b); err != nil {
		return errors.Join(err, rename(a, b), rename(third, a))
	}
	return nil
}

// prove asks etcd whether it has what the snapshot holds.
func prove(ctx context.Context, a plane.EtcdAccess, limit time.Duration, info snapshot.Info) error {
	client, status, err := dialEtcd(ctx, a, limit)
	if err != nil {
		return err
	}
	defer client.Close()
	stored, err := client.Get(ctx, a.Prefix+"/namespaces/kube-system")
	switch {
	case err != nil:
		return err
	case status.Revision < info.Revision:
		return fmt.Errorf("etcd is at revision %d, the snapshot at %d", status.Revision, info.Revision)
	case snapshot.NamespaceUID(stored) != info.Cluster:
		return errors.New("etcd serves another cluster than the snapshot's")
	}
	return nil
}

// back returns to the old data after a failure, and says how that went.
func (r *restoration) back(ctx context.Context, manifests []artifact.File, failed error) error {
	ctx = context.WithoutCancel(ctx) // the cluster must run again; each step has its own deadline
	r.roll.report("going back to the data as it was")
	err := r.halt(ctx)
	if err == nil && r.old != "" {
		if err = r.swap(); err == nil {
			err = syncDirs(r.prepared(), r.member.DataDir)
		}
	}
	if err == nil {
		err = r.raise(ctx, manifests)
	}
	if err != nil {
		return withHint(errors.Join(fmt.Errorf("restoring the snapshot: %w", failed), fmt.Errorf("going back to the data as it was: %w", err)),
			"the data as it was is in "+r.where()+", the manifests in "+plane.Aside(r.plane.Paths)+"; slipway status says what runs")
	}
	r.old = ""
	return &exit{3, withHint(errors.Join(fmt.Errorf("restoring the snapshot: %w", failed), os.RemoveAll(r.prepared())), "the control plane runs on its old data again")}
}

func (r *restoration) where() string {
	if _, err := os.Lstat(filepath.Join(r.live(), unused)); err == nil && r.old != "" {
		return filepath.Join(r.prepared(), "member")
	}
	return r.live()
}

// settle removes the data as it was where there is a snapshot of it, else keeps it under a name of its own. The mark of
// the new data goes last: while it is there, what is beside it is not taken for something that etcdutl made.
func (r *restoration) settle(saved bool) error {
	var err error
	if r.old == "" || saved {
		r.old, err = "", os.RemoveAll(r.prepared())
	} else {
		r.old, err = r.keep()
	}
	if err == nil {
		err = syncDirs(r.member.DataDir)
	}
	if err != nil {
		return err
	}
	return removed(filepath.Join(r.live(), unused))
}
