package podspec

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aymanbagabas/go-udiff"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func testNode() Node {
	return Node{
		Name: "node-1", Instance: "main", HostIPs: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::10")},
		KubeletRoot: "/var/lib/kubelet", PodLogsDir: "/var/log/pods", ContainerLogsDir: "/var/log/containers",
		CgroupDriver: "cgroupfs", HugePageSizes: []string{"2MB", "1GB"},
		CPUs: 4, MemoryCapacity: 8 << 30, CPUCFSQuota: true,
		ClusterDNS: []string{"10.96.0.10"}, ClusterDomain: "cluster.local",
		HostDNS:   DNS{Servers: []string{"192.0.2.1"}, Searches: []string{"lan"}, Options: []string{"timeout:1"}},
		HostsFile: []byte("127.0.0.1 localhost\n"),
	}
}

// ableNode offers what there is.
func ableNode() Node {
	n := testNode()
	n.Labels = map[string]string{"disk": "ssd", "rack": "4"}
	n.AllowedUnsafeSysctls = []string{"kernel.msg*"}
	n.RuntimeHandlers = []string{"", "runc", "gvisor"}
	n.RecursiveReadOnlyMounts, n.ImageVolumes, n.SupplementalGroupsPolicy, n.StopSignals, n.SELinux = true, true, true, true, true
	n.EphemeralStorage = 100 << 30
	return n
}

