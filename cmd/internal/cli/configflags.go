package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/runtime/containerd"
)

// configFlags describe the cluster: kubeadm's flags by kubeadm's names.
type configFlags struct {
	file      string
	factsFile string

	advertiseAddress, nodeName, podCIDR, serviceCIDR, dnsDomain, endpoint string
	version, repository, certDir, criSocket, featureGates, patches        string
	bindPort                                                              int
	certSANs, ignorePreflight, skipPhases                                 []string
	certificateKey, token                                                 string
	uploadCerts                                                           bool
	tokenTTL                                                              time.Duration
	flags                                                                 *pflag.FlagSet
}

func (f *configFlags) register(flags *pflag.FlagSet) {
	f.flags = flags
	flags.StringVar(&f.file, "config", "", "kubeadm v1beta4 configuration `FILE`, - for standard input; other flags override it")
	flags.StringVar(&f.factsFile, "host-facts", "", "render for another host, whose facts are in this YAML `FILE`: hostname, defaultAddresses, cgroupDriver, caDirs, …")
	flags.StringVar(&f.advertiseAddress, "apiserver-advertise-address", "", "`IP` address the API server advertises; default: the address of the default route")
	flags.IntVar(&f.bindPort, "apiserver-bind-port", 6443, "`PORT` the API server listens on")
	flags.StringVar(&f.nodeName, "node-name", "", "`NAME` of this node; default: the host name")
	flags.StringVar(&f.podCIDR, "pod-network-cidr", "", "addresses of pods, `CIDR` or two separated by a comma")
	flags.StringVar(&f.serviceCIDR, "service-cidr", "10.96.0.0/12", "addresses of services, `CIDR` or two separated by a comma")
	flags.StringVar(&f.dnsDomain, "service-dns-domain", "cluster.local", "`DOMAIN` of services")
	flags.StringVar(&f.endpoint, "control-plane-endpoint", "", "stable `ADDRESS` of the control plane, host or host:port")
	flags.StringVar(&f.version, "kubernetes-version", config.DefaultKubernetesVersion, "`VERSION` of the control plane")
	flags.StringVar(&f.repository, "image-repository", "registry.k8s.io", "`REGISTRY` to take images from")
	flags.StringVar(&f.certDir, "cert-dir", "/etc/kubernetes/pki", "`DIRECTORY` of the certificates")
	flags.StringVar(&f.criSocket, "cri-socket", "", "`SOCKET` of an existing containerd; default: slipway runs its own")
	flags.StringSliceVar(&f.certSANs, "apiserver-cert-extra-sans", nil, "further `NAMES` and addresses in the API server's certificate")
	flags.StringVar(&f.featureGates, "feature-gates", "", "kubeadm feature gates, `A=true,B=false`")
	flags.StringSliceVar(&f.ignorePreflight, "ignore-preflight-errors", nil, "`CHECKS` whose errors are only warnings; all for every check")
	flags.StringSliceVar(&f.skipPhases, "skip-phases", nil, "`PHASES` to leave out")
	flags.StringVar(&f.patches, "patches", "", "`DIRECTORY` with patches, TARGET[SUFFIX][+TYPE].yaml")
}

// registerJoin adds the flags of what further nodes join with: those of init, kubeadm's names too.
func (f *configFlags) registerJoin(flags *pflag.FlagSet) {
	flags.BoolVar(&f.uploadCerts, "upload-certs", false, "put the certificate authorities into the cluster, encrypted, for further control-plane nodes")
	flags.StringVar(&f.certificateKey, "certificate-key", "", "`KEY` to encrypt them with, 64 hexadecimal digits; default: one is made")
	flags.StringVar(&f.token, "token", "", "`TOKEN` for nodes to join with, as abcdef.0123456789abcdef; default: one is made")
	flags.DurationVar(&f.tokenTTL, "token-ttl", 24*time.Hour, "`TIME` after which the token is removed, 0 for never")
}

// given wraps a flag's value for the configuration, which must know whether the user set it, and where.
func given[T any](f *configFlags, g *global, name string, v T) config.Flag[T] {
	return config.Flag[T]{Value: v, Set: f.flags.Changed(name), Origin: g.origins[name]}
}

