package cli

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/renewal"
)

func newCerts(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "certs", Short: "Look at certificates, renew them, and replace their authorities", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newCheckExpiration(std, g), newRenew(std, g), newCertificateKey(std), newGenerateCSR(std, g), newRotateCA(std, g))
	return cmd
}

// clusterFile is a --config of which only the cluster's description matters, and the place of its certificates.
type clusterFile struct {
	config configFlags
	dir    string // --cert-dir
	root   string // --root
}

func (f *clusterFile) register(flags *pflag.FlagSet) {
	f.config.flags = flags
	flags.StringVar(&f.config.file, "config", "", "kubeadm v1beta4 configuration `FILE`, - for standard input")
	flags.StringVar(&f.dir, "cert-dir", "", "`DIRECTORY` of the certificates; default: where the running cluster has them")
}

// registerWithRoot is register for commands that also work on a tree of files.
func (f *clusterFile) registerWithRoot(flags *pflag.FlagSet) {
	f.register(flags)
	flags.StringVar(&f.root, "root", "", "work on what init --root wrote below `DIRECTORY`, restart nothing")
}

// load returns the configuration, nil where no file was given, and the paths that it means.
func (f *clusterFile) load(cmd *cobra.Command, std Streams, g *global) (*config.Cluster, config.Paths, error) {
	paths := g.paths()
	var cluster *config.Cluster
	if f.config.file != "" {
		var err error
		if cluster, err = f.config.load(std, g); err != nil {
			return nil, paths, err
		}
		paths = cluster.Paths
	} else if f.root == "" {
		paths.PKI = g.places(cmd.Context()).PKI
	}
	if f.dir != "" {
		dir, err := filepath.Abs(f.dir)
		if err != nil {
			return nil, paths, fmt.Errorf("--cert-dir: %w", err)
		}
		paths.PKI = dir
	}
	if cluster != nil {
		moved := *cluster
		moved.Paths, cluster = paths, &moved
	}
	return cluster, paths, nil
}

// soon is within how many days an end makes check-expiration's exit code 2.
const soon = 30

func newCheckExpiration(std Streams, g *global) *cobra.Command {
	var f clusterFile
	var out output
	cmd := &cobra.Command{
		Use: "check-expiration", Short: "Show until when each certificate is good", Args: noArguments,
		Long: "check-expiration lists the certificates of this node: those in files, those in kubeconfig files, and the authorities that sign\n" +
			"them. One is externally managed when its authority's key is not on this machine, so that slipway cannot renew it.\n\n" +
			fmt.Sprintf("The exit code is 2 when one has expired or will within %d days, or cannot be read.", soon),
		Example: "  slipway certs check-expiration\n  slipway certs check-expiration -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, paths, err := f.load(cmd, std, g)
			if err != nil {
				return err
			}
			read := func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(f.root, path)) }
			return runCheckExpiration(std.Out, pki.Expirations(read, paths), g.now(), out)
		},
	}
	f.registerWithRoot(cmd.Flags())
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// expirations is the list as kubeadm prints it: v1.36.3 cmd/kubeadm/app/apis/output/v1alpha3.
type expirations struct {
	Kind         string       `json:"kind"`
	APIVersion   string       `json:"apiVersion"`
	Certificates []expiration `json:"certificates"`
	Authorities  []expiration `json:"certificateAuthorities"`
}

type expiration struct {
	Name     string    `json:"name"`
	End      time.Time `json:"expirationDate"`
	Seconds  int64     `json:"residualTime"`
	External bool      `json:"externallyManaged"`
	CA       string    `json:"caName,omitempty"`
	Missing  bool      `json:"missing"`
	Error    string    `json:"error,omitempty"` // slipway's addition
}

func runCheckExpiration(to io.Writer, all []pki.Expiry, now time.Time, out output) error {
	list := expirations{Kind: "CertificateExpirationInfo", APIVersion: "output.kubeadm.k8s.io/v1alpha3", Certificates: []expiration{}, Authorities: []expiration{}}
	urgent := false
	for _, e := range all {
		x := expiration{Name: e.Name, End: e.NotAfter.UTC(), External: e.External, CA: e.CA, Missing: e.Missing}
		if e.Err != nil {
			x.Error = e.Err.Error()
		}
		if !e.Missing && e.Err == nil {
			x.Seconds = int64(e.NotAfter.Sub(now) / time.Second)
		}
		urgent = urgent || e.Err != nil || !e.Missing && x.Seconds < soon*24*60*60
		if e.CA == "" {
			list.Authorities = append(list.Authorities, x)
		} else {
			list.Certificates = append(list.Certificates, x)
		}
	}
	done, err := out.print(to, list, false)
	if err == nil && !done {
		err = printExpirations(to, list)
	}
	if err == nil && urgent {
		return &exit{code: 2}
	}
	return err
}