func load(t *testing.T, name string) *manifest.StaticPod {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := manifest.Parse(data, "/etc/kubernetes/manifests/"+name+".yaml", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Everything the runtime and the host are told for a pod, as one file: the sandbox, each container, each path.
func TestGolden(t *testing.T) {
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kitchen-sink", "late-fields"} {
		t.Run(name, func(t *testing.T) {
			p, n := load(t, name), testNode()
			if name == "late-fields" {
				n = ableNode()
			}
			if err := Refuse(p.Pod, n); err != nil {
				t.Fatalf("refused: %v", err)
			}
			var ips []string
			if !p.Pod.Spec.HostNetwork {
				ips = []string{"10.244.0.5"}
			}
			attempt := Attempt{Number: 3, Image: Image{ID: "sha256:aa"}, PodIPs: ips}
			if name == "late-fields" {
				attempt.Watched = "0123"
				attempt.Volumes = map[string]string{"example.com/art:v1": "sha256:bb"}
				attempt.Files = map[VolumeFile][]byte{{Volume: PodDir(p.UID, n) + "/volumes/kubernetes.io~empty-dir/data", Path: "conf/env"}: []byte("# made\nOTHER='x'\nNAME='late one' # why\n")}
			}
			var out bytes.Buffer
			section(t, &out, "sandbox", Sandbox(p, 0, n))
			for c := range containers(p.Pod) {
				config, err := Container(p, c, attempt, n)
				if err != nil {
					t.Fatal(err)
				}
				section(t, &out, "container "+c.Name, config)
			}
			fmt.Fprintln(&out, "# paths before the sandbox")
			for _, h := range Layout(p, n) {
				fmt.Fprintln(&out, describe(h))
			}
			for c := range containers(p.Pod) {
				fmt.Fprintln(&out, "# paths before container", c.Name)
				paths, err := ContainerLayout(p, c, attempt, n)
				if err != nil {
					t.Fatal(err)
				}
				for _, h := range paths {
					fmt.Fprintln(&out, describe(h))
				}
			}
			r := PodCgroup(p.Pod, n)
			fmt.Fprintf(&out, "# cgroup %s\n%s\n", CgroupParent(p.Pod, n), mustJSON(r))
			golden(t, filepath.Join("testdata", name+".golden"), out.Bytes())
		})
	}
}

func section(t *testing.T, out *bytes.Buffer, title string, m proto.Message) {
	t.Helper()
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	// protojson varies its white space on purpose.
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(out, "# %s\n%s\n", title, pretty.String())
}

func describe(h HostPath) string {
	kinds := []string{"dir", "make file", "write file", "tmpfs", "huge pages", "bind", "need dir", "need file", "need socket", "need char device", "need block device"}
	s := fmt.Sprintf("%s %s %v", kinds[h.Kind], h.Path, h.Mode)
	if h.Force {
		s += " forced"
	}
	if h.Group != nil {
		s += fmt.Sprintf(" group=%d", *h.Group)
	}
	if h.Size > 0 {
		s += fmt.Sprintf(" size=%d", h.Size)
	}
	if h.PageSize > 0 {
		s += fmt.Sprintf(" pagesize=%d", h.PageSize)
	}
	if h.Kind == BindSubPath {
		s += fmt.Sprintf(" from %s of %s", h.SubPath, h.Volume)
	}
	if h.Content != nil {
		s += fmt.Sprintf(" %q", h.Content)
	}
	if h.Field != "" {
		s += "  (" + h.Field + ")"
	}
	return s
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := udiff.Unified(path, "got", string(want), string(got)); diff != "" {
		t.Errorf("%s\nrewrite with: go test ./runtime/podspec -update", diff)
	}
}

// The two values were taken from kubelets.
func TestContainerHashIsTheKubelets(t *testing.T) {
	for want, c := range map[string]corev1.Container{
		"8e45cbd0": {Name: "test_container", Image: "foo/image:v1"},
		"f46469c9": {Name: "etcd", Image: "registry.k8s.io/etcd:3.6.8-0"},
	} {
		if got := ContainerHash(&c); got != want {
			t.Errorf("%s: %s, want %s", c.Name, got, want)
		}
	}
}

func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p, err := manifest.Parse([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a, uid: 1-2}\nspec: "+spec), "/m/a.yaml", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	return p.Pod
}

const (
	burstable  = "{containers: [{name: c, image: i:1, resources: {requests: {cpu: 100m}}}]}"
	guaranteed = "{containers: [{name: c, image: i:1, resources: {limits: {cpu: 100m, memory: 1Gi}}}]}"
	bestEffort = "{containers: [{name: c, image: i:1}]}"
)

func TestCgroupParent(t *testing.T) {
	for _, tc := range []struct{ spec, driver, root, want string }{
		{burstable, "cgroupfs", "", "/kubepods/burstable/pod1-2"},
		{guaranteed, "cgroupfs", "/", "/kubepods/pod1-2"},
		{bestEffort, "cgroupfs", "/slipway/x", "/slipway/x/kubepods/besteffort/pod1-2"},
		{burstable, "systemd", "", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice"},
		{guaranteed, "systemd", "/", "/kubepods.slice/kubepods-pod1_2.slice"},
		{bestEffort, "systemd", "/own", "/own.slice/own-kubepods.slice/own-kubepods-besteffort.slice/own-kubepods-besteffort-pod1_2.slice"},
	} {
		n := testNode()
		n.CgroupDriver, n.CgroupRoot = tc.driver, tc.root
		if got := CgroupParent(pod(t, tc.spec), n); got != tc.want {
			t.Errorf("%s %s: %s, want %s", tc.driver, tc.root, got, tc.want)
		}
	}
}

func TestQOSAndOOM(t *testing.T) {
	const gib = 1 << 30
	for _, tc := range []struct {
		spec string
		qos  corev1.PodQOSClass
		oom  int64
	}{
		{bestEffort, corev1.PodQOSBestEffort, 1000},
		{guaranteed, corev1.PodQOSGuaranteed, -997},
		{burstable, corev1.PodQOSBurstable, 999},
		{"{priorityClassName: system-node-critical, " + bestEffort[1:], corev1.PodQOSBestEffort, -997},
		{"{containers: [{name: c, image: i:1, resources: {requests: {memory: 1Gi}}}]}", corev1.PodQOSBurstable, 900},
		{"{containers: [{name: c, image: i:1, resources: {requests: {memory: 20Gi}}}]}", corev1.PodQOSBurstable, 3},
		{"{containers: [{name: c, image: i:1, resources: {limits: {memory: 1Gi}}}]}", corev1.PodQOSBurstable, 900},
		{"{containers: [{name: c, image: i:1, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}}]}", corev1.PodQOSBurstable, 900},
	} {
		p := pod(t, tc.spec)
		if got := QOSClass(p); got != tc.qos {
			t.Errorf("%s: %s, want %s", tc.spec, got, tc.qos)
		}
		if got := OOMScoreAdj(p, &p.Spec.Containers[0], 10*gib); got != tc.oom {
			t.Errorf("%s: %d, want %d", tc.spec, got, tc.oom)
		}
	}
}

func TestSwapAndOOMGroup(t *testing.T) {
	p := pod(t, guaranteed)
	n := testNode()
	n.SwapController = true
	if got := containerResources(p, &p.Spec.Containers[0], n); got.MemorySwapLimitInBytes != 1<<30 || got.Unified != nil {
		t.Errorf("v1: %v", got)
	}
	n.CgroupV2 = true
	want := map[string]string{"memory.oom.group": "1", "memory.swap.max": "0"}
	if diff := cmp.Diff(want, containerResources(p, &p.Spec.Containers[0], n).Unified); diff != "" {
		t.Errorf("v2:\n%s", diff)
	}
}

func TestExpand(t *testing.T) {
	e := env{values: map[string]string{"A": "1", "B": "$(A)"}}
	for in, want := range map[string]string{
		"$(A)": "1", "x$(A)y$(A)": "x1y1", "$$(A)": "$(A)", "$(NONE)": "$(NONE)", "$(A": "$(A", "$": "$", "$$": "$",
		"$A": "$A", "$(B)": "$(A)", "a$": "a$", "$($(A))": "$($(A))", "$$$(A)": "$1",
	} {
		if got := e.expand(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestRunAsNonRoot(t *testing.T) {
	one, zero := int64(1), int64(0)
	for _, tc := range []struct {
		security, want string
		img            Image
	}{
		{"{runAsNonRoot: true}", "the image runs as root", Image{}},
		{"{runAsNonRoot: true}", "the image runs as root", Image{UID: &zero}},
		{"{runAsNonRoot: true}", `user "web" is not a number`, Image{Username: "web"}},
		{"{runAsNonRoot: true}", "", Image{UID: &one}},
		{"{runAsNonRoot: true, runAsUser: 0}", "runAsUser is 0", Image{UID: &one}},
		{"{runAsNonRoot: true, runAsUser: 5}", "", Image{}},
		{"{}", "", Image{}},
	} {
		p := pod(t, "{containers: [{name: c, image: i:1, securityContext: "+tc.security+"}]}")
		_, err := Container(&manifest.StaticPod{Pod: p}, &p.Spec.Containers[0], Attempt{Image: tc.img}, testNode())
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %+v: %v, want %q", tc.security, tc.img, err, tc.want)
		}
	}
}

func TestDNS(t *testing.T) {
	for _, tc := range []struct {
		spec string
		node func(*Node)
		want DNS
	}{
		{"{", nil, DNS{[]string{"10.96.0.10"}, []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"}, []string{"ndots:5"}}},
		{"{hostNetwork: true, ", nil, DNS{[]string{"192.0.2.1"}, []string{"lan"}, []string{"timeout:1"}}},
		{"{hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet, ", nil, DNS{[]string{"10.96.0.10"}, []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local", "lan"}, []string{"ndots:5"}}},
		{"{", func(n *Node) { n.ClusterDNS = nil }, DNS{[]string{"192.0.2.1"}, []string{"lan"}, []string{"timeout:1"}}},
		{"{dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.9], options: [{name: a}]}, ", nil, DNS{[]string{"192.0.2.9"}, nil, []string{"a"}}},
	} {
		n := testNode()
		if tc.node != nil {
			tc.node(&n)
		}
		got := dnsConfig(pod(t, tc.spec+bestEffort[1:]), n)
		if diff := cmp.Diff(tc.want, DNS{got.Servers, got.Searches, got.Options}); diff != "" {
			t.Errorf("%s:\n%s", tc.spec, diff)
		}
	}
}

func TestParseResolvConf(t *testing.T) {
	got := ParseResolvConf([]byte("# made by hand\nnameserver 192.0.2.1\nnameserver\nnameserver 2001:db8::1\nsearch a.\nsearch b.example. . c\noptions ndots:1 rotate\noptions ndots:2\n"))
	want := DNS{[]string{"192.0.2.1", "2001:db8::1"}, []string{"b.example", "c"}, []string{"ndots:2", "rotate"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
