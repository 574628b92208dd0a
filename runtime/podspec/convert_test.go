package podspec

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Every signal that a manifest may name is one of the runtime's.
func TestStopSignals(t *testing.T) {
	names := map[string]bool{}
	for name := range runtimeapi.Signal_value {
		if name = strings.TrimPrefix(name, "SIGNAL_"); name != "RUNTIME_DEFAULT" {
			names[strings.NewReplacer("MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(name)] = true
		}
	}
	for name := range names {
		p := pod(t, "{os: {name: linux}, containers: [{name: c, image: i:1, lifecycle: {stopSignal: "+name+"}}]}")
		config, err := Container(&manifest.StaticPod{Pod: p}, &p.Spec.Containers[0], Attempt{}, testNode())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.NewReplacer("SIGNAL_", "", "MINPLUS", "MIN+", "MAXMINUS", "MAX-").Replace(config.StopSignal.String()); got != name {
			t.Errorf("%s became %s", name, got)
		}
	}
	if len(names) != 65 {
		t.Errorf("%d signals, want 65", len(names))
	}
}

func TestNodeAffinity(t *testing.T) {
	labels := map[string]string{"disk": "ssd", "rack": "4", "empty": ""}
	for expression, want := range map[string]bool{
		"disk In ssd": true, "disk In hdd": false, "none In a": false, "disk In hdd ssd": true,
		"disk NotIn hdd": true, "disk NotIn ssd": false, "none NotIn ssd": true,
		"empty Exists": true, "none Exists": false, "none DoesNotExist": true, "disk DoesNotExist": false,
		"rack Gt 3": true, "rack Gt 4": false, "rack Lt 5": true, "rack Lt 4": false, "disk Gt 3": false, "none Lt 3": false,
	} {
		words := strings.Fields(expression)
		r := corev1.NodeSelectorRequirement{Key: words[0], Operator: corev1.NodeSelectorOperator(words[1]), Values: words[2:]}
		if got := matchTerm(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{r}}, labels, "n1"); got != want {
			t.Errorf("%s: %v", expression, got)
		}
	}
	name := func(op corev1.NodeSelectorOperator, value string) corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: op, Values: []string{value}}
	}
	exists := corev1.NodeSelectorRequirement{Key: "none", Operator: corev1.NodeSelectorOpExists}
	for _, tc := range []struct {
		term corev1.NodeSelectorTerm
		want bool
	}{
		{corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{name("In", "n1")}}, true},
		{corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{name("NotIn", "n1")}}, false},
		{corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{name("In", "n1")}, MatchExpressions: []corev1.NodeSelectorRequirement{exists}}, false},
		{corev1.NodeSelectorTerm{}, false},
	} {
		if got := matchTerm(tc.term, labels, "n1"); got != tc.want {
			t.Errorf("%+v: %v", tc.term, got)
		}
	}
	if got := nodeLabels(Node{Name: "n1", Labels: map[string]string{"kubernetes.io/hostname": "h1"}})["kubernetes.io/hostname"]; got != "h1" {
		t.Errorf("the node's own host name label became %q", got)
	}
}

// What the environment brings into a path is held to what a manifest may say.
func TestSubPathExpr(t *testing.T) {
	for value, want := range map[string]string{
		"ok": "", "..": "contains '..'", "a/../../b": "contains '..'", "/etc": "", `a\0b`: "zero byte",
	} {
		for _, expr := range []string{"$(A)", "logs/$(A)"} {
			p := pod(t, `{volumes: [{name: v}], containers: [{name: c, image: i:1, env: [{name: A, value: "`+value+`"}], volumeMounts: [{name: v, mountPath: /v, subPathExpr: `+expr+`}]}]}`)
			sp := &manifest.StaticPod{Pod: p, UID: "1"}
			want := want
			if value == "/etc" && expr == "$(A)" {
				want = "is not relative"
			}
			_, errC := Container(sp, &p.Spec.Containers[0], Attempt{}, testNode())
			_, errL := ContainerLayout(sp, &p.Spec.Containers[0], Attempt{}, testNode())
			for _, err := range []error{errC, errL} {
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s with %q: %v, want %q", expr, value, err, want)
				}
			}
		}
	}
	p := pod(t, "{volumes: [{name: v}], containers: [{name: c, image: i:1, volumeMounts: [{name: v, mountPath: /v, subPathExpr: a/$(NONE)/$$(TEXT)}]}]}")
	if _, err := ContainerLayout(&manifest.StaticPod{Pod: p, UID: "1"}, &p.Spec.Containers[0], Attempt{}, testNode()); err == nil || !strings.Contains(err.Error(), "there is no variable NONE") {
		t.Errorf("a variable that there is not: %v", err)
	}
}

