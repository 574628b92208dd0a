package templates

import (
	"bytes"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func probe() Probe {
	return Probe{Host: "127.0.0.1", Port: 2381, Scheme: corev1.URISchemeHTTP, StartupFailures: 24}
}

func etcdValues() EtcdValues {
	return EtcdValues{Image: "registry.k8s.io/etcd:3.6.8-0", NodeName: "cp-1", AdvertiseAddress: netip.MustParseAddr("192.0.2.10"),
		PKI: "/etc/kubernetes/pki", DataDir: "/var/lib/etcd", Probe: probe()}
}

func apiServerValues() APIServerValues {
	return APIServerValues{Image: "registry.k8s.io/kube-apiserver:v1.36.3", AdvertiseAddress: netip.MustParseAddr("192.0.2.10"),
		BindPort: 6443, PKI: "/etc/kubernetes/pki", ServiceSubnets: "10.96.0.0/12", DNSDomain: "cluster.local",
		Etcd: EtcdClient{Servers: "https://127.0.0.1:2379"}, Probe: probe()}
}

func controllerManagerValues() ControllerManagerValues {
	return ControllerManagerValues{Image: "i", Kubeconfig: "/k", PKI: "/p", ClusterName: "kubernetes",
		PodSubnets: "10.0.0.0/16", ServiceSubnets: "10.96.0.0/12", Probe: probe()}
}

// rendered returns every component's pod.
func rendered(t *testing.T) map[string]*corev1.Pod {
	t.Helper()
	pods := map[string]*corev1.Pod{}
	add := func(pod *corev1.Pod, err error) {
		if err != nil {
			t.Fatal(err)
		}
		pods[pod.Name] = pod
	}
	add(Etcd(etcdValues()))
	add(APIServer(apiServerValues()))
	add(ControllerManager(controllerManagerValues()))
	add(Scheduler(SchedulerValues{Image: "i", Kubeconfig: "/k", Probe: probe()}))
	return pods
}

func TestSameValuesGiveSameBytes(t *testing.T) {
	first, second := rendered(t), rendered(t)
	for name := range first {
		a, errA := Marshal(first[name])
		b, errB := Marshal(second[name])
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: two renderings differ (%v, %v):\n%s", name, errA, errB, cmp.Diff(string(a), string(b)))
		}
	}
}

func TestMarshalledManifestDecodesToTheSamePod(t *testing.T) {
	for name, pod := range rendered(t) {
		data, err := Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(pod, again); diff != "" {
			t.Errorf("%s: changed on the way (-rendered +decoded):\n%s", name, diff)
		}
		if strings.Contains(string(data), "creationTimestamp") || !bytes.HasSuffix(data, []byte("\nstatus: {}\n")) {
			t.Errorf("%s: not in the canonical form:\n%s", name, data)
		}
	}
}

// A reader compares a template with a rendered manifest line by line.
func TestTemplatesListFlagsInRenderedOrder(t *testing.T) {
	flag := regexp.MustCompile(`(?m)^    - (?:\{\{printf ")?--([a-z-]+)=`)
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"} {
		text, err := files.ReadFile(name + ".yaml.tmpl")
		if err != nil {
			t.Fatal(err)
		}
		var flags []string
		for _, match := range flag.FindAllStringSubmatch(string(text), -1) {
			flags = append(flags, match[1])
		}
		if len(flags) < 5 || !slices.IsSorted(flags) {
			t.Errorf("%s.yaml.tmpl: flags are not sorted: %q", name, flags)
		}
	}
}

// Every value is a JSON scalar in the template: whatever it holds, it stays one value.
func TestValuesCannotBreakOutOfTheirPlace(t *testing.T) {
	for _, evil := range []string{"a\n  hostPID: true", `"}], hostPID: true`, "{{.PKI}}", "# comment", "<&>", "- a: b", "null", "1e3", "\u2028é😀", "~"} {
		v := etcdValues()
		v.Image, v.NodeName, v.DataDir = evil, evil, evil
		pod, err := Etcd(v)
		if err != nil {
			t.Errorf("%q: %v", evil, err)
			continue
		}
		c := pod.Spec.Containers[0]
		if c.Image != evil || !slices.Contains(c.Command, "--name="+evil) || c.VolumeMounts[0].MountPath != evil || pod.Spec.HostPID {
			t.Errorf("%q: rendered as image %q, command %q", evil, c.Image, c.Command)
		}
	}
}

