package config

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// What a field does to the Cluster. Every field of v1beta4 has one of these; none may be ignored in silence.
const (
	honoured = "honoured" // another value makes another Cluster
	refused  = "refused"  // a value is an error that names the field
	warned   = "warned"   // a value is a warning that names the field, and nothing else
)

// fieldCase is a field, and a value of it. Where the value needs others beside it, base is the same without the field.
type fieldCase struct{ field, value, base, want string }

func initFields() []fieldCase {
	node := "nodeRegistration: "
	return []fieldCase{
		{"bootstrapTokens[].token", "bootstrapTokens: [{token: aaaaaa.0123456789abcdef}]", "", honoured},
		{"bootstrapTokens[].description", "bootstrapTokens: [{description: x}]", "", honoured},
		{"bootstrapTokens[].ttl", "bootstrapTokens: [{ttl: 1h}]", "", honoured},
		{"bootstrapTokens[].expires", `bootstrapTokens: [{expires: "2030-01-01T00:00:00Z"}]`, "", honoured},
		{"bootstrapTokens[].usages", "bootstrapTokens: [{usages: [signing]}]", "", honoured},
		{"bootstrapTokens[].groups", "bootstrapTokens: [{groups: [system:bootstrappers:a]}]", "", honoured},
		{"dryRun", "dryRun: true", "", honoured},
		{"nodeRegistration.name", node + "{name: other}", "", honoured},
		{"nodeRegistration.criSocket", node + "{criSocket: unix:///run/x.sock}", "", honoured},
		{"nodeRegistration.taints", node + "{taints: [{key: a, effect: NoSchedule}]}", "", honoured},
		{"nodeRegistration.taints", node + "{taints: []}", "", honoured},
		{"nodeRegistration.kubeletExtraArgs[].name", node + "{kubeletExtraArgs: [{name: v}]}", "", refused},
		{"nodeRegistration.kubeletExtraArgs[].value", node + `{kubeletExtraArgs: [{value: "2"}]}`, "", refused},
		{"nodeRegistration.ignorePreflightErrors", node + "{ignorePreflightErrors: [Swap]}", "", honoured},
		{"nodeRegistration.imagePullPolicy", node + "{imagePullPolicy: Never}", "", honoured},
		{"nodeRegistration.imagePullSerial", node + "{imagePullSerial: false}", "", honoured},
		{"localAPIEndpoint.advertiseAddress", "localAPIEndpoint: {advertiseAddress: 198.51.100.1}", "", honoured},
		{"localAPIEndpoint.bindPort", "localAPIEndpoint: {bindPort: 443}", "", honoured},
		{"certificateKey", "certificateKey: " + strings.Repeat("0a", 32), "", honoured},
		{"skipPhases", "skipPhases: [preflight]", "", honoured},
		{"timeouts.controlPlaneComponentHealthCheck", "timeouts: {controlPlaneComponentHealthCheck: 1m}", "", honoured},
		{"timeouts.kubeletHealthCheck", "timeouts: {kubeletHealthCheck: 1m}", "", refused},
		{"timeouts.kubernetesAPICall", "timeouts: {kubernetesAPICall: 2m}", "", honoured},
		{"timeouts.etcdAPICall", "timeouts: {etcdAPICall: 1m}", "", honoured},
		{"timeouts.tlsBootstrap", "timeouts: {tlsBootstrap: 1m}", "", refused},
		{"timeouts.discovery", "timeouts: {discovery: 1m}", "", refused},
		{"timeouts.upgradeManifests", "timeouts: {upgradeManifests: 1m}", "", refused},

		// What kubeadm prints or does anyway.
		{"timeouts.kubeletHealthCheck", "timeouts: {kubeletHealthCheck: 4m}", "", warned},
		{"timeouts.discovery", "timeouts: {discovery: 0s}", "", warned},
	}
}

