package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
	"github.com/slipway-k8s/slipway/phases/kubeconfig"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/phases/supervisor"
	"github.com/slipway-k8s/slipway/runtime/etcd/snapshot"
)

func newReaddress(std Streams, g *global) *cobra.Command {
	var address string
	var preview bool
	cmd := &cobra.Command{
		Use: "readdress --apiserver-advertise-address NEW", Short: "Move the control plane to another address of this machine", Args: noArguments,
		Long: "readdress gives a single control-plane node another address: it issues the certificates that name the old one again, to the same\n" +
			"keys, moves kubeconfigs, manifests and etcd's peer URL, and tells the cluster in the ConfigMaps kubeadm-config, cluster-info and\n" +
			"kube-proxy. The data stays as it is. The control plane stops while its files change.\n\n" +
			"The old address may be gone already: nothing asks it. One that was interrupted is continued by running it again,\n" +
			"and taken back by running it with the old address.\n" +
			"Kubelets of other nodes cannot be told of it from here; which these are is said at the end.",
		Example: "  slipway readdress --apiserver-advertise-address 192.0.2.7 --dry-run\n  slipway readdress --apiserver-advertise-address 192.0.2.7",
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := netip.ParseAddr(address)
			if err != nil {
				return fmt.Errorf("--apiserver-advertise-address: %w", err)
			}
			return runReaddress(cmd.Context(), std, g, to, preview)
		},
	}
	cmd.Flags().StringVar(&address, "apiserver-advertise-address", "", "the new `IP` address")
	cmd.Flags().BoolVar(&preview, "dry-run", false, "show which files would change, and do nothing")
	cmd.MarkFlagRequired("apiserver-advertise-address") //nolint:errcheck // the flag is there
	return cmd
}

// readdressing is one move of a node to another address.
//
//	recorded ─► halted ─► files changed ─► started ─► etcd's member, Node and ConfigMaps moved ─► record removed
type readdressing struct {
	plane *plane.Plane
	move  plane.Move
}

// record is what lets an interrupted move go on: some files may have the new address already.
type record struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
}

func recordPath(p config.Paths) string { return filepath.Join(p.State, "readdress.json") }

func (r record) unfinished() error {
	return fmt.Errorf("a move from %s to %s was begun and is not finished", r.From, r.To)
}

// next says the two ways on.
func (r record) next(suffix string) string {
	const command = "slipway readdress --apiserver-advertise-address "
	return "finish it: " + command + r.To.String() + suffix + "\ngo back: " + command + r.From.String() + suffix
}

func runReaddress(ctx context.Context, std Streams, g *global, to netip.Addr, preview bool) error {
	start := time.Now()
	p, err := g.node()
	if err != nil {
		return err
	}
	if err := besideApply(artifact.Disk{}, p.Paths, "readdress", g.suffix()); err != nil {
		return err
	}
	r := &readdressing{plane: p}
	if r.move, err = moveOf(artifact.Disk{}, p, to, g.suffix()); err != nil {
		return err
	}
	if r.move.From == r.move.To {
		_, err := fmt.Fprintf(std.Out, "the control plane is at %s already\n", to)
		return err
	}
	if p.Member != nil {
		if err := restorable(p); err != nil {
			return err
		}
	}
	d, err := r.derive(ctx, std, g)
	if err != nil {
		return err
	}
	cluster, warnings, err := d.cluster()
	if err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintf(std.Err, "warning: %s\n", w)
	}
	plan := artifact.NewOverlay(artifact.Disk{})
	env := &phases.Env{Config: cluster, Files: plan, Host: host.NewNarrator(), API: kubeapi.Narrator{}, Now: g.now, Report: func(phases.Event) {}, Join: &phases.Join{}}
	if err := r.plan(ctx, env); err != nil {
		return err
	}
	if preview {
		return r.preview(ctx, std, plan)
	}
	if err := onThisHost(to); err != nil {
		return err
	}
	live, disk, book, err := openLive(std, cluster)
	if err != nil {
		return err
	}
	defer book.close()
	plan = artifact.NewOverlay(artifact.Disk{}) // anew: until the lock was taken certificates may have been renewed
	env.Files = plan
	if err := r.plan(ctx, env); err != nil {
		return err
	}
	report := func(text string) { fmt.Fprintln(std.Err, "  "+text) }
	s, err := newStandstill(ctx, g, p, book, report)
	if err != nil {
		return err
	}
	changes, err := plan.Preview(ctx)
	if err != nil {
		return err
	}
	env.Files, env.Host, env.API = disk, live, ownAPI(cluster, disk, false)
	env.Report = func(e phases.Event) {
		switch e.Kind {
		case phases.Note:
			report(e.Text)
		case phases.Warning:
			report("warning: " + e.Text)
		}
	}
	if err := r.run(ctx, g, env, s, changes); err != nil {
		return withHint(fmt.Errorf("moving from %s to %s: %w", r.move.From, r.move.To, err), "go on with: slipway readdress --apiserver-advertise-address "+to.String()+g.suffix())
	}
	_, err = fmt.Fprintf(std.Out, "the control plane has moved from %s to %s (%s)\n", r.move.From, r.move.To, elapsed(time.Since(start)))
	return err
}

