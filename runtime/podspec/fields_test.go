package podspec

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// documented are the types whose every field docs/static-pods.md has a row for, by the heading of their table.
func documented() map[string]reflect.Type {
	types := map[string]reflect.Type{}
	for _, t := range []reflect.Type{
		reflect.TypeFor[corev1.PodSpec](), reflect.TypeFor[corev1.Container](), reflect.TypeFor[corev1.EnvVarSource](), reflect.TypeFor[corev1.Probe](),
		reflect.TypeFor[corev1.HTTPGetAction](), reflect.TypeFor[corev1.GRPCAction](), reflect.TypeFor[corev1.Lifecycle](), reflect.TypeFor[corev1.LifecycleHandler](),
		reflect.TypeFor[corev1.SecurityContext](), reflect.TypeFor[corev1.PodSecurityContext](), reflect.TypeFor[corev1.VolumeMount](), reflect.TypeFor[corev1.VolumeSource](),
		reflect.TypeFor[corev1.EmptyDirVolumeSource](), reflect.TypeFor[corev1.VolumeProjection](),
	} {
		types[t.Name()] = t
	}
	return types
}

var docRow = regexp.MustCompile("^\\| `([^`]+)` \\| ([^|]*) \\|")

// docRows are the rows of the document by type and field: how the field is treated.
func docRows(t *testing.T) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile("../../docs/static-pods.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]map[string]string{}
	heading := ""
	for line := range strings.Lines(string(data)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
			rows[heading] = map[string]string{}
		}
		if m := docRow.FindStringSubmatch(line); m != nil {
			if rows[heading][m[1]] != "" {
				t.Errorf("%s.%s has two rows", heading, m[1])
			}
			rows[heading][m[1]] = m[2]
		}
	}
	return rows
}

// Every field of the API has a row in the document, and every row is of a field that there is.
func TestEveryFieldIsDocumented(t *testing.T) {
	rows := docRows(t)
	for name, typ := range documented() {
		want := jsonNames(typ)
		if got := slices.Sorted(maps.Keys(rows[name])); !slices.Equal(got, want) {
			t.Errorf("docs/static-pods.md, %s (-fields of the API +rows):\n%s", name, cmp.Diff(want, got))
		}
		for field, how := range rows[name] {
			if !slices.Contains([]string{"as the kubelet", "better", "refused"}, how) {
				t.Errorf("%s.%s is treated %q", name, field, how)
			}
		}
	}
}

