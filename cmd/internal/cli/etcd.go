package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/etcd"
)

func newEtcd(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "etcd", Short: "Look after the cluster's data", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	snapshots := &cobra.Command{Use: "snapshot", Short: "Save, list and restore snapshots of etcd", Args: noArguments,
		Long: "A snapshot is all that the cluster's API holds, at one revision, and nothing of the node's files. To move a cluster to another\n" +
			"machine, or to be safe from the loss of this one, use slipway backup.",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	snapshots.AddCommand(newSnapshotSave(std, g), newSnapshotList(std, g), newSnapshotRestore(std, g))
	cmd.AddCommand(snapshots)
	return cmd
}

// node reads the control plane of this node off its manifests.
func (g *global) node() (*plane.Plane, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this must run as root: the files of the control plane are root's")
	}
	p, err := plane.Read(artifact.Disk{}, g.paths())
	if err != nil {
		return nil, withHint(err, "on a node, slipway init makes one")
	}
	return p, nil
}

// dialEtcd returns a client that uses the API server's certificate for etcd, connected to the first server that answers.
// limit bounds each of its calls (timeouts.etcdAPICall).
func dialEtcd(ctx context.Context, a plane.EtcdAccess, limit time.Duration) (*etcd.Client, etcd.Status, error) {
	config, err := etcdTLS(a)
	if err != nil {
		return nil, etcd.Status{}, err
	}
	failed := []error{}
	for _, server := range a.Servers {
		client, err := etcd.Dial(server, config, limit)
		if err != nil {
			return nil, etcd.Status{}, err
		}
		status, err := client.Status(ctx)
		if err == nil {
			return client, status, nil
		}
		failed = append(failed, err)
		client.Close() //nolint:errcheck // nothing was sent
	}
	if len(failed) == 0 {
		return nil, etcd.Status{}, errors.New("the API server's manifest names no etcd: --etcd-servers is empty")
	}
	return nil, etcd.Status{}, errors.Join(failed...)
}

func etcdTLS(a plane.EtcdAccess) (*tls.Config, error) {
	if a.CA == "" && a.Cert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CA != "" {
		data, err := os.ReadFile(a.CA)
		if err != nil {
			return nil, fmt.Errorf("reading etcd's certificate authority: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading etcd's certificate authority: %s holds no certificate", a.CA)
		}
	}
	if a.Cert != "" {
		pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the client certificate for etcd: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
