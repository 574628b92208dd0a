package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/backup"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/kubelet"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/markcontrolplane"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/phases/preflight"
	"github.com/slipway-k8s/slipway/phases/staticpod"
	"github.com/slipway-k8s/slipway/phases/supervisor"
	"github.com/slipway-k8s/slipway/phases/wait"
)

// restoreFlags are those of restore.
type restoreFlags struct {
	address, nodeName, archives string
	ignored                     []string
	force                       bool
}

func newRestore(std Streams, g *global) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make the control plane of a backup on this machine", Args: cobra.ExactArgs(1),
		Long: "restore verifies an archive of slipway backup to its end, and checks the machine as init does, before it touches anything. Then it\n" +
			"lays the certificates and keys, issues again those that name the old address, moves manifests and kubeconfigs to the new one,\n" +
			"restores etcd, starts the control plane and waits until it is ready. Users' changes to the manifests come along.\n\n" +
			"The address is the old one unless another is given. With another node name, the old Node is removed from the cluster, and what\n" +
			"ran on it with it. Where a control plane is already, restore refuses, or with --force resets it first: when all images are\n" +
			"at hand without slipway's own image store, which goes with the reset, and nothing else would stop the restore.",
		Example: "  slipway restore /media/usb/edge1.tar.gz\n  slipway restore /media/usb/edge1.tar.gz --apiserver-advertise-address 192.0.2.7 --image-archives /media/usb/images",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRestore(cmd.Context(), std, g, f, args[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.address, "apiserver-advertise-address", "", "`IP` address the API server advertises; default: that of the backup")
	flags.StringVar(&f.nodeName, "node-name", "", "`NAME` of this node; default: that of the backup")
	flags.StringVar(&f.archives, "image-archives", "", "`DIRECTORY` of image archives, docker or OCI (default /var/lib/slipway/images)")
	flags.StringSliceVar(&f.ignored, "ignore-preflight-errors", nil, "`CHECKS` whose errors are only warnings; all for every check")
	flags.BoolVar(&f.force, "force", false, "reset the control plane that is here")
	return cmd
}

