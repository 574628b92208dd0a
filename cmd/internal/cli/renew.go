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
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

// podDeadline is how long a restarted pod may take to become ready: etcd with a large store needs minutes.
const podDeadline = 4 * time.Minute

// renewFlags are those of certs renew.
type renewFlags struct {
	cluster clusterFile
	preview bool
}

func newRenew(std Streams, g *global) *cobra.Command {
	var f renewFlags
	cmd := &cobra.Command{
		Use: "renew all|NAME...", Short: "Renew certificates, and restart what uses them, one component at a time",
		Args: someArguments("certificate, or all", "slipway certs renew apiserver"),
		Long: "renew issues certificates anew, whether they are about to end or not, and restarts the static pods that use them: one after the\n" +
			"other, each only when the one before is ready again and serves its new certificate. The kubelet.conf of this node needs no restart.\n\n" +
			"A new certificate says what the one before says, for as long as that was made to last, or what --config wants. Its key stays; a\n" +
			"kubeconfig file gets a new key. Authorities are not renewed: see slipway certs rotate-ca. What was interrupted is repaired by\n" +
			"running it again.\n\nNames: " + strings.Join(renewal.Names(), ", ") + ".",
		Example:           "  slipway certs renew all\n  slipway certs renew apiserver admin.conf\n  slipway certs renew all --dry-run",
		ValidArgsFunction: cobra.FixedCompletions(append([]string{"all"}, renewal.Names()...), cobra.ShellCompDirectiveNoFileComp),
		RunE:              func(cmd *cobra.Command, args []string) error { return runRenew(cmd, std, g, f, args) },
	}
	f.cluster.registerWithRoot(cmd.Flags())
	cmd.Flags().BoolVar(&f.preview, "dry-run", false, "print what would be done, and do nothing")
	return cmd
}

func runRenew(cmd *cobra.Command, std Streams, g *global, f renewFlags, names []string) error {
	cluster, paths, err := f.cluster.load(cmd, std, g)
	if err != nil {
		return err
	}
	if err := renewable(names); err != nil {
		return err
	}
	if !f.preview && f.cluster.root == "" && os.Geteuid() != 0 {
		return withHint(errors.New("certs renew must run as root"), "--dry-run shows what it would do")
	}
	disk, release := artifact.Store(artifact.Disk{Root: f.cluster.root}), func() {}
	if !f.preview {
		if disk, release, err = openFiles(f.cluster.root, paths); err != nil {
			return err
		}
	}
	defer release()
	if err := besideOthers(disk, paths, "certs renew", g.suffix()); err != nil {
		return err
	}
	overlay := artifact.NewOverlay(disk)
	items, err := chosen(renewal.Survey(overlay, paths), names) // under the lock: another run may just have issued them
	if err != nil {
		return err
	}
	var requests map[string]pki.Request
	if cluster != nil {
		requests = renewal.Requests(cluster, g.now())
	}
	if err := renewItems(overlay, paths, items, requests, g.now()); err != nil {
		return err
	}
	if f.preview {
		for _, it := range items {
			fmt.Fprintf(std.Out, "would renew %s: %s\n", it.Name, it.Path)
		}
		for _, pod := range podsOf(items) {
			fmt.Fprintf(std.Out, "would restart %s\n", pod)
		}
		return nil
	}
	if _, err := overlay.Commit(cmd.Context()); err != nil {
		return withHint(err, "what was renewed is whole; run the same command again")
	}
	for _, it := range items {
		fmt.Fprintf(std.Out, "renewed %s: %s\n", it.Name, it.Path)
	}
	if f.cluster.root != "" {
		return nil
	}
	if err := restartUsers(cmd.Context(), g.supervisor(), paths, podsOf(items), std.Err); err != nil {
		return withHint(err, "the certificates are renewed; to take a pod's into use: slipway restart POD"+g.suffix())
	}
	return nil
}

// renewable refuses names that are no certificate's.
func renewable(names []string) error {
	if slices.Contains(names, "all") {
		if len(names) > 1 {
			return errors.New("all means every certificate: give no further names with it")
		}
		return nil
	}
	for _, name := range names {
		if !slices.Contains(renewal.Names(), name) {
			return unknownCertificate(name)
		}
	}
	return nil
}