// moveOf returns the move to be made: the one that the manifests' address leads to, one that was interrupted, or the way
// back of that. Some files have either address then, and all that have the wrong one are changed.
func moveOf(files artifact.Store, p *plane.Plane, to netip.Addr, suffix string) (plane.Move, error) {
	m := plane.Move{From: p.Address, To: to.Unmap()}
	if p.Member != nil {
		m.FromName, m.ToName = p.Member.Name, p.Member.Name
	}
	begun, err := loadMove(files, p.Paths)
	if err != nil {
		return m, err
	}
	if begun != nil {
		switch m.To {
		case begun.To:
			m.From = begun.From
		case begun.From:
			m.From = begun.To
		default:
			return m, withHint(begun.unfinished(), begun.next(suffix))
		}
	}
	return m, m.Check()
}

func onThisHost(address netip.Addr) error {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("listing this machine's addresses: %w", err)
	}
	var have []string
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			if prefix.Addr().Unmap() == address.Unmap() || address.IsLoopback() && prefix.Contains(address) {
				return nil
			}
			have = append(have, prefix.Addr().String())
		}
	}
	return withHint(fmt.Errorf("%s is not an address of this machine", address), "it has "+strings.Join(have, ", "))
}

// derive finds what the cluster keeps of its configuration: from a running etcd, or from the database of one that does
// not run, because the address that it listens on is gone.
func (r *readdressing) derive(ctx context.Context, std Streams, g *global) (derived, error) {
	facts, err := (&configFlags{}).facts(std, g)
	if err != nil {
		return derived{}, err
	}
	if r.move.ToName == "" {
		r.move.FromName, r.move.ToName = facts.Hostname, facts.Hostname
		if list, err := g.supervisor().pods(ctx); err == nil && len(list.Items) > 0 {
			r.move.FromName, r.move.ToName = list.Items[0].Spec.NodeName, list.Items[0].Spec.NodeName
		}
	}
	d := derived{plane: r.plane, files: artifact.Disk{}, move: r.move, facts: facts, instance: g.instance}
	if client, _, err := dialEtcd(ctx, r.plane.Etcd, config.DefaultEtcdAPICall); err == nil {
		defer client.Close()
		stored, err := client.Get(ctx, r.plane.Etcd.Prefix+"/configmaps/kube-system/kubeadm-config")
		if err != nil {
			return derived{}, err
		}
		d.configuration = snapshot.ClusterConfiguration(stored)
	} else if r.plane.Member != nil {
		if info, err := snapshot.Database(filepath.Join(r.plane.Member.DataDir, "member", "snap", "db")); err == nil {
			d.configuration = info.Configuration
		}
	}
	return d, nil
}