func clusterFields() []fieldCase {
	local, external := "etcd: {local: {", "etcd: {external: {endpoints: [https://10.0.0.1:2379]"
	cases := []fieldCase{
		{"etcd.local.imageRepository", local + "imageRepository: r}}", "", honoured},
		{"etcd.local.imageTag", local + "imageTag: v1}}", "", honoured},
		{"etcd.local.dataDir", local + "dataDir: /d}}", "", honoured},
		{"etcd.local.extraArgs[].name", local + "extraArgs: [{name: a}]}}", "", honoured},
		{"etcd.local.extraArgs[].value", local + "extraArgs: [{name: a, value: b}]}}", local + "extraArgs: [{name: a}]}}", honoured},
		{"etcd.local.extraEnvs", local + "extraEnvs: [{name: a, value: b}]}}", "", honoured},
		{"etcd.local.serverCertSANs", local + "serverCertSANs: [a]}}", "", honoured},
		{"etcd.local.peerCertSANs", local + "peerCertSANs: [a]}}", "", honoured},
		{"etcd.external.endpoints", external + "}}", "", honoured},
		{"etcd.external.httpEndpoints", external + ", httpEndpoints: [https://10.0.0.2:2381]}}", external + "}}", honoured},
		{"etcd.external.caFile", external + ", caFile: /ca}}", external + "}}", honoured},
		{"etcd.external.certFile", external + ", caFile: /ca, certFile: /c, keyFile: /k}}", external + ", caFile: /ca, certFile: /d, keyFile: /k}}", honoured},
		{"etcd.external.keyFile", external + ", caFile: /ca, certFile: /c, keyFile: /k}}", external + ", caFile: /ca, certFile: /c, keyFile: /l}}", honoured},
		{"networking.serviceSubnet", "networking: {serviceSubnet: 10.0.0.0/16}", "", honoured},
		{"networking.podSubnet", "networking: {podSubnet: 10.0.0.0/16}", "", honoured},
		{"networking.dnsDomain", "networking: {dnsDomain: a}", "", honoured},
		{"kubernetesVersion", "kubernetesVersion: 1.35.0", "", honoured},
		{"controlPlaneEndpoint", "controlPlaneEndpoint: a", "", honoured},
		{"apiServer.certSANs", "apiServer: {certSANs: [a]}", "", honoured},
		{"dns.imageRepository", "dns: {imageRepository: r}", "", honoured},
		{"dns.imageTag", "dns: {imageTag: v1}", "", honoured},
		{"dns.disabled", "dns: {disabled: true}", "", honoured},
		{"proxy.disabled", "proxy: {disabled: true}", "", honoured},
		{"certificatesDir", "certificatesDir: /pki", "", honoured},
		{"imageRepository", "imageRepository: r", "", honoured},
		{"featureGates", "featureGates: {PublicKeysECDSA: false}", "", honoured},
		{"clusterName", "clusterName: other", "", honoured},
		{"encryptionAlgorithm", "encryptionAlgorithm: RSA-4096", "", honoured},
		{"certificateValidityPeriod", "certificateValidityPeriod: 1h", "", honoured},
		{"caCertificateValidityPeriod", "caCertificateValidityPeriod: 9000h", "", honoured},
	}
	for _, c := range []string{"apiServer", "controllerManager", "scheduler"} {
		volume := c + ": {extraVolumes: [{name: a, hostPath: /a, mountPath: /b"
		cases = append(cases,
			fieldCase{c + ".extraArgs[].name", c + ": {extraArgs: [{name: a}]}", "", honoured},
			fieldCase{c + ".extraArgs[].value", c + ": {extraArgs: [{name: a, value: b}]}", c + ": {extraArgs: [{name: a}]}", honoured},
			fieldCase{c + ".extraEnvs", c + ": {extraEnvs: [{name: a}]}", "", honoured},
			fieldCase{c + ".extraVolumes[].name", volume + "}]}", strings.Replace(volume, "name: a", "name: c", 1) + "}]}", honoured},
			fieldCase{c + ".extraVolumes[].hostPath", volume + "}]}", strings.Replace(volume, "/a", "/c", 1) + "}]}", honoured},
			fieldCase{c + ".extraVolumes[].mountPath", volume + "}]}", strings.Replace(volume, "/b", "/c", 1) + "}]}", honoured},
			fieldCase{c + ".extraVolumes[].readOnly", volume + ", readOnly: true}]}", volume + "}]}", honoured},
			fieldCase{c + ".extraVolumes[].pathType", volume + ", pathType: File}]}", volume + "}]}", honoured},
		)
	}
	return cases
}

func TestEveryFieldIsHonouredRefusedOrWarnedAbout(t *testing.T) {
	for _, doc := range []struct {
		kind  string
		shape reflect.Type
		cases []fieldCase
		other []string // covered by another test
	}{
		{"InitConfiguration", reflect.TypeFor[initConfiguration](), initFields(), []string{"patches.directory"}}, // TestPatchesDirectory
		{"ClusterConfiguration", reflect.TypeFor[clusterConfiguration](), clusterFields(), nil},
	} {
		covered := append([]string{"apiVersion", "kind"}, doc.other...)
		for _, c := range doc.cases {
			covered = append(covered, c.field)
			t.Run(doc.kind+"/"+c.field+"/"+c.want, func(t *testing.T) { c.check(t, doc.kind) })
		}
		var all []string
		walkFields(doc.shape, "", func(path string) { all = append(all, path) })
		for _, path := range all {
			leaf := !slices.ContainsFunc(all, func(p string) bool { return strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[].") })
			if leaf && !slices.Contains(covered, path) {
				t.Errorf("%s: nothing says what %s does", doc.kind, path)
			}
		}
		for _, path := range covered {
			if !slices.Contains(all, path) {
				t.Errorf("%s has no field %s", doc.kind, path)
			}
		}
	}
}

func (c fieldCase) check(t *testing.T, kind string) {
	load := func(body string) (*Cluster, []string, error) {
		data := "apiVersion: " + kubeadmVersion + "\nkind: " + kind + "\n" + body + "\n"
		return Load(Options{File: "f.yaml", Data: []byte(data), Facts: testFacts()})
	}
	base, _, err := load(c.base)
	if err != nil {
		t.Fatalf("the base: %v", err)
	}
	got, warnings, err := load(c.value)
	top, _, _ := strings.Cut(strings.ReplaceAll(c.field, "[]", ""), "[")
	if i := strings.Index(c.field, "["); i > 0 {
		top = c.field[:i] // a list is refused as a whole
	}
	var problem *Problem
	if (c.want == refused) != errors.As(err, &problem) {
		t.Fatalf("the error is %v", err)
	}
	if c.want == refused {
		if problem.Field != top || problem.Line != 3 {
			t.Errorf("the problem is of %q on line %d, wanted %q on line 3", problem.Field, problem.Line, top)
		}
		return
	}
	diff := cmp.Diff(base, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}))
	if (c.want == honoured) != (diff != "") {
		t.Errorf("-without +with:\n%s", diff)
	}
	if c.want == warned && (len(warnings) != 1 || !strings.HasPrefix(warnings[0], "f.yaml:3: "+top+": ")) {
		t.Errorf("the warnings are %q", warnings)
	}
}
