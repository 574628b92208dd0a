package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// authorityNames are those that can be replaced, in the order in which all are.
var authorityNames = []string{"etcd-ca", "front-proxy-ca", "ca"}

// rotateFlags are those of certs rotate-ca and its stages.
type rotateFlags struct {
	cluster   clusterFile
	authority string
}

// rotateStage is one of its commands.
type rotateStage struct {
	use, short, long string
	run              func(*rotator, context.Context) error
}

func rotateStages() []rotateStage {
	return []rotateStage{
		{"begin", "Stage 1: make the next authority, and have both trusted", "", (*rotator).begin},
		{"switch", "Stage 2: sign with the next authority", "switch issues anew all that the authority has signed on this node. What is signed carries a certificate by which the\n" +
			"former authority vouches for the next: nodes and users that know only the former go on.", (*rotator).change},
		{"finish", "Stage 3: drop the former authority", "finish ends the overlap: whoever knows only the former authority, or has a certificate of it, is shut out. There is no way back.", (*rotator).finish},
		{"undo", "Go back one stage", "undo has the former authority sign again after stage 2, and removes the next one after stage 1.", (*rotator).undo},
	}
}

func newRotateCA(std Streams, g *global) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use: "rotate-ca", Short: "Replace certificate authorities, in stages", Args: noArguments,
		Long: "rotate-ca replaces an authority of the control plane by a new one of the same name, with an overlap in which both are trusted.\n" +
			"Without a stage it does the first two, and goes on where it was interrupted: it may be repeated at any time. The third, which drops\n" +
			"the former authority, is only done when asked for: rotate-ca finish. Each stage restarts the components that read what it changed,\n" +
			"one at a time.\n\n" +
			"With several control-plane nodes, which share their authorities, do it on one and carry the files to the others between the stages.",
		Example: "  slipway certs rotate-ca\n  slipway certs rotate-ca finish\n  slipway certs rotate-ca --authority etcd-ca",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRotate(cmd, std, g, f, func(r *rotator, ctx context.Context) error {
				if err := r.begin(ctx); err != nil {
					return err
				}
				return r.change(ctx)
			})
		},
	}
	f.register(cmd)
	for _, s := range rotateStages() {
		var f rotateFlags
		sub := &cobra.Command{Use: s.use, Short: s.short, Long: s.long, Args: noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error { return runRotate(cmd, std, g, f, s.run) }}
		f.register(sub)
		cmd.AddCommand(sub)
	}
	return cmd
}

func (f *rotateFlags) register(cmd *cobra.Command) {
	f.cluster.register(cmd.Flags())
	f.cluster.registerRoot(cmd.Flags())
	cmd.Flags().StringVar(&f.authority, "authority", "ca", "`NAME` of the authority: "+strings.Join(authorityNames, ", ")+", or all")
}

// rotator takes one authority through a stage on this node.
type rotator struct {
	*renewal.Rotation
	overlay  *artifact.Overlay
	manifest string // path of the controller manager's
	root     string
	now      func() time.Time
	client   *local
	paths    config.Paths
	say      func(format string, args ...any) // results
	progress Streams
	instance string
}

func runRotate(cmd *cobra.Command, std Streams, g *global, f rotateFlags, stage func(*rotator, context.Context) error) error {
	names := []string{f.authority}
	if f.authority == "all" {
		names = authorityNames
	} else if !slices.Contains(authorityNames, f.authority) {
		return withHint(fmt.Errorf("--authority: %q is no authority of a control plane", f.authority), "there are: "+strings.Join(authorityNames, ", ")+", all")
	}
	_, paths, err := f.cluster.load(cmd, std, g)
	if err != nil {
		return err
	}
	if f.cluster.root == "" && os.Geteuid() != 0 {
		return errors.New("certs rotate-ca must run as root")
	}
	manifests := paths.Manifests
	if f.cluster.root == "" {
		manifests = g.places(cmd.Context()).Manifests
	}
	disk, release, err := openFiles(f.cluster.root, paths)
	if err != nil {
		return err
	}
	defer release()
	for _, name := range names {
		overlay := artifact.NewOverlay(disk)
		r := &rotator{Rotation: renewal.NewRotation(name, overlay, paths), overlay: overlay, manifest: filepath.Join(manifests, "kube-controller-manager.yaml"),
			root: f.cluster.root, now: g.now, client: g.supervisor(), paths: paths, progress: std, instance: g.suffix(),
			say: func(format string, args ...any) { fmt.Fprintf(std.Out, name+": "+format+"\n", args...) }}
		if f.authority == "all" && !exists(filepath.Join(f.cluster.root, r.OwnPath())) {
			continue // etcd is external
		}
		if err := stage(r, cmd.Context()); err != nil {
			return withHint(fmt.Errorf("authority %s: %w", name, err), "run the same command again to go on, or: slipway certs rotate-ca undo --authority "+name+g.suffix())
		}
	}
	return nil
}

