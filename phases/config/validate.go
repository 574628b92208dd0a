package config

import (
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
)

// anyHost stands in for the host that a file is for, where only the file is looked at. Its addresses are of
// documentation: RFC 5737 and 3849.
func anyHost() HostFacts {
	return HostFacts{
		Hostname:         "node",
		DefaultAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		CgroupDriver:     "systemd",
	}
}

// Validate reads a file of kubeadm's documents, those of all its commands, and returns every problem of it, and the
// warnings, by line. What depends on the host is not looked at.
func Validate(file string, data []byte) (warnings []string, err error) {
	r := newReport(file)
	docs, whole := readDocuments(r, data)
	if !whole {
		return r.warningTexts(), r.err()
	}
	if !docs.configures && len(docs.others) == 0 {
		r.fileProblem(0, "holds no document of kubeadm")
	}
	if docs.configures {
		checkInert(r, docs)
		Options{File: file, Facts: anyHost()}.build(r, docs)
	}
	checkOthers(r, docs.others)
	return r.warningTexts(), r.err()
}

// checkOthers decodes the documents of other commands, strictly, and checks their values.
func checkOthers(r *report, others []other) {
	for _, o := range others {
		own := newReport(r.file) // fields of the same name are on other lines
		own.begin = o.root.Line
		d := &decoder{report: own}
		b := &builder{report: own, facts: anyHost()}
		switch o.kind {
		case "JoinConfiguration":
			var join joinConfiguration
			d.decode(o.root, "", &join)
			b.join(join)
		case "ResetConfiguration":
			var reset resetConfiguration
			d.decode(o.root, "", &reset)
			b.reset(reset)
		case "UpgradeConfiguration":
			var upgrade upgradeConfiguration
			d.decode(o.root, "", &upgrade)
			b.upgrade(upgrade)
		}
		r.problems = append(r.problems, own.problems...)
		r.warnings = append(r.warnings, own.warnings...)
	}
}

var caHash = regexp.MustCompile(`^sha256:[0-9a-fA-F]{64}$`)

func (b *builder) join(j joinConfiguration) {
	b.docs.init.NodeRegistration = j.NodeRegistration
	b.node()
	b.args("nodeRegistration.kubeletExtraArgs", j.NodeRegistration.KubeletExtraArgs)
	b.ignoredChecks(j.NodeRegistration.IgnorePreflightErrors)
	b.absolute("caCertPath", j.CACertPath)
	b.allPositive(j.Timeouts)
	switch d := j.Discovery; {
	case d.BootstrapToken == nil && d.File == nil:
		b.problemf("discovery", "names no way to the cluster; set bootstrapToken or file")
	case d.BootstrapToken != nil && d.File != nil:
		b.problemf("discovery", "bootstrapToken and file are both set; keep one")
	case d.File != nil:
		b.required("discovery.file.kubeConfigPath", d.File.KubeConfigPath)
	default:
		b.tokenDiscovery("discovery.bootstrapToken", *d.BootstrapToken)
	}
	b.tokenText("discovery.tlsBootstrapToken", j.Discovery.TLSBootstrapToken)
	if c := j.ControlPlane; c != nil {
		if a := c.LocalAPIEndpoint.AdvertiseAddress; a != "" {
			if _, err := netip.ParseAddr(a); err != nil {
				b.problemf("controlPlane.localAPIEndpoint.advertiseAddress", "%q is not an IP address", a)
			}
		}
		if port := c.LocalAPIEndpoint.BindPort; port < 0 || port > 65535 {
			b.problemf("controlPlane.localAPIEndpoint.bindPort", "%d is not a port between 1 and 65535", port)
		}
		b.keyText("controlPlane.certificateKey", c.CertificateKey)
	}
}

func (b *builder) tokenDiscovery(field string, d tokenDiscovery) {
	b.required(field+".token", d.Token)
	b.tokenText(field+".token", d.Token)
	b.hostPort(field+".apiServerEndpoint", d.APIServerEndpoint)
	for i, hash := range d.CACertHashes {
		if !caHash.MatchString(hash) {
			b.problemf(element(field+".caCertHashes", i), "%q is not a hash of a CA: wanted sha256: and 64 hexadecimal digits", hash)
		}
	}
	if len(d.CACertHashes) == 0 && !d.UnsafeSkipCAVerification {
		b.problemf(field, "caCertHashes is missing: the node would not know the cluster from another that answers; unsafeSkipCAVerification: true takes that risk")
	}
}

// hostPort reports what is not host:port.
func (b *builder) hostPort(field, endpoint string) {
	_, port, err := net.SplitHostPort(endpoint)
	if err == nil {
		var n uint64
		if n, err = strconv.ParseUint(port, 10, 16); err == nil && n > 0 {
			return
		}
	}
	b.problemf(field, "%q is not host:port, such as 10.0.0.1:6443", endpoint)
}

func (b *builder) reset(r resetConfiguration) {
	b.absolute("certificatesDir", r.CertificatesDir)
	b.socket("criSocket", r.CRISocket)
	b.ignoredChecks(r.IgnorePreflightErrors)
	for i, flag := range r.UnmountFlags {
		b.oneOf(element("unmountFlags", i), flag, "MNT_FORCE", "MNT_DETACH", "MNT_EXPIRE", "UMOUNT_NOFOLLOW")
	}
	b.allPositive(r.Timeouts)
}

func (b *builder) upgrade(u upgradeConfiguration) {
	for field, v := range map[string]string{
		"apply.kubernetesVersion": u.Apply.KubernetesVersion, "diff.kubernetesVersion": u.Diff.KubernetesVersion,
		"plan.kubernetesVersion": u.Plan.KubernetesVersion,
	} {
		if _, err := version.ParseSemantic(v); v != "" && err != nil {
			b.problemf(field, "%q is not a version; write it in full, such as %s", v, DefaultKubernetesVersion)
		}
	}
	b.pullPolicy("apply.imagePullPolicy", u.Apply.ImagePullPolicy)
	b.pullPolicy("node.imagePullPolicy", u.Node.ImagePullPolicy)
	if n := u.Diff.ContextLines; n < 0 {
		b.problemf("diff.contextLines", "%d: wanted a number of lines, or 0", n)
	}
	b.allPositive(u.Timeouts)
}

// pullPolicy reports what is no policy. None is fine: there is a default.
func (b *builder) pullPolicy(field string, policy corev1.PullPolicy) {
	if policy != "" {
		b.oneOf(field, string(policy), string(corev1.PullAlways), string(corev1.PullIfNotPresent), string(corev1.PullNever))
	}
}

// allPositive checks every timeout of another command.
func (b *builder) allPositive(t timeouts) {
	v := reflect.ValueOf(t)
	for name, f := range fieldsOf(v.Type()) {
		b.positive("timeouts."+name, v.FieldByIndex(f.Index).Interface().(*metav1.Duration), 0)
	}
}