func TestMergeArgs(t *testing.T) {
	base := []string{"--initial-cluster-state=new", "--initial-cluster=a", "--authorization-mode=Node,RBAC", "--v=1", "--v=0"}
	for _, tc := range []struct {
		name  string
		extra Args
		want  []string
	}{
		{"no extra flags: sorted by name, repeats in order", nil,
			[]string{"--authorization-mode=Node,RBAC", "--initial-cluster=a", "--initial-cluster-state=new", "--v=1", "--v=0"}},
		{"one override drops every base instance and comes last", Args{{"v", "4"}},
			[]string{"--authorization-mode=Node,RBAC", "--initial-cluster=a", "--initial-cluster-state=new", "--v=4"}},
		{"a name that starts like another overrides only itself", Args{{"initial-cluster", "b"}},
			[]string{"--authorization-mode=Node,RBAC", "--initial-cluster-state=new", "--v=1", "--v=0", "--initial-cluster=b"}},
		{"extra flags keep the user's order, repeats, empty values and signs", Args{{"z", "2"}, {"a", ""}, {"z", "1=1"}},
			[]string{"--authorization-mode=Node,RBAC", "--initial-cluster=a", "--initial-cluster-state=new", "--v=1", "--v=0", "--z=2", "--a=", "--z=1=1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, mergeArgs(base, tc.extra)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestMergeKeepsTheLastOfEachName(t *testing.T) {
	v := apiServerValues()
	v.Env = []corev1.EnvVar{{Name: "no_proxy", Value: "a"}, {Name: "GODEBUG", Value: "x"}, {Name: "no_proxy", Value: "b"}}
	v.Volumes = []Volume{{Name: "k8s-certs", HostPath: "/a", MountPath: "/b"}, {Name: "audit", HostPath: "/c", MountPath: "/c", ReadOnly: true}}
	pod, err := APIServer(v)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]corev1.EnvVar{{Name: "GODEBUG", Value: "x"}, {Name: "no_proxy", Value: "b"}}, pod.Spec.Containers[0].Env); diff != "" {
		t.Errorf("env -want +got:\n%s", diff)
	}
	var mounts []string
	for _, m := range pod.Spec.Containers[0].VolumeMounts {
		mounts = append(mounts, m.Name+" "+m.MountPath)
	}
	if diff := cmp.Diff([]string{"audit /c", "ca-certs /etc/ssl/certs", "k8s-certs /b"}, mounts); diff != "" {
		t.Errorf("mounts -want +got:\n%s", diff)
	}
	if len(pod.Spec.Volumes) != 3 || *pod.Spec.Volumes[2].HostPath.Type != "" || pod.Spec.Volumes[2].HostPath.Path != "/a" {
		t.Errorf("volumes: %+v", pod.Spec.Volumes)
	}
}

func TestAuthorizationConfigReplacesTheMode(t *testing.T) {
	v := apiServerValues()
	v.Args = Args{{"authorization-config", "/etc/authz.yaml"}}
	pod, err := APIServer(v)
	if err != nil {
		t.Fatal(err)
	}
	if command := strings.Join(pod.Spec.Containers[0].Command, " "); strings.Contains(command, "--authorization-mode") {
		t.Errorf("kube-apiserver refuses both flags together: %s", command)
	}
}

func TestDecodeRefusesWhatAPodDoesNotHave(t *testing.T) {
	for _, tc := range []struct{ manifest, want string }{
		{"spec: {hostNetwrok: true}", `unknown field "spec.hostNetwrok"`},
		{"spec: {hostnetwork: true}", `unknown field "spec.hostnetwork"`},
		{"kind: Pod\nkind: Pod", `key "kind" already set in map`},
	} {
		if _, err := Decode([]byte(tc.manifest)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v, want %q", tc.manifest, err, tc.want)
		}
	}
}
