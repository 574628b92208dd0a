package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/apply"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/nodes"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// authorityNames are those that can be replaced, in the order in which all are.
var authorityNames = []string{"etcd-ca", "front-proxy-ca", "ca"}

// rotateFlags are those of certs rotate-ca and its stages.
type rotateFlags struct {
	cluster   clusterFile
	authority string
	force     bool
}

func (f *rotateFlags) names() ([]string, error) {
	switch {
	case f.authority == "all":
		return authorityNames, nil
	case slices.Contains(authorityNames, f.authority):
		return []string{f.authority}, nil
	}
	return nil, withHint(fmt.Errorf("--authority: %q is no authority of a control plane", f.authority), "there are: "+strings.Join(authorityNames, ", ")+", all")
}

// rotateStage is rotate-ca or one of its commands.
type rotateStage struct {
	use, short, long string
	run              func(*rotator, context.Context) error
}

func rotateStages() []rotateStage {
	return []rotateStage{
		{"begin", "Stage 1: make the next authority, and have both trusted", "", (*rotator).begin},
		{"switch", "Stage 2: sign with the next authority", "switch issues anew all that the authority has signed on this node. What is signed carries a certificate by which the\n" +
			"former authority vouches for the next: nodes and users that know only the former go on.", (*rotator).change},
		{"finish", "Stage 3: drop the former authority", "finish ends the overlap: whoever knows only the former authority, or has a certificate of it, is shut out. There is no way back.\n\n" +
			"Other nodes are looked at before: each must have been given a certificate of the next authority, which the cluster tells for an\n" +
			"hour. With --force it is tried instead. In both cases the nodes that were alive must report once the former authority is dropped;\n" +
			fmt.Sprintf("where one does not within %s, the overlap is brought back.", nodes.Patience), (*rotator).finish},
		{"undo", "Go back one stage", "undo has the former authority sign again after stage 2, and removes the next one after stage 1. Nodes that are alive must report\n" +
			"after that too, or both are trusted again.", (*rotator).undo},
	}
}

func newRotateCA(std Streams, g *global) *cobra.Command {
	cmd := newRotateStage(std, g, rotateStage{"rotate-ca", "Replace certificate authorities, in stages",
		"rotate-ca replaces an authority of the control plane by a new one of the same name, with an overlap in which both are trusted.\n" +
			"Without a stage it does the first two, and goes on where it was interrupted: it may be repeated at any time. The third, which drops\n" +
			"the former authority, is only done when asked for: rotate-ca finish. Each stage restarts the components that read what it changed,\n" +
			"one at a time, and tells joining machines what to trust, in the ConfigMap kube-public/cluster-info.\n\n" +
			"With several control-plane nodes, which share their authorities, do it on one and carry the files to the others between the stages.",
		(*rotator).advance})
	cmd.Example = "  slipway certs rotate-ca\n  slipway certs rotate-ca finish\n  slipway certs rotate-ca --authority etcd-ca"
	for _, s := range rotateStages() {
		cmd.AddCommand(newRotateStage(std, g, s))
	}
	return cmd
}

func newRotateStage(std Streams, g *global, s rotateStage) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{Use: s.use, Short: s.short, Long: s.long, Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return runRotate(cmd, std, g, f, s) }}
	f.cluster.registerWithRoot(cmd.Flags())
	cmd.Flags().StringVar(&f.authority, "authority", "ca", "`NAME` of the authority: "+strings.Join(authorityNames, ", ")+", or all")
	if s.use == "finish" {
		cmd.Flags().BoolVar(&f.force, "force", false, "drop it although a node cannot be shown to do without it, and see")
	}
	return cmd
}

