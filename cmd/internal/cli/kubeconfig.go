package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

func newKubeconfig(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "kubeconfig", Short: "Make kubeconfig files", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newKubeconfigUser(std, g))
	return cmd
}

// userFlags are those of kubeconfig user, by kubeadm's names.
type userFlags struct {
	cluster     clusterFile
	name, token string
	groups      []string
	validity    time.Duration
}

func newKubeconfigUser(std Streams, g *global) *cobra.Command {
	var f userFlags
	cmd := &cobra.Command{
		Use: "user", Short: "Print a kubeconfig for a further user", Args: noArguments,
		Long: "user prints a kubeconfig with a client certificate for the user NAME, signed by the cluster's authority, or with a token. It names\n" +
			"the API server of --config or, without that, the one of this node's admin.conf. What it prints is a secret: whoever has it is that\n" +
			"user. The user may do nothing until a role binding says so.",
		Example: "  slipway kubeconfig user --client-name alice --org developers --validity-period 720h >alice.conf",
		RunE:    func(cmd *cobra.Command, _ []string) error { return runKubeconfigUser(cmd, std, g, f) },
	}
	f.cluster.registerWithRoot(cmd.Flags())
	cmd.Flags().StringVar(&f.name, "client-name", "", "`NAME` of the user, the certificate's common name")
	cmd.Flags().StringSliceVar(&f.groups, "org", nil, "`GROUPS` of the user, the certificate's organizations")
	cmd.Flags().StringVar(&f.token, "token", "", "`TOKEN` to use instead of a certificate")
	cmd.Flags().DurationVar(&f.validity, "validity-period", 0, "`TIME` for which the certificate is good (default 8760h)")
	return cmd
}

func runKubeconfigUser(cmd *cobra.Command, std Streams, g *global, f userFlags) error {
	switch {
	case f.name == "":
		return withHint(errors.New("--client-name is missing: whose kubeconfig is it to be?"), "for example: slipway kubeconfig user --client-name alice")
	case f.token != "" && len(f.groups) > 0:
		return errors.New("--org goes into a certificate, and --token takes its place: use one of them")
	case f.validity < 0:
		return errors.New("--validity-period: a certificate that has expired is good for nothing; use a longer time")
	}
	cluster, paths, err := f.cluster.load(cmd, std, g)
	if err != nil {
		return err
	}
	if cluster == nil {
		if cluster, err = clusterOf(artifact.Disk{Root: f.cluster.root}, paths); err != nil {
			return err
		}
	}
	if f.validity == 0 {
		f.validity = cluster.CertificateValidity
	}
	data, err := renewal.UserKubeconfig(artifact.Disk{Root: f.cluster.root}, cluster, f.name, f.groups, f.token, f.validity, g.now())
	if err != nil {
		return err
	}
	_, err = std.Out.Write(data)
	return err
}

// clusterOf returns what the files of a node tell of its cluster: as much as a kubeconfig needs.
func clusterOf(disk artifact.Disk, paths config.Paths) (*config.Cluster, error) {
	name, endpoint, alg, err := renewal.ClusterOf(disk, paths)
	if err != nil {
		return nil, withHint(err, "--config FILE says what the cluster is")
	}
	return &config.Cluster{Paths: paths, ClusterName: name, ControlPlaneEndpoint: endpoint, KeyAlgorithm: alg, CertificateValidity: 365 * 24 * time.Hour}, nil
}
