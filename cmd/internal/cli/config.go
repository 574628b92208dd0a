package cli

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/kubelet"
)

func newConfig(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Print, check and convert configuration files", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newConfigPrint(std, g), newConfigValidate(std), newConfigMigrate(std), newConfigImages(std, g))
	return cmd
}

func newConfigPrint(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "print", Short: "Print a configuration: the defaults of a command, or what init would work from", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newPrintInitDefaults(std),
		newPrintDefaults(std, "join-defaults", "Print the JoinConfiguration with which kubeadm join would begin", config.JoinDefaults),
		newPrintDefaults(std, "reset-defaults", "Print the default ResetConfiguration of kubeadm reset", config.ResetDefaults),
		newPrintDefaults(std, "upgrade-defaults", "Print the default UpgradeConfiguration of kubeadm upgrade", config.UpgradeDefaults),
		newPrintEffective(std, g))
	return cmd
}

func newPrintDefaults(std Streams, use, short string, defaults func() ([]byte, error)) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return printDocuments(std, defaults) }}
}

func newPrintInitDefaults(std Streams) *cobra.Command {
	var components []string
	cmd := &cobra.Command{
		Use: "init-defaults", Short: "Print the default InitConfiguration and ClusterConfiguration of init", Args: noArguments,
		Long: "Print the default InitConfiguration and ClusterConfiguration of init. The node's name, its address and the token are\n" +
			"placeholders: write your own, or remove them to have them taken from the host.",
		RunE: func(*cobra.Command, []string) error {
			documents := []func() ([]byte, error){config.InitDefaults}
			known := map[string]func() ([]byte, error){"KubeletConfiguration": kubeletDefaults, "KubeProxyConfiguration": config.KubeProxyDefaults}
			for _, kind := range components {
				if known[kind] == nil {
					return fmt.Errorf("--component-configs: %q: wanted KubeletConfiguration or KubeProxyConfiguration", kind)
				}
				documents = append(documents, known[kind])
			}
			return printDocuments(std, documents...)
		},
	}
	cmd.Flags().StringSliceVar(&components, "component-configs", nil, "further `KINDS` to print: KubeletConfiguration, KubeProxyConfiguration")
	return cmd
}

// kubeletDefaults is the KubeletConfiguration that init writes, without the socket of slipway's own containerd: in a
// user's document it would be the socket of a runtime that the user brings.
func kubeletDefaults() ([]byte, error) {
	c, err := config.Defaults()
	if err != nil {
		return nil, err
	}
	file, err := kubelet.File(c)
	if err != nil {
		return nil, err
	}
	var document map[string]any
	if err := yaml.Unmarshal(file.Data, &document); err != nil {
		return nil, fmt.Errorf("reading the default KubeletConfiguration: %w", err)
	}
	delete(document, "containerRuntimeEndpoint")
	return yaml.Marshal(document)
}

func newPrintEffective(std Streams, g *global) *cobra.Command {
	var f configFlags
	cmd := &cobra.Command{
		Use: "effective", Short: "Print what init would work from: file, flags and this host, resolved", Args: noArguments,
		Long: "Print the InitConfiguration and the ClusterConfiguration that init would work from: file, flags, defaults and what is taken\n" +
			"from this host, resolved. Tokens and keys are left out.",
		RunE: func(*cobra.Command, []string) error {
			c, err := f.load(std, g)
			if err != nil {
				return err
			}
			return printDocuments(std,
				func() ([]byte, error) { return config.InitConfiguration(c) },
				func() ([]byte, error) { return config.ClusterConfiguration(c) })
		},
	}
	f.register(cmd.Flags())
	return cmd
}

// printDocuments prints documents as one YAML stream.
func printDocuments(std Streams, documents ...func() ([]byte, error)) error {
	var parts [][]byte
	for _, document := range documents {
		data, err := document()
		if err != nil {
			return err
		}
		parts = append(parts, data)
	}
	_, err := std.Out.Write(bytes.Join(parts, []byte("---\n")))
	return err
}

func newConfigValidate(std Streams) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "validate --config FILE", Short: "Check a configuration file, and tell every problem of it with its line", Args: noArguments,
		Long: "Check a file of kubeadm v1beta4 documents: InitConfiguration, ClusterConfiguration, JoinConfiguration, ResetConfiguration,\n" +
			"UpgradeConfiguration, KubeletConfiguration and KubeProxyConfiguration. Nothing is looked up on this host, so that a file for\n" +
			"another one can be checked; directories that the file names are not read.",
		Example: "  slipway config validate --config kubeadm.yaml",
		RunE: func(*cobra.Command, []string) error {
			data, name, err := readRequired(std, "--config", file)
			if err != nil {
				return err
			}
			warnings, err := config.Validate(name, data)
			warn(std, warnings)
			if err != nil {
				return err
			}
			fmt.Fprintln(std.Out, "ok")
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "`FILE` to check, - for standard input")
	return cmd
}