func runRotate(cmd *cobra.Command, std Streams, g *global, f rotateFlags, s rotateStage) error {
	names, err := f.names()
	if err != nil {
		return err
	}
	_, paths, err := f.cluster.load(cmd, std, g)
	if err != nil {
		return err
	}
	live := f.cluster.root == ""
	if live && os.Geteuid() != 0 {
		return errors.New("certs rotate-ca must run as root")
	}
	if live {
		paths.Manifests = g.places(cmd.Context()).Manifests
	}
	disk, release, err := openFiles(f.cluster.root, paths)
	if err != nil {
		return err
	}
	defer release()
	if err := besideOthers(disk, paths, "certs rotate-ca", g.suffix()); err != nil {
		return err
	}
	done := 0
	var idle []error
	for i, name := range names {
		r := newRotator(name, disk, paths, g, std)
		r.force = f.force
		if live {
			r.cluster = func() (kubeapi.API, string, error) { return rotatedCluster(disk, paths) }
			r.restart = func(ctx context.Context, pods []string) error {
				return restartUsers(ctx, g.supervisor(), paths, pods, std.Err)
			}
			r.taken = takenBy(g.supervisor(), std.Err)
		}
		if f.authority == "all" && !exists(filepath.Join(f.cluster.root, r.OwnPath())) {
			continue // etcd is external
		}
		err := s.run(r, cmd.Context())
		if nothing := (*nothingToDo)(nil); errors.As(err, &nothing) && f.authority == "all" {
			idle = append(idle, fmt.Errorf("authority %s: %w", name, err))
			continue // an earlier run has done it, and was interrupted at another
		}
		if err != nil {
			return explainRotation(cmd, g, name, names[i+1:], err)
		}
		done++
	}
	if done == 0 {
		return errors.Join(idle...)
	}
	return nil
}

// explainRotation adds how to go on, where the error does not say it.
func explainRotation(cmd *cobra.Command, g *global, name string, after []string, err error) error {
	full := fmt.Errorf("authority %s: %w", name, err)
	if errors.As(err, new(*hinted)) || errors.As(err, new(*nothingToDo)) {
		return full
	}
	hint := "to go on: " + cmd.CommandPath() + " --authority " + name + g.suffix()
	if cmd.Name() != "undo" {
		hint += "\nto go back: slipway certs rotate-ca undo --authority " + name + g.suffix()
	}
	if len(after) > 0 {
		hint += "\nnot done yet: " + strings.Join(after, ", ")
	}
	return withHint(full, hint)
}

// rotatedCluster returns this node's API server, and the node's name.
func rotatedCluster(disk artifact.Store, paths config.Paths) (kubeapi.API, string, error) {
	n, err := apply.OnDisk(disk, paths)
	if errors.Is(err, apply.ErrNoControlPlane) {
		return kubeapi.Narrator{}, "", nil // files alone: there is nobody to tell, and no node to look at
	}
	if err != nil {
		return nil, "", err
	}
	address, port, err := n.Endpoint()
	if err != nil {
		return nil, "", err
	}
	return ownAPI(&config.Cluster{Paths: paths, AdvertiseAddress: address, BindPort: port}, disk, false), n.Name, nil
}

// takenBy returns a wait for the controller manager to run by another version of its manifest.
func takenBy(client *local, progress io.Writer) func(ctx context.Context, manifest []byte) error {
	return func(ctx context.Context, manifest []byte) error {
		roll, err := newRollout(ctx, client, podDeadline, func(text string) { fmt.Fprintln(progress, text) })
		if errors.Is(err, errNotRunning) {
			return nil
		}
		if err != nil {
			return err
		}
		version, err := versionOf(manifest, roll.node)
		if err != nil {
			return err
		}
		return roll.taken(ctx, map[string]string{plane.ControllerManager: version})
	}
}

func newRotator(name string, disk artifact.Store, paths config.Paths, g *global, std Streams) *rotator {
	overlay := artifact.NewOverlay(disk)
	return &rotator{
		Rotation: renewal.NewRotation(name, overlay, paths), overlay: overlay, now: g.now, suffix: g.suffix(), patience: nodes.Patience,
		manifest: filepath.Join(paths.Manifests, plane.ControllerManager+".yaml"),
		say:      func(format string, args ...any) { fmt.Fprintf(std.Out, name+": "+format+"\n", args...) },
		progress: func(text string) { fmt.Fprintln(std.Err, text) },
		cluster:  func() (kubeapi.API, string, error) { return kubeapi.Narrator{}, "", nil },
		restart:  func(context.Context, []string) error { return nil },
		taken:    func(context.Context, []byte) error { return nil },
	}
}