// plan puts every file that changes into env.Files, the manifests last.
func (r *readdressing) plan(ctx context.Context, env *phases.Env) error {
	dir := r.plane.Paths.Kubernetes
	names, err := artifact.Disk{}.ReadDir(dir)
	if err != nil {
		return err
	}
	paths := []string{r.plane.Paths.KubeletConfig}
	for _, name := range names {
		if strings.HasSuffix(name, ".conf") {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	for _, path := range paths {
		f, err := env.Files.ReadFile(path)
		if err != nil {
			return err
		}
		f.Data, f.Secret = []byte(r.move.Text(string(f.Data))), f.Mode.Perm()&0o077 == 0
		if err := env.Files.Put(f); err != nil {
			return err
		}
	}
	issue, err := (phases.Workflow{Phases: []phases.Phase{pki.New(), kubeconfig.New()}}).Plan(nil, nil)
	if err != nil {
		return err
	}
	return issue.Run(ctx, env, func(context.Context) ([]artifact.Change, error) { return nil, nil })
}

// manifests are the components' after the move.
func (r *readdressing) manifests() []artifact.File {
	var files []artifact.File
	for _, name := range plane.Components() {
		if c := r.plane.Components[name]; c != nil {
			f := r.move.Manifest(name, c.File)
			f.Path = filepath.Join(r.plane.Paths.Manifests, name+".yaml")
			files = append(files, f)
		}
	}
	return files
}

func (r *readdressing) preview(ctx context.Context, std Streams, plan *artifact.Overlay) error {
	for _, f := range r.manifests() {
		if err := plan.Put(f); err != nil {
			return err
		}
	}
	changes, err := plan.Preview(ctx)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.Op != artifact.Unchanged {
			fmt.Fprintln(std.Out, describe(c, true))
		}
	}
	_, err = fmt.Fprintf(std.Out, "would stop the control plane, start it at %s, and move etcd's member, kubeadm-config, cluster-info and kube-proxy\n", r.move.To)
	return err
}

func (r *readdressing) run(ctx context.Context, g *global, env *phases.Env, s *standstill, changes []artifact.Change) error {
	data, err := json.Marshal(record{r.move.From, r.move.To})
	if err != nil {
		return err
	}
	if err := env.Files.Put(artifact.File{Path: recordPath(r.plane.Paths), Data: append(data, '\n'), Mode: 0o600}); err != nil {
		return err
	}
	if err := s.halt(ctx); err != nil {
		return err
	}
	for _, c := range changes {
		if c.Op == artifact.Unchanged || c.After == nil {
			continue
		}
		if err := env.Files.Put(*c.After); err != nil {
			return err
		}
	}
	if err := s.raise(ctx, r.manifests()); err != nil {
		return err
	}
	if err := r.moveMember(ctx, env.Config.Timeouts.EtcdAPICall); err != nil {
		return err
	}
	if err := restartSupervisor(ctx, g, env); err != nil {
		return err
	}
	if err := moveObjects(ctx, env, r.move); err != nil {
		return err
	}
	return env.Files.Remove(recordPath(r.plane.Paths))
}

// moveMember tells etcd the new peer URLs of its one member. It serves without; members that join later need them.
func (r *readdressing) moveMember(ctx context.Context, limit time.Duration) error {
	if r.plane.Member == nil {
		return nil
	}
	client, status, err := dialEtcd(ctx, r.plane.Etcd, limit)
	if err != nil {
		return err
	}
	defer client.Close()
	members, err := client.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.ID != status.MemberID {
			continue
		}
		var moved []string
		for _, u := range m.PeerURLs {
			moved = append(moved, r.move.Text(u))
		}
		if slices.Equal(moved, m.PeerURLs) {
			return nil
		}
		return client.UpdateMember(ctx, m.ID, moved)
	}
	return fmt.Errorf("etcd does not list its own member %x", status.MemberID)
}

// restartSupervisor has the supervisor look for the machine's addresses anew, which it shows in the Node. Its end is not
// the pods' end.
func restartSupervisor(ctx context.Context, g *global, env *phases.Env) error {
	paths := g.paths()
	if host.SystemdRuns() {
		units, err := host.ConnectUnits(ctx)
		if err != nil {
			return err
		}
		defer units.Close()
		if err := units.Stop(ctx, paths.SupervisorUnit); err != nil {
			return err
		}
	} else if f, err := env.Files.ReadFile(paths.SupervisorPID); err == nil {
		var id host.ProcessID
		if err := json.Unmarshal(f.Data, &id); err != nil {
			return fmt.Errorf("reading %s: %w", f.Path, err)
		}
		if err := host.StopProcess(ctx, id, haltTimeout); err != nil {
			return err
		}
	} else {
		return nil // somebody else started it
	}
	deps := supervisor.Deps{ContainerdConfig: containerdConfig, LookPath: exec.LookPath}
	plan, err := (phases.Workflow{Phases: []phases.Phase{supervisor.New(deps)}}).Plan([]string{"supervisor/supervise"}, nil)
	if err != nil {
		return err
	}
	return plan.Run(ctx, env, func(context.Context) ([]artifact.Change, error) { return nil, nil })
}