func TestVariablesFromFiles(t *testing.T) {
	const text = "# comment\n\n  A='one' # why\nB='two\nlines'\r\nC= 'nothing'\nD=''\nA='again'\nE='x#y'\n"
	for key, want := range map[string]string{"A": "one", "B": "two\nlines", "C": "", "D": "", "E": "x#y"} {
		if got, found, err := lookUp([]byte(text), key); got != want || !found || err != nil {
			t.Errorf("%s: %q, %v, %v, want %q", key, got, found, err, want)
		}
	}
	if _, found, err := lookUp([]byte(text), "F"); found || err != nil {
		t.Errorf("a key that there is not: %v, %v", found, err)
	}
	for text, want := range map[string]string{
		"A": "line 1: expected KEY='value'", "\nA ='s3cret'": "line 2: expected a name directly before '='", "A=s3cret": "line 1: expected the value in single quotes",
		"A='s3cret": "line 1: the single quote is not closed", "A='s3cret' s3cret": "line 1: something follows", "='s3cret'": "line 1: expected a name",
	} {
		_, _, err := lookUp([]byte(text), "B")
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v, want %s and no value", text, err, want)
		}
	}

	for _, tc := range []struct {
		file     *string
		key      string
		optional bool
		want     string // "-" for not set
		err      string
	}{
		{new("KEY='v'\n"), "KEY", false, "v", ""}, {new("KEY='v'\n"), "NONE", true, "-", ""}, {new("KEY='v'\n"), "NONE", false, "", "has no key NONE"},
		{nil, "KEY", true, "-", ""}, {nil, "KEY", false, "", "has no file conf"}, {new("bad"), "KEY", true, "", "line 1"},
	} {
		spec := "{volumes: [{name: v}], containers: [{name: c, image: i:1, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: v, path: conf, key: " + tc.key + ", optional: "
		if tc.optional {
			spec += "true"
		} else {
			spec += "false"
		}
		p := pod(t, spec+"}}}]}]}")
		sp := &manifest.StaticPod{Pod: p, UID: "1"}
		a := Attempt{Files: map[VolumeFile][]byte{}}
		for _, f := range EnvFiles(sp, &p.Spec.Containers[0], testNode()) {
			if want := (VolumeFile{"/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/v", "conf"}); f != want {
				t.Errorf("needs %+v, want %+v", f, want)
			}
			if tc.file != nil {
				a.Files[f] = []byte(*tc.file)
			}
		}
		config, err := Container(sp, &p.Spec.Containers[0], a, testNode())
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%+v: %v", tc, err)
			}
			continue
		}
		got := "-"
		for _, e := range config.GetEnvs() {
			got = string(e.Value)
		}
		if err != nil || got != tc.want {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
}

// Resources of the pod as a whole count for its class, its cgroup and its containers without limits.
func TestPodLevelResources(t *testing.T) {
	const whole = "resources: {limits: {cpu: 2, memory: 2Gi}, requests: {cpu: 1, memory: 1Gi}}"
	p := pod(t, "{"+whole+", containers: [{name: a, image: i:1, resources: {requests: {memory: 256Mi}}}, {name: b, image: i:1, resources: {limits: {cpu: 500m, memory: 256Mi}}}]}")
	n := testNode()
	r := PodCgroup(p, n)
	if got := []int64{*r.CPUShares, *r.CPUQuota, *r.Memory}; !cmp.Equal(got, []int64{1024, 200000, 2 << 30}) {
		t.Errorf("cgroup of the pod: %v", got)
	}
	for i, want := range [][]int64{{200000, 2 << 30, 938}, {50000, 256 << 20, 938}} {
		c := containerResources(p, &p.Spec.Containers[i], n)
		if got := []int64{c.CpuQuota, c.MemoryLimitInBytes, c.OomScoreAdj}; !cmp.Equal(got, want) {
			t.Errorf("container %d: %v, want %v", i, got, want)
		}
	}
	for spec, want := range map[string]corev1.PodQOSClass{
		whole: corev1.PodQOSBurstable, "resources: {limits: {cpu: 2, memory: 2Gi}}": corev1.PodQOSGuaranteed, "resources: {limits: {cpu: 2}}": corev1.PodQOSBurstable,
	} {
		if got := QOSClass(pod(t, "{"+spec+", "+bestEffort[1:])); got != want {
			t.Errorf("%s: %s, want %s", spec, got, want)
		}
	}
	if got, err := resourceValue(p, &p.Spec.Containers[0], &corev1.ResourceFieldSelector{Resource: "limits.memory"}, n); got != "2147483648" || err != nil {
		t.Errorf("limits.memory of a container without one: %s, %v", got, err)
	}
}

func TestHugePageLimits(t *testing.T) {
	p := pod(t, "{resources: {limits: {cpu: 1, hugepages-1Gi: 2Gi, hugepages-2Mi: 8Mi}}, containers: [{name: a, image: i:1, resources: {limits: {cpu: 1, hugepages-2048Ki: 4Mi}}}]}")
	want := map[string]uint64{"2MB": 4 << 20, "1GB": 2 << 30}
	for _, l := range containerResources(p, &p.Spec.Containers[0], testNode()).HugepageLimits {
		if l.Limit != want[l.PageSize] {
			t.Errorf("%s: %d, want %d", l.PageSize, l.Limit, want[l.PageSize])
		}
	}
}

// An image volume whose image is gone keeps the container from being made, rather than mounting nothing.
func TestImageVolumeWithoutImage(t *testing.T) {
	p := pod(t, "{volumes: [{name: v, image: {reference: 'a:1'}}], containers: [{name: c, image: i:1, volumeMounts: [{name: v, mountPath: /v}]}]}")
	_, err := Container(&manifest.StaticPod{Pod: p, UID: "1"}, &p.Spec.Containers[0], Attempt{}, testNode())
	if err == nil || errors.Unwrap(err) == nil || !strings.Contains(err.Error(), "volume v: the image a:1 is not in the runtime's store") {
		t.Errorf("%v", err)
	}
}

func TestHandler(t *testing.T) {
	if got := Handler(pod(t, bestEffort)); got != "" {
		t.Errorf("without a class: %q", got)
	}
	if got := Handler(pod(t, "{runtimeClassName: gvisor, "+bestEffort[1:])); got != "gvisor" {
		t.Errorf("with a class: %q", got)
	}
}