func (f *configFlags) values(g *global) config.Flags {
	return config.Flags{
		AdvertiseAddress:      given(f, g, "apiserver-advertise-address", f.advertiseAddress),
		BindPort:              given(f, g, "apiserver-bind-port", f.bindPort),
		NodeName:              given(f, g, "node-name", f.nodeName),
		PodNetworkCIDR:        given(f, g, "pod-network-cidr", f.podCIDR),
		ServiceCIDR:           given(f, g, "service-cidr", f.serviceCIDR),
		ServiceDNSDomain:      given(f, g, "service-dns-domain", f.dnsDomain),
		ControlPlaneEndpoint:  given(f, g, "control-plane-endpoint", f.endpoint),
		KubernetesVersion:     given(f, g, "kubernetes-version", f.version),
		ImageRepository:       given(f, g, "image-repository", f.repository),
		CertDir:               given(f, g, "cert-dir", f.certDir),
		CRISocket:             given(f, g, "cri-socket", f.criSocket),
		CertSANs:              given(f, g, "apiserver-cert-extra-sans", f.certSANs),
		FeatureGates:          given(f, g, "feature-gates", f.featureGates),
		IgnorePreflightErrors: given(f, g, "ignore-preflight-errors", f.ignorePreflight),
		SkipPhases:            given(f, g, "skip-phases", f.skipPhases),
		Patches:               given(f, g, "patches", f.patches),
		UploadCerts:           given(f, g, "upload-certs", f.uploadCerts),
		CertificateKey:        given(f, g, "certificate-key", f.certificateKey),
		Token:                 given(f, g, "token", f.token),
		TokenTTL:              given(f, g, "token-ttl", f.tokenTTL),
	}
}

// load reads the file, the patches and the host's facts, and returns the frozen cluster. Warnings go to standard error.
func (f *configFlags) load(std Streams, g *global) (*config.Cluster, error) {
	data, err := readInput(std.In, f.file)
	if err != nil {
		return nil, err
	}
	return f.loadFrom(std, g, f.file, data)
}

// loadFrom is load with what the file, or what stands for it, holds.
func (f *configFlags) loadFrom(std Streams, g *global, name string, data []byte) (*config.Cluster, error) {
	options := config.Options{File: name, Data: data, Flags: f.values(g), Instance: g.instance}
	var err error
	if options.Facts, err = f.facts(std, g); err != nil {
		return nil, err
	}
	dir, err := config.PatchesDirectory(options)
	if err != nil {
		return nil, err
	}
	if options.Patches, err = readPatches(dir); err != nil {
		return nil, err
	}
	if options.File == "-" {
		options.File = "standard input"
	}
	cluster, warnings, err := config.Load(options)
	if err != nil {
		return nil, err
	}
	warn(std, warnings)
	return cluster, nil
}

// facts are the given host's, or this one's.
func (f *configFlags) facts(std Streams, g *global) (config.HostFacts, error) {
	if f.factsFile != "" {
		data, err := readInput(std.In, f.factsFile)
		if err != nil {
			return config.HostFacts{}, err
		}
		return config.ParseFacts(f.factsFile, data)
	}
	executable, err := os.Executable()
	if err != nil {
		return config.HostFacts{}, fmt.Errorf("finding slipway's own program: %w", err)
	}
	facts, err := host.GatherFacts(host.FactSources{Environ: std.Environ, Executable: executable})
	if err != nil {
		return config.HostFacts{}, err
	}
	runtime, err := containerd.Detect(g.paths().Containerd)
	if err != nil {
		return config.HostFacts{}, err
	}
	facts.Snapshotter, facts.CNIBinDir = runtime.Snapshotter, runtime.CNIBinDir
	return facts, nil
}

// inputLimit bounds what is read of a configuration: a hundred times the largest that is known.
const inputLimit = 10 << 20

// readInput reads a file, or standard input for "-". No name gives no data.
func readInput(in io.Reader, name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading %q: %w", name, reason(err))
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, inputLimit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	if len(data) > inputLimit {
		return nil, fmt.Errorf("reading %q: it is larger than %d MiB", name, inputLimit>>20)
	}
	return data, nil
}

// readPatches reads every file of the patches directory, sorted by name.
func readPatches(dir string) ([]config.PatchFile, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading patches: the directory %s does not exist", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading patches: %w", err)
	}
	var out []config.PatchFile
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading a patch: %w", err)
		}
		out = append(out, config.PatchFile{Name: e.Name(), Data: data})
	}
	slices.SortFunc(out, func(a, b config.PatchFile) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out, nil
}