// begin brings it to Trusted. What is past that stays as it is.
func (r *rotator) begin(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil || stage == renewal.Switched {
		return err
	}
	if err := r.commit(ctx, r.Prepare(r.now())); err != nil {
		return err
	}
	// Before the authority's file holds two certificates, the controller manager must sign from one that holds one.
	if err := r.sign(ctx, renewal.Trusted); err != nil {
		return err
	}
	if err := r.commit(ctx, r.Trust(r.now())); err != nil {
		return err
	}
	if err := r.restart(ctx, r.Pods()); err != nil {
		return err
	}
	r.say("stage 1 of 3 is done: the next authority is made, and both are trusted here; the former signs")
	return nil
}

// change brings it from Trusted to Switched, or completes that.
func (r *rotator) change(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage == renewal.Settled {
		return errors.New("no rotation has begun, or its first stage was interrupted; slipway certs rotate-ca begin comes first")
	}
	if err := r.commit(ctx, r.Switch(r.now())); err != nil {
		return err
	}
	if err := r.apply(ctx, renewal.Switched); err != nil {
		return err
	}
	r.say("stage 2 of 3 is done: the next authority signs, and both are trusted")
	if r.CA == "ca" {
		r.say("give workers and users the new %s, then drop the former authority: slipway certs rotate-ca finish%s", r.OwnPath(), r.instance)
	} else {
		r.say("drop the former authority: slipway certs rotate-ca finish --authority %s%s", r.CA, r.instance)
	}
	return nil
}

func (r *rotator) finish(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage != renewal.Switched {
		return fmt.Errorf("there is nothing to finish: it is %s", stage)
	}
	if err := r.commit(ctx, r.Settle(r.now())); err != nil {
		return err
	}
	if err := r.apply(ctx, renewal.Settled); err != nil {
		return err
	}
	if err := r.commit(ctx, r.Clean()); err != nil {
		return err
	}
	r.say("stage 3 of 3 is done: the former authority is trusted no more")
	return nil
}

func (r *rotator) undo(ctx context.Context) error {
	stage, err := r.Stage()
	if err != nil {
		return err
	}
	if stage == renewal.Switched {
		if err := r.commit(ctx, r.Trust(r.now())); err != nil {
			return err
		}
		if err := r.apply(ctx, renewal.Trusted); err != nil {
			return err
		}
		r.say("stage 2 is undone: the former authority signs again, and both are trusted")
		return nil
	}
	if stage == renewal.Trusted {
		if err := r.commit(ctx, r.Settle(r.now())); err != nil {
			return err
		}
	}
	if err := r.apply(ctx, renewal.Settled); err != nil {
		return err
	}
	if err := r.commit(ctx, r.Clean()); err != nil {
		return err
	}
	r.say("stage 1 is undone: the next authority is gone, the former is as before")
	return nil
}

// apply restarts what reads the files of a stage, one after the other, the controller manager with where it signs from.
func (r *rotator) apply(ctx context.Context, s renewal.Stage) error {
	const manager = "kube-controller-manager"
	var before, after []string
	for _, pod := range r.Pods() {
		switch {
		case pod == manager && r.CA == "ca":
		case slices.Index(restartOrder, pod) < slices.Index(restartOrder, manager):
			before = append(before, pod)
		default:
			after = append(after, pod)
		}
	}
	if err := r.restart(ctx, before); err != nil {
		return err
	}
	if r.CA == "ca" {
		if err := r.sign(ctx, s); err != nil {
			return err
		}
	}
	return r.restart(ctx, after)
}

// sign has the controller manager sign from the files of a stage, which is a new version of its manifest. One that does
// so already is restarted, as it read them long ago.
func (r *rotator) sign(ctx context.Context, s renewal.Stage) error {
	if r.CA != "ca" {
		return nil
	}
	const manager = "kube-controller-manager"
	f, err := r.overlay.ReadFile(r.manifest)
	if err != nil {
		return nil // it is not run here
	}
	next := r.SigningManifest(f.Data, s)
	if string(next) == string(f.Data) {
		return r.restart(ctx, []string{manager})
	}
	f.Data = next
	if err := r.commit(ctx, r.overlay.Put(f)); err != nil {
		return err
	}
	if r.root != "" {
		return nil
	}
	roll, err := newRollout(ctx, r.client, podDeadline, func(text string) { fmt.Fprintln(r.progress.Err, text) })
	if errors.Is(err, errNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	version, err := versionOf(next, roll.node)
	if err != nil {
		return err
	}
	return roll.taken(ctx, map[string]string{manager: version})
}

func (r *rotator) restart(ctx context.Context, pods []string) error {
	if r.root != "" {
		return nil
	}
	return restartUsers(ctx, r.client, r.paths, pods, r.progress.Err)
}

// commit writes what was planned, all of it, and nothing where the planning failed.
func (r *rotator) commit(ctx context.Context, planned error) error {
	if planned != nil {
		return planned
	}
	_, err := r.overlay.Commit(ctx)
	return err
}