// chosen returns the items of these names, which are renewable. Of "all" those are left out that are not there.
func chosen(items []renewal.Item, names []string) ([]renewal.Item, error) {
	all := slices.Contains(names, "all")
	var out []renewal.Item
	var errs []error
	for _, it := range items {
		if !all && !slices.Contains(names, it.Name) {
			continue
		}
		switch {
		case it.Missing && !all:
			errs = append(errs, fmt.Errorf("%s: %q is not here; slipway init phase makes it", it.Name, it.Path))
		case it.Err != nil:
			errs = append(errs, it.Err)
		case !it.Missing:
			out = append(out, it)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, withHint(errors.New("there are no certificates here to renew"), "slipway init makes a control plane; --cert-dir says where certificates are")
	}
	return out, nil
}

func unknownCertificate(name string) error {
	err := fmt.Errorf("%q is no certificate that can be renewed", name)
	if s, known := pki.LookUp(name); known && s.IsAuthority() {
		return withHint(fmt.Errorf("%q is a certificate authority: it is replaced, not renewed", name), "slipway certs rotate-ca --authority "+name)
	}
	return withHint(err, "there are: all, "+strings.Join(renewal.Names(), ", "))
}

// openFiles returns the disk under the lock that keeps other runs away, recorded where slipway has a ledger.
func openFiles(root string, paths config.Paths) (artifact.Store, func(), error) {
	disk := artifact.Disk{Root: root}
	if root != "" && !exists(root) {
		return nil, nil, fmt.Errorf("--root: the directory %q is not there: slipway init --root makes it", root)
	}
	if exists(filepath.Join(root, paths.Ledger)) {
		book, err := openBook(root, paths)
		if err != nil {
			return nil, nil, err
		}
		return ledger.Recorded(disk, book.Ledger), book.close, nil
	}
	release, err := ledger.Lock(root, paths.InitLock)
	return disk, release, err
}

// renewItems puts new certificates into a store: as the requests want, by name, else like those that are there.
func renewItems(files artifact.Store, paths config.Paths, items []renewal.Item, requests map[string]pki.Request, now time.Time) error {
	authorities, err := renewal.Authorities(files, paths, items, now)
	if err != nil {
		return err
	}
	for _, it := range items {
		r, wanted := requests[it.Name]
		if !wanted {
			r = pki.RequestLike(it.Cert, now)
		}
		if err := renewal.Renew(files, paths, it, r, authorities[it.CA]); err != nil {
			return fmt.Errorf("renewing %s: %w", it.Name, err)
		}
	}
	return nil
}

// podsOf returns the static pods that use the items, in the order of their restart.
func podsOf(items []renewal.Item) []string {
	used := map[string]bool{}
	var pods []string
	for _, it := range items {
		for _, pod := range it.Pods {
			if !used[pod] {
				used[pod] = true
				pods = append(pods, pod)
			}
		}
	}
	return byDependency(pods)
}

// restartUsers restarts those of the pods that run here, one after the other, until each serves what is on disk.
func restartUsers(ctx context.Context, client *local, paths config.Paths, pods []string, progress io.Writer) error {
	if len(pods) == 0 {
		return nil
	}
	list, err := client.pods(ctx)
	if errors.Is(err, errNotRunning) {
		fmt.Fprintln(progress, "the supervisor does not run: nothing was restarted")
		return nil
	}
	if err != nil {
		return err
	}
	roll, err := newRollout(ctx, client, podDeadline, func(text string) { fmt.Fprintln(progress, text) })
	if err != nil {
		return err
	}
	var steps []restartStep
	for _, pod := range pods {
		name, err := findPod(metav1.NamespaceSystem+"/"+pod, podNames(list))
		if err != nil {
			continue // it is not run here, or not by the supervisor
		}
		steps = append(steps, restartStep{pod: pod, why: "its certificates are new", check: servesNew(podOf(list, name), paths)})
	}
	return roll.restart(ctx, steps)
}