func newConfigMigrate(std Streams) *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use: "migrate --old-config FILE", Short: "Convert a configuration file of kubeadm v1beta3 to v1beta4", Args: noArguments,
		Long: "Convert a file of kubeadm v1beta3 documents to v1beta4. What has changed its place or its form is rewritten, and all else is\n" +
			"left as it is, comments too. Unlike with kubeadm nothing is filled in from this host or with defaults, and documents of the\n" +
			"kubelet and of kube-proxy stay in the file.",
		Example: "  slipway config migrate --old-config old.yaml --new-config new.yaml",
		RunE: func(*cobra.Command, []string) error {
			data, name, err := readRequired(std, "--old-config", from)
			if err != nil {
				return err
			}
			out, warnings, err := config.Migrate(name, data)
			warn(std, warnings)
			if err != nil {
				return err
			}
			if to == "" {
				_, err := std.Out.Write(out)
				return err
			}
			path, err := filepath.Abs(to)
			if err != nil {
				return fmt.Errorf("--new-config: %w", err)
			}
			// Such a file may hold tokens.
			if err := (artifact.Disk{}).Put(artifact.File{Path: path, Data: out, Mode: 0o600, Secret: true}); err != nil {
				return fmt.Errorf("writing %q: %w", to, reason(err))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&from, "old-config", "", "`FILE` to convert, - for standard input")
	cmd.Flags().StringVar(&to, "new-config", "", "`FILE` to write, with mode 0600; default: standard output")
	return cmd
}

// readRequired reads the file of a flag that has to be given, and returns what messages call it.
func readRequired(std Streams, flag, file string) (data []byte, name string, err error) {
	if file == "" {
		return nil, "", errors.New(flag + " is missing: name the file, or - for standard input")
	}
	if data, err = readInput(std.In, file); err != nil {
		return nil, "", err
	}
	if file == "-" {
		file = "standard input"
	}
	return data, file, nil
}

func warn(std Streams, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(std.Err, "warning: %s\n", w)
	}
}

func newConfigImages(std Streams, g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "images", Short: "List and pull the images of a cluster", Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newConfigImagesList(std, g), newImagesPull(std, g))
	return cmd
}

func newConfigImagesList(std Streams, g *global) *cobra.Command {
	var f configFlags
	var out output
	cmd := &cobra.Command{
		Use: "list", Short: "List the images of a cluster, those that only run on nodes that join too", Args: noArguments,
		Long: "List the images of a cluster, one a line: those of \"slipway images list\", which this node runs, and those of kube-proxy and\n" +
			"CoreDNS, which nodes run that join. No runtime is asked.",
		Example: "  slipway config images list\n  slipway images pull $(slipway config images list)",
		RunE: func(*cobra.Command, []string) error {
			cluster, err := f.load(std, g)
			if err != nil {
				return err
			}
			return printImages(std, out.format, clusterImages(cluster))
		},
	}
	f.register(cmd.Flags())
	out.register(cmd.Flags(), "text", "json", "yaml")
	return cmd
}

// clusterImages are the images of a cluster in the order of kubeadm, without those that are not used.
func clusterImages(c *config.Cluster) []string {
	var out []string
	for _, ref := range []string{c.Images.APIServer, c.Images.ControllerManager, c.Images.Scheduler, c.Images.KubeProxy, c.Images.CoreDNS, c.Images.Pause, c.Images.Etcd} {
		if ref != "" {
			out = append(out, ref)
		}
	}
	return out
}

// imageList is kubeadm's answer to "config images list", so that the same tools read both.
type imageList struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Images     []string `json:"images"`
}

func printImages(std Streams, format string, refs []string) error {
	list := imageList{"output.kubeadm.k8s.io/v1alpha3", "Images", refs}
	switch format {
	case "json":
		return printJSON(std.Out, list)
	case "yaml":
		data, err := yaml.Marshal(list)
		if err != nil {
			return fmt.Errorf("writing the list of images: %w", err)
		}
		_, err = std.Out.Write(data)
		return err
	}
	_, err := fmt.Fprintln(std.Out, strings.Join(refs, "\n"))
	return err
}