func runRestore(ctx context.Context, std Streams, g *global, f restoreFlags, path string) error {
	start := time.Now()
	if os.Geteuid() != 0 {
		return errors.New("restore must run as root")
	}
	work, err := os.MkdirTemp(filepath.Join("/var", "tmp"), "slipway-restore-*") // 0700; /tmp may be memory
	if err != nil {
		return fmt.Errorf("making room for the snapshot: %w", err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // a directory of root's in /var/tmp
	r, err := openBackup(std, g, f, path, work)
	if err != nil {
		return err
	}
	if err := r.clearMachine(ctx, std, g, f.force); err != nil {
		return fmt.Errorf("restoring %s: %w", path, err)
	}
	screen := newUI(std, false, nil)
	defer screen.close()
	live, disk, book, err := openLive(std, r.cluster)
	if err != nil {
		return err
	}
	defer book.close()
	overlay := artifact.NewOverlay(disk)
	env := &phases.Env{Config: r.cluster, Files: overlay, Host: live, API: ownAPI(r.cluster, overlay, false), Now: g.now, Report: screen.report, Join: &phases.Join{}}
	plan, err := r.workflow(g, book).Plan(nil, nil)
	if err != nil {
		return err
	}
	err = plan.Run(ctx, env, overlay.Commit)
	if errors.As(err, new(*preflight.Error)) {
		err = errors.Join(err, book.discard())
	}
	if err != nil {
		return withHint(fmt.Errorf("restoring %s: %w", path, err), "begin anew with the same flags and: slipway restore --force"+g.suffix()+" "+path+"\ntake it back with: slipway reset"+g.suffix())
	}
	screen.close()
	_, err = fmt.Fprintf(std.Out, "\nThe control plane of %s, saved %s, is ready on %s at %s (%s).\n", r.about.Node, r.about.Time.Format(time.RFC3339), r.move.ToName, r.move.To, elapsed(time.Since(start)))
	return err
}

// restored is a verified backup, and what is to become of it here.
type restored struct {
	about    backup.Manifest
	files    []artifact.File
	snapshot snapshotFile
	move     plane.Move
	moved    *plane.Plane // as it will be here
	cluster  *config.Cluster
}

// openBackup verifies the archive and plans its restore. It touches nothing but the directory work.
func openBackup(std Streams, g *global, f restoreFlags, path, work string) (*restored, error) {
	m, files, file, err := readArchive(path, work)
	if err != nil {
		return nil, withHint(fmt.Errorf("backup %s cannot be restored: %w", path, err), "nothing was touched")
	}
	if m.Instance != g.instance {
		return nil, fmt.Errorf("backup %s is of the instance %q: its files have the places of that one; use --instance %q", path, m.Instance, m.Instance)
	}
	r := &restored{about: m, files: files, snapshot: file}
	if r.move, err = f.move(m); err != nil {
		return nil, err
	}
	was, err := r.read(g, work, func(_ string, f artifact.File) artifact.File { return f })
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", path, err)
	}
	if r.moved, err = r.read(g, work, r.move.Manifest); err != nil {
		return nil, fmt.Errorf("backup %s: %w", path, err)
	}
	if err := restorable(r.moved); err != nil {
		return nil, err
	}
	facts, err := (&configFlags{}).facts(std, g)
	if err != nil {
		return nil, err
	}
	archived, err := r.store(work, func(_ string, f artifact.File) artifact.File { return f })
	if err != nil {
		return nil, err
	}
	d := derived{plane: was, files: archived, move: r.move, facts: facts, instance: g.instance, configuration: file.info.Configuration, ignored: f.ignored}
	cluster, warnings, err := d.cluster()
	if err != nil {
		return nil, err
	}
	for _, w := range warnings {
		fmt.Fprintf(std.Err, "warning: %s\n", w)
	}
	if f.archives != "" {
		if cluster.Paths.ImageArchives, err = filepath.Abs(f.archives); err != nil {
			return nil, fmt.Errorf("--image-archives: %w", err)
		}
	}
	for _, left := range m.Left {
		if !exists(left) {
			fmt.Fprintf(std.Err, "warning: %s was mounted into a component and is not in the backup: bring it here\n", left)
		}
	}
	r.cluster = cluster
	r.bringsItself()
	return r, nil
}

// move is what the flags change about the node of the backup. Names of nodes are in lower case, as config takes them: in
// another spelling the node's own Node would be removed as that of a former name.
func (f restoreFlags) move(m backup.Manifest) (plane.Move, error) {
	move := plane.Move{From: m.Address, To: m.Address, FromName: m.Node, ToName: m.Node}
	if f.address != "" {
		var err error
		if move.To, err = netip.ParseAddr(f.address); err != nil {
			return move, fmt.Errorf("--apiserver-advertise-address: %w", err)
		}
	}
	if name := strings.ToLower(strings.TrimSpace(f.nodeName)); name != "" {
		move.ToName = name
	}
	return move, move.Check()
}

// bringsItself spares preflight the search for volumes whose files come with the backup. Nothing else reads the volumes of
// the configuration: the manifests are the backup's own.
func (r *restored) bringsItself() {
	for _, c := range []*config.Component{&r.cluster.APIServer, &r.cluster.ControllerManager, &r.cluster.Scheduler} {
		c.ExtraVolumes = slices.DeleteFunc(slices.Clone(c.ExtraVolumes), func(v config.HostPathMount) bool {
			return slices.ContainsFunc(r.files, func(f artifact.File) bool { return ledger.Within(f.Path, v.HostPath) })
		})
	}
}

// store holds the archive's files, the components' manifests changed by change, in memory.
func (r *restored) store(work string, change func(string, artifact.File) artifact.File) (*artifact.Overlay, error) {
	store := artifact.NewOverlay(artifact.Disk{Root: filepath.Join(work, "nothing")})
	for _, f := range r.files {
		name := strings.TrimSuffix(filepath.Base(f.Path), ".yaml")
		if err := store.Put(change(name, f)); err != nil {
			return nil, err
		}
	}
	return store, nil
}

func (r *restored) read(g *global, work string, change func(string, artifact.File) artifact.File) (*plane.Plane, error) {
	store, err := r.store(work, change)
	if err != nil {
		return nil, err
	}
	return plane.Read(store, g.paths())
}

// clearMachine refuses a machine that has a control plane, or resets it with force, if all that comes after has what it
// needs. What lives is saved before; of what does not answer it is said that it is not.
func (r *restored) clearMachine(ctx context.Context, std Streams, g *global, force bool) error {
	paths := g.paths()
	there, err := plane.Read(artifact.Disk{}, paths)
	if err != nil && !exists(paths.Ledger) {
		return nil
	}
	if !force {
		return withHint(errors.New("a control plane is here already: a restore would take its place, and its data be lost"),
			"to reset it and restore: --force\nto go back to a snapshot of the same cluster: slipway etcd snapshot restore")
	}
	if err := r.foresee(ctx, g); err != nil {
		return withHint(err, "nothing was touched: bring what is missing, and run the same command again")
	}
	if err == nil && there.Member != nil {
		report := func(text string) { fmt.Fprintln(std.Err, "  "+text) }
		if client, _, err := dialEtcd(ctx, there.Etcd, r.cluster.Timeouts.EtcdAPICall); err != nil {
			report("warning: the data that goes with the reset is not saved: " + err.Error())
		} else {
			client.Close() //nolint:errcheck // it only had to answer
			if _, err := saveBefore(ctx, there, g.now(), report); err != nil {
				return err
			}
		}
	}
	quiet := std
	quiet.Out = std.Err
	return runReset(ctx, quiet, g, "", true, false, output{format: "text"})
}

// foresee refuses what the restore would only find out when the control plane that is here is gone. It asks what preflight
// asks, and touches nothing.
func (r *restored) foresee(ctx context.Context, g *global) error {
	entries, err := ledger.Load("", r.cluster.Paths.Ledger)
	if err != nil {
		return err
	}
	going := owned(entries)
	question := preflight.Question(r.cluster)
	question.Images, question.Emptied = append(question.Images, r.images()...), true
	if going.Owns(filepath.Join(question.Archives, "any.tar")) {
		question.Archives = "" // it goes with all that is in it
	}
	live := host.NewLive(host.Options{Paths: r.cluster.Paths, Facts: r.cluster.Facts, Files: artifact.Disk{}, Ledger: going, Images: imageStore{}})
	seen, err := live.Inspect(ctx, question)
	if err != nil {
		return err
	}
	return preflight.Foresee(r.cluster, seen, remaining{artifact.Disk{}, going}, g.now())
}

// remaining is a disk from which what slipway made is gone.
type remaining struct {
	artifact.Store
	going owned
}

func (w remaining) ReadFile(path string) (artifact.File, error) {
	if w.going.Owns(path) {
		return artifact.File{}, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return w.Store.ReadFile(path)
}

// images are those of all the backup's manifests, the users' own pods among them.
func (r *restored) images() []string {
	var refs []string
	for _, f := range r.files {
		var pod corev1.Pod
		if filepath.Dir(f.Path) != r.cluster.Paths.Manifests || yaml.Unmarshal(f.Data, &pod) != nil {
			continue // what is no pod starts nothing
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			refs = append(refs, c.Image)
		}
	}
	return refs
}

// workflow is init's, with the backup's files in the place of new ones: the phases for certificates and kubeconfigs only
// issue again what does not hold here, and the manifests come last, when etcd's data is in its place.
func (r *restored) workflow(g *global, b *book) phases.Workflow {
	deps := supervisor.Deps{ContainerdConfig: containerdConfig, LookPath: exec.LookPath}
	return phases.Workflow{Phases: []phases.Phase{
		preflight.New(),
		supervisor.Config(deps),
		{Name: "backup-files", Short: "Lay the files of the backup", Run: r.layFiles},
		pki.New(),
		kubeconfig.New(),
		kubelet.New(),
		supervisor.New(deps),
		{Name: "etcd-data", Short: "Restore etcd's data", After: []string{"supervisor/supervise"},
			Run: func(ctx context.Context, env *phases.Env) error { return r.restoreData(ctx, env, g, b) }},
		{Name: "manifests", Short: "Lay the manifests of the backup", After: []string{"etcd-data"}, Run: r.layManifests},
		wait.New(),
		{Name: "check-data", Short: "Check that etcd serves what the backup holds", Run: r.check},
		markcontrolplane.New(),
		{Name: "move", Short: "Tell the cluster its new address", Run: func(ctx context.Context, env *phases.Env) error { return moveObjects(ctx, env, r.move) }},
	}}
}

func (r *restored) layFiles(_ context.Context, env *phases.Env) error {
	p := env.Config.Paths
	if err := staticpod.PutTree(env.Files, r.moved.Member.DataDir, 0o700); err != nil {
		return err
	}
	if err := staticpod.PutDir(env.Files, p.Manifests, 0o700); err != nil {
		return err
	}
	for _, f := range r.files {
		switch {
		case f.Path == p.KubeletConfig, filepath.Dir(f.Path) == p.Manifests:
			continue
		case filepath.Dir(f.Path) == p.Kubernetes && strings.HasSuffix(f.Path, ".conf"):
			f.Data = []byte(r.move.Text(string(f.Data)))
		}
		if err := env.Files.Put(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *restored) restoreData(ctx context.Context, env *phases.Env, g *global, b *book) error {
	note := func(text string) { env.Report(phases.Event{Kind: phases.Note, Text: text}) }
	s, err := newStandstill(ctx, g, r.moved, b, note)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(r.moved.Member.DataDir, "member")); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds data of etcd already; move it away", r.moved.Member.DataDir)
	}
	data := &restoration{standstill: s, member: *r.moved.Member, now: g.now()}
	if err := data.prepare(ctx, r.snapshot.path); err != nil {
		return err
	}
	if err := data.exchange(); err != nil {
		return err
	}
	note(fmt.Sprintf("restored revision %d with %d keys", r.snapshot.info.Revision, r.snapshot.info.Keys))
	return data.settle(true)
}

func (r *restored) layManifests(_ context.Context, env *phases.Env) error {
	for _, f := range r.files {
		if filepath.Dir(f.Path) != env.Config.Paths.Manifests {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(f.Path), ".yaml")
		if r.moved.Components[name] != nil {
			f = r.move.Manifest(name, f)
		}
		f.Secret = false
		if err := env.Files.Put(f); err != nil {
			return err
		}
	}
	return nil
}

func (r *restored) check(ctx context.Context, env *phases.Env) error {
	return prove(ctx, r.moved.Etcd, env.Config.Timeouts.EtcdAPICall, r.snapshot.info)
}