func jsonNames(typ reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

type tree = map[string]any

// example is a manifest that sets one field of one type, and what else the API asks of such a manifest.
func example(t testing.TB, typ, field string, value any) []byte {
	t.Helper()
	one := tree{field: value}
	c := tree{"name": "main", "image": "a:1", "restartPolicy": "Always", "resources": tree{"limits": tree{"cpu": 1, "hugepages-2Mi": "2Mi"}},
		"env": []any{tree{"name": "POD", "value": "p"}}}
	spec := tree{"os": tree{"name": "linux"}, "containers": []any{c}, "volumes": []any{tree{"name": "v", "emptyDir": tree{}}, tree{"name": "h", "hostPath": tree{"path": "/srv"}}}}
	with := func(base tree) tree { maps.Copy(base, one); return base }
	switch typ {
	case "PodSpec":
		with(spec)
	case "Container":
		with(c)
	case "EnvVarSource":
		c["env"] = []any{tree{"name": "A", "valueFrom": one}}
	case "Probe":
		base := tree{"exec": tree{"command": []any{"a"}}}
		if slices.Contains([]string{"grpc", "httpGet", "tcpSocket"}, field) {
			base = tree{}
		}
		c["livenessProbe"] = with(base)
	case "HTTPGetAction":
		c["livenessProbe"] = tree{"httpGet": with(tree{"port": 80})}
	case "GRPCAction":
		c["livenessProbe"] = tree{"grpc": with(tree{"port": 80})}
	case "Lifecycle":
		c["lifecycle"] = one
	case "LifecycleHandler":
		c["lifecycle"] = tree{"postStart": one}
	case "SecurityContext":
		c["securityContext"] = one
	case "PodSecurityContext":
		spec["securityContext"] = one
	case "VolumeMount":
		base := tree{"name": "v", "mountPath": "/v"}
		if field == "recursiveReadOnly" {
			base["readOnly"] = true
		}
		c["volumeMounts"] = []any{with(base)}
	case "VolumeSource":
		spec["volumes"] = []any{with(tree{"name": "v"})}
	case "EmptyDirVolumeSource":
		spec["volumes"] = []any{tree{"name": "v", "emptyDir": one}}
	case "VolumeProjection":
		spec["volumes"] = []any{tree{"name": "v", "projected": tree{"sources": []any{one}}}}
	default:
		t.Fatalf("no example for %s", typ)
	}
	data, err := yaml.Marshal(tree{"apiVersion": "v1", "kind": "Pod", "metadata": tree{"name": "a"}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What the document says to be refused is refused, by the field's name; anything else is not, on a node that can do it.
func TestFieldsAreTreatedAsDocumented(t *testing.T) {
	data, err := os.ReadFile("testdata/fields.txt")
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]any{}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if examples[name] != nil {
			t.Errorf("%s has two examples", name)
		}
		examples[name] = value
	}
	rows := docRows(t)
	for typ := range documented() {
		for field, how := range rows[typ] {
			name := typ + "." + field
			value, ok := examples[name]
			if !ok {
				t.Errorf("testdata/fields.txt has no example of %s", name)
				continue
			}
			delete(examples, name)
			data := example(t, typ, field, value)
			err := refusal(data)
			switch {
			case how == "refused" && (err == nil || !strings.Contains(err.Error(), field)):
				t.Errorf("%s is to be refused by its name: %v\n%s", name, err, data)
			case how != "refused" && err != nil:
				t.Errorf("%s is refused: %v\n%s", name, err, data)
			}
		}
	}
	for name := range examples {
		t.Errorf("testdata/fields.txt has an example of %s, which is not documented", name)
	}
}

func refusal(data []byte) error {
	p, err := manifest.Parse(data, "m.yaml", "node-1")
	if err != nil {
		return err
	}
	n := ableNode()
	if err := Refuse(p.Pod, n); err != nil {
		return err
	}
	for c := range containers(p.Pod) {
		a := Attempt{Volumes: map[string]string{"a:1": "sha256:aa"}, Files: map[VolumeFile][]byte{}}
		for _, f := range EnvFiles(p, c, n) {
			a.Files[f] = []byte("C='d'\n")
		}
		if _, err := Container(p, c, a, n); err != nil {
			return fmt.Errorf("converting: %w", err)
		}
		if _, err := ContainerLayout(p, c, a, n); err != nil {
			return fmt.Errorf("laying out: %w", err)
		}
	}
	return nil
}

// What a node cannot do is refused there, at a place that the manifest has, and is no surprise of the runtime's later.
func TestRefusedOnThisNode(t *testing.T) {
	for _, tc := range []struct {
		spec, container, want string
		able                  func(*Node)
	}{
		{"runtimeClassName: gvisor", "", `spec.runtimeClassName: the runtime has no handler "gvisor"; it has kata, runc`, func(n *Node) { n.RuntimeHandlers = []string{"", "gvisor"} }},
		{"nodeSelector: {disk: ssd}", "", "spec.nodeSelector[disk]: this node has no such label", func(n *Node) { n.Labels = map[string]string{"disk": "ssd"} }},
		{"nodeSelector: {kubernetes.io/hostname: other}", "", `spec.nodeSelector[kubernetes.io/hostname]: this node has "node-1"`, func(n *Node) { n.Name = "other" }},
		{"affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: Exists}]}]}}}", "",
			"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: no term matches this node", func(n *Node) { n.Labels = map[string]string{"disk": ""} }},
		{"securityContext: {sysctls: [{name: kernel/msgmax, value: '1'}]}", "", "spec.securityContext.sysctls[0]: kernel/msgmax is not among", func(n *Node) { n.AllowedUnsafeSysctls = []string{"kernel.msg*"} }},
		{"securityContext: {sysctls: [{name: net.core.somaxconn, value: '1'}]}", "", "spec.securityContext.sysctls[0]", func(n *Node) { n.AllowedUnsafeSysctls = []string{"net/core/somaxconn"} }},
		{"securityContext: {supplementalGroupsPolicy: Strict}", "", "spec.securityContext.supplementalGroupsPolicy", func(n *Node) { n.SupplementalGroupsPolicy = true }},
		{"volumes: [{name: v, image: {reference: a}}]", "", "spec.volumes[0].image: the runtime does not mount images", func(n *Node) { n.ImageVolumes = true }},
		{"volumes: [{name: v, emptyDir: {medium: HugePages}}]", "resources: {limits: {cpu: 1, hugepages-512Ki: 1Mi}}", "spec.volumes[0].emptyDir.medium", func(n *Node) { n.HugePageSizes = []string{"512KB"} }},
		{"volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}]", "spec.containers[0].volumeMounts[0].recursiveReadOnly", func(n *Node) { n.RecursiveReadOnlyMounts = true }},
		{"", "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.ephemeral-storage}}}]", "spec.containers[0].env[0].valueFrom.resourceFieldRef", func(n *Node) { n.EphemeralStorage = 1 }},
		{"setHostnameAsFQDN: true, hostname: a, subdomain: b", "", "spec.setHostnameAsFQDN: a.b.default.svc." + strings.Repeat("c", 63) + " has more than the 64", func(n *Node) { n.ClusterDomain = "c" }},
		{"os: {name: linux}", "lifecycle: {stopSignal: SIGHUP}", "spec.containers[0].lifecycle.stopSignal", func(n *Node) { n.StopSignals = true }},
		{"", "resources: {limits: {example.com/gpu: 1}}", "spec.containers[0].resources.limits[example.com/gpu]", nil},
		{"os: {name: windows}", "", "spec.os.name", nil},
	} {
		n := testNode()
		n.RuntimeHandlers, n.ClusterDomain = []string{"runc", "", "kata"}, strings.Repeat("c", 63)
		p := pod(t, "{"+strings.TrimPrefix(tc.spec+", ", ", ")+"containers: [{name: c, image: i:1, "+tc.container+"}]}")
		err := Refuse(p, n)
		if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s %s: %v, want %s", tc.spec, tc.container, err, tc.want)
		}
		if tc.able == nil {
			continue
		}
		tc.able(&n)
		if err := Refuse(p, n); err != nil {
			t.Errorf("%s %s: refused by a node that can: %v", tc.spec, tc.container, err)
		}
	}
	n := testNode()
	if err := Refuse(pod(t, "{runtimeClassName: gvisor, "+bestEffort[1:]), n); err != nil {
		t.Errorf("the handlers are not known: %v", err)
	}
}

// A warning keeps no pod from running.
func TestWarnings(t *testing.T) {
	p := pod(t, "{containers: [{name: c, image: i:1, resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}], lifecycle: {preStop: {tcpSocket: {port: 1}}}}]}")
	p.Annotations["seccomp.security.alpha.kubernetes.io/pod"] = "runtime/default"
	var got []string
	for _, r := range Unsupported(p, testNode()) {
		if !r.Warn {
			t.Errorf("%v keeps the pod from running", r)
		}
		got = append(got, r.Field)
	}
	want := []string{"metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]", "spec.containers[0].resizePolicy", "spec.containers[0].lifecycle.preStop.tcpSocket"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
