package config

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Options are the inputs of Load.
type Options struct {
	File     string // name of the --config file, for messages
	Data     []byte // its contents; nil when there is none
	Flags    Flags
	Patches  []PatchFile // the files of PatchesDirectory
	Facts    HostFacts
	Instance string // "" for the host's only instance
}

// Load returns the cluster that the file and the flags describe: decoded strictly, flags put over the file, defaulted
// and validated. The strings are warnings, for the user to read. The error joins every Problem found, those of the file
// first and by line; there is no cluster then.
func Load(o Options) (*Cluster, []string, error) {
	r, docs, whole := o.read()
	if !whole {
		return nil, r.warningTexts(), r.err()
	}
	if o.Data != nil && !docs.configures {
		r.fileProblem(0, "holds neither an InitConfiguration nor a ClusterConfiguration; leave out --config to use the defaults")
	}
	for _, other := range docs.others {
		r.warnings = append(r.warnings, &Problem{Source: o.File, Line: other.root.Line, Reason: fmt.Sprintf("the %s is for another command; init leaves it alone", other.kind)})
	}
	checkInert(r, docs)
	cluster := o.build(r, docs)
	if err := r.err(); err != nil {
		return nil, r.warningTexts(), err
	}
	return cluster, r.warningTexts(), nil
}

// build makes the cluster of documents, or reports why there is none.
func (o Options) build(r *report, docs documents) *Cluster {
	b := builder{report: r, docs: docs, facts: o.Facts, out: Cluster{Instance: o.Instance, Facts: o.Facts.clone()}}
	b.paths()
	b.node()
	b.version()
	b.network()
	b.endpoint()
	b.featureGates()
	b.certificates()
	b.etcd()
	b.components()
	b.ports()
	b.addons()
	b.images()
	b.kubelet()
	b.tokens()
	b.certificateKey()
	b.run()
	b.out.Patches = readPatches(r, o.Patches)
	return &b.out
}

// PatchesDirectory returns the directory whose files Load wants as Options.Patches: --patches, else patches.directory,
// else "". Where the file does not parse, the error is that of Load, with every problem known.
func PatchesDirectory(o Options) (string, error) {
	_, docs, whole := o.read()
	if !whole {
		_, _, err := Load(o)
		return "", err
	}
	return docs.init.Patches.Directory, nil
}

// read decodes the file and puts the flags over it. It reports false when the file does not parse to its end.
func (o Options) read() (*report, documents, bool) {
	r := newReport(o.File)
	var docs documents
	whole := true
	if o.Data != nil {
		docs, whole = readDocuments(r, o.Data)
	}
	o.Flags.apply(r, &docs)
	return r, docs, whole
}

// builder turns documents into a Cluster, one area at a time. Its methods report problems and go on; they run in the
// order of Load, since some read what an earlier one has put out.
type builder struct {
	*report
	docs  documents
	facts HostFacts
	out   Cluster
}

// paths settles where things are. Those of the file win over those of the instance.
func (b *builder) paths() {
	if b.out.Instance != "" {
		for _, reason := range validation.IsDNS1123Label(b.out.Instance) {
			b.problems = append(b.problems, &Problem{Source: "--instance", Reason: quoted(b.out.Instance, reason)})
		}
	}
	b.out.Paths = NewPaths(b.out.Instance)
	if dir := b.docs.cluster.CertificatesDir; dir != "" {
		b.out.Paths.PKI = b.absolute("certificatesDir", dir)
	}
	if dir := b.docs.kubelet.StaticPodPath; dir != "" {
		b.out.Paths.Manifests = b.absolute("KubeletConfiguration.staticPodPath", dir)
	}
}

// run takes over what says how init goes about it.
func (b *builder) run() {
	init := b.docs.init
	b.out.PlanOnly = init.PlanOnly
	b.out.SkipPhases = slices.Clone(init.SkipPhases)
	b.out.IgnorePreflightErrors = b.ignoredChecks(init.NodeRegistration.IgnorePreflightErrors)
	b.out.Timeouts = Timeouts{
		ControlPlaneComponentHealthCheck: b.positive("timeouts.controlPlaneComponentHealthCheck", init.Timeouts.ControlPlaneComponentHealthCheck, defaultHealthCheckTimeout),
		KubernetesAPICall:                b.positive("timeouts.kubernetesAPICall", init.Timeouts.KubernetesAPICall, defaultAPICallTimeout),
		EtcdAPICall:                      b.positive("timeouts.etcdAPICall", init.Timeouts.EtcdAPICall, DefaultEtcdAPICall),
	}
}