func printExpirations(to io.Writer, list expirations) error {
	row := func(e expiration, ca ...string) []string {
		end, left := e.End.Format("Jan 02, 2006 15:04 MST"), duration.ShortHumanDuration(time.Duration(e.Seconds)*time.Second)
		switch {
		case e.Missing:
			return append([]string{"!MISSING! " + e.Name, "", ""}, append(ca, "")...)
		case e.Error != "":
			return append([]string{"!UNREADABLE! " + e.Name, "", ""}, append(ca, "")...)
		case e.Seconds < 0:
			left = "expired"
		}
		return append([]string{e.Name, end, left}, append(ca, yesNo(e.External))...)
	}
	var certs, authorities [][]string
	for _, e := range list.Certificates {
		certs = append(certs, row(e, e.CA))
	}
	for _, e := range list.Authorities {
		authorities = append(authorities, row(e))
	}
	if err := table(to, []string{"CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"}, certs); err != nil {
		return err
	}
	fmt.Fprintln(to)
	if err := table(to, []string{"CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"}, authorities); err != nil {
		return err
	}
	for _, e := range append(list.Certificates, list.Authorities...) {
		if e.Error != "" {
			fmt.Fprintln(to, e.Error)
		}
	}
	return nil
}

func newCertificateKey(std Streams) *cobra.Command {
	return &cobra.Command{
		Use: "certificate-key", Short: "Print a new key for --upload-certs", Args: noArguments,
		Long: "certificate-key prints a random key of 32 bytes, as 64 hexadecimal digits, with which the certificate authorities are encrypted\n" +
			"when they are put into the cluster. It is a secret: whoever has it and may read the cluster's Secrets has the authorities.",
		RunE: func(*cobra.Command, []string) error {
			key := make([]byte, 32)
			if _, err := rand.Read(key); err != nil {
				return fmt.Errorf("making a key: %w", err)
			}
			_, err := fmt.Fprintln(std.Out, hex.EncodeToString(key))
			return err
		},
	}
}

func newGenerateCSR(std Streams, g *global) *cobra.Command {
	var f clusterFile
	var kubeconfigs string
	cmd := &cobra.Command{
		Use: "generate-csr", Short: "Write keys and signing requests, for an authority whose key is kept elsewhere", Args: noArguments,
		Long: "generate-csr writes, for each certificate below the authorities, a key where there is none and a request, NAME.csr. Sign the\n" +
			"requests where the authority's key is kept, and put the certificates beside the keys: NAME.crt. A kubeconfig file is written with\n" +
			"its key; its certificate goes into client-certificate-data. Keys that are there are used as they are.",
		Example: "  slipway certs generate-csr --cert-dir /tmp/pki --kubeconfig-dir /tmp/kubernetes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cluster, paths, err := f.load(cmd, std, g)
			if err != nil {
				return err
			}
			if cluster == nil {
				if cluster, err = f.config.load(std, g); err != nil {
					return err
				}
			}
			moved := *cluster
			moved.Paths.PKI = paths.PKI
			if kubeconfigs != "" {
				if moved.Paths.Kubernetes, err = filepath.Abs(kubeconfigs); err != nil {
					return fmt.Errorf("--kubeconfig-dir: %w", err)
				}
			}
			return runGenerateCSR(std.Out, &moved, g.now())
		},
	}
	f.register(cmd.Flags())
	cmd.Flags().StringVar(&kubeconfigs, "kubeconfig-dir", "", "`DIRECTORY` of the kubeconfig files (default /etc/kubernetes)")
	return cmd
}

func runGenerateCSR(out io.Writer, cluster *config.Cluster, now time.Time) error {
	var disk artifact.Store = artifact.Disk{}
	if exists(cluster.Paths.Ledger) && os.Geteuid() == 0 {
		recorded, release, err := openRoot("", cluster)
		if err != nil {
			return err
		}
		defer release()
		disk = recorded
	} else if err := makeDirs(cluster.Paths.Kubernetes, cluster.Paths.PKI, filepath.Join(cluster.Paths.PKI, "etcd")); err != nil {
		return err
	}
	written, err := renewal.SigningRequests(disk, cluster, now)
	if err != nil {
		return err
	}
	for _, path := range written {
		fmt.Fprintln(out, path)
	}
	return nil
}

func makeDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making %q: %w", dir, reason(err))
		}
	}
	return nil
}
