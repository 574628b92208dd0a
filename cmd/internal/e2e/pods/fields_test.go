//go:build e2e

package pods

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/slipway-k8s/slipway/cmd/internal/podtest"
)

// seen is what a container prints of itself, and what has to be in it.
type seen struct {
	pod       *podtest.Manifest
	container string // default "main"
	want      []string
	never     []string
}

// TestFieldsReachTheContainer runs a pod per group of fields and reads what the container sees of them from inside.
func TestFieldsReachTheContainer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"volume/config/app.conf": "port=1", "volume/secret": "top", "file": "from the host"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/shadow", filepath.Join(dir, "volume/escape")); err != nil {
		t.Fatal(err)
	}
	n := podtest.New(t, podtest.Options{})
	cases := map[string]seen{
		"environment": {
			pod: podtest.Pod("environment").Label("tier", "test").Container("main", "env:", "print:arg-$(GREETING)-$$(GREETING)", "forever").Edit(func(c *corev1.Container) {
				c.Env = []corev1.EnvVar{
					{Name: "NAME", Value: "world"}, {Name: "GREETING", Value: "hello-$(NAME)-$(UNKNOWN)"},
					{Name: "POD", ValueFrom: fieldRef("metadata.name")}, {Name: "NODE", ValueFrom: fieldRef("spec.nodeName")},
					{Name: "TIER", ValueFrom: fieldRef("metadata.labels['tier']")},
					{Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
				}
				c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
			}),
			want: []string{"\nGREETING=hello-world-$(UNKNOWN)\n", "\nPOD=environment-node\n", "\nNODE=node\n", "\nTIER=test\n", "\nMEMORY=64\n", "arg-hello-world-$(UNKNOWN)-$(GREETING)\n"},
		},
		"security": {
			pod: podtest.Pod("security").Spec(func(s *corev1.PodSpec) {
				s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To[int64](1234), RunAsGroup: ptr.To[int64](2345), SupplementalGroups: []int64{3456}, FSGroup: ptr.To[int64](4567)}
			}).Container("main", "id", "forever").Edit(func(c *corev1.Container) {
				c.WorkingDir = "/tmp"
				c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
			}),
			want: []string{"uid=1234 gid=2345 groups=[2345 3456 4567] dir=/tmp", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"},
		},
		"root": { // the same without any of it
			pod:   podtest.Pod("root").Container("main", "id", "forever"),
			want:  []string{"uid=0 gid=0", "NoNewPrivs:\t0", "Seccomp:\t0"},
			never: []string{"CapEff:\t0000000000000000"},
		},
		"read-only": {
			pod: podtest.Pod("read-only").Container("main", "write:/file=x", "print:written", "forever").Edit(func(c *corev1.Container) {
				c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)}
			}),
			want: []string{"read-only file system"}, never: []string{"written"},
		},
		"volumes": {
			pod: podtest.Pod("volumes").Container("main", "cat:/host/file", "write:/empty/x=1", "write:/memory/x=1", "mounts", "cat:/down/name", "print:", "cat:/projected/up/labels", "print:", "forever").
				Label("a", "b").
				Volume("host", "/host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr.To(corev1.HostPathDirectory)}}).
				Volume("empty", "/empty", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}).
				Volume("memory", "/memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("1Mi"))}}).
				Volume("down", "/down", corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
					{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}}).
				Volume("projected", "/projected", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
					{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "up/labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}}}}),
			want: []string{"from the host", " /memory ", " - tmpfs tmpfs rw,size=1024k", " /empty ", "volumes-node", `a="b"`},
		},
		"sub-paths": {
			pod: podtest.Pod("sub-paths").Container("main", "cat:/app.conf", "cat:/expanded/app.conf", "print:", "write:/made/x=1", "forever").Edit(func(c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "WHERE", Value: "config"}}
				c.VolumeMounts = append(c.VolumeMounts,
					corev1.VolumeMount{Name: "v", MountPath: "/app.conf", SubPath: "config/app.conf", ReadOnly: true},
					corev1.VolumeMount{Name: "v", MountPath: "/expanded", SubPathExpr: "$(WHERE)"},
					corev1.VolumeMount{Name: "v", MountPath: "/made", SubPath: "made/here"})
			}).Spec(func(s *corev1.PodSpec) {
				s.Volumes = append(s.Volumes, corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(dir, "volume")}}})
			}),
			want: []string{"port=1port=1"},
		},
		"names": {
			pod: podtest.Pod("names").Spec(func(s *corev1.PodSpec) {
				s.HostAliases = []corev1.HostAlias{{IP: "192.0.2.7", Hostnames: []string{"seven"}}}
				s.DNSPolicy = corev1.DNSNone
				s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"192.0.2.53"}, Searches: []string{"example.com"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("3")}}}
			}).Container("main", "cat:/etc/hosts", "cat:/etc/resolv.conf", "forever"),
			want: []string{"192.0.2.7\tseven", "nameserver 192.0.2.53\n", "search example.com\n", "options ndots:3\n"},
		},
		"order": {
			pod: podtest.Pod("order").
				InitContainer("one", "append:/d/order=one").InitContainer("two", "append:/d/order=two").
				Container("main", "append:/d/order=main", "cat:/d/order", "forever").
				Volume("d", "/d", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			want: []string{"one\ntwo\nmain\n"},
		},
		"post-start": { // the second container starts when the first one's hook has ended
			pod: podtest.Pod("post-start").Container("main", "forever").Edit(func(c *corev1.Container) {
				c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"subject", "sleep:500ms", "append:/d/order=hook"}}}}
			}).Container("second", "append:/d/order=second", "cat:/d/order", "forever").
				Volume("d", "/d", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			container: "second", want: []string{"hook\nsecond\n"},
		},
		"terminal": {
			// Only a container with a terminal has it as its console.
			pod:  podtest.Pod("terminal").Container("main", "need:/dev/console", "print:there is a console", "forever").Edit(func(c *corev1.Container) { c.TTY, c.Stdin = true, true }),
			want: []string{"there is a console\n"},
		},
	}
	for name, c := range cases {
		n.Put(name+".yaml", c.pod.YAML())
	}
	n.Supervise()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			container := c.container
			if container == "" {
				container = "main"
			}
			var log string
			n.WaitFor("what the container sees", patience, func() (bool, string) {
				log = "\n" + n.Log(name, container)
				for _, want := range c.want {
					if !strings.Contains(log, want) {
						return false, fmt.Sprintf("no %q in:\n%s\n%s", want, log, why(shown(n, name)))
					}
				}
				return true, ""
			})
			for _, never := range c.never {
				if strings.Contains(log, never) {
					t.Errorf("it has %q:\n%s", never, log)
				}
			}
		})
	}
}

func fieldRef(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

// TestSubPathStaysInItsVolume: neither a link nor a path with dots leads out of the volume.
func TestSubPathStaysInItsVolume(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/etc", filepath.Join(dir, "escape")); err != nil {
		t.Fatal(err)
	}
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	n.Put("web.yaml", podtest.Pod("web").Container("main", "cat:/x/hostname", "forever").Edit(func(c *corev1.Container) {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/x", SubPath: "escape"}}
	}).Spec(func(s *corev1.PodSpec) {
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
	}).YAML())
	n.WaitFor("the reason", patience, func() (bool, string) {
		p := shown(n, "web")
		return strings.Contains(why(p), "escape") && !ready(p), why(p)
	})
}

// TestResourcesReachTheKernel compares the cgroups and the OOM score with the manifest, for the three classes.
func TestResourcesReachTheKernel(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	limits := func(c *corev1.Container) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	}
	requests := func(c *corev1.Container) {
		c.Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("250m")}
	}
	for name, c := range map[string]struct {
		edit       func(*corev1.Container)
		class, oom string
		shares     string
	}{
		"guaranteed": {limits, "", "-997", "512"},
		"burstable":  {requests, "burstable/", "999", "256"},
		"besteffort": {func(*corev1.Container) {}, "besteffort/", "1000", "2"},
	} {
		t.Run(name, func(t *testing.T) {
			n.Put(name+".yaml", podtest.Pod(name).Container("main", "forever").Edit(c.edit).YAML())
			id := n.WaitRunning(name, "main", patience).ID
			pid := n.PID(id)
			want := c.oom
			if strings.HasPrefix(want, "-") && !mayLowerOOMScore(t) {
				want = "0" // containerd was told to leave it where it is
			}
			if got := read(t, fmt.Sprintf("/proc/%d/oom_score_adj", pid)); got != want {
				t.Errorf("oom_score_adj is %s, want %s", got, want)
			}
			cgroups := read(t, fmt.Sprintf("/proc/%d/cgroup", pid))
			place := regexp.MustCompile(`(?m):cpu.*:` + regexp.QuoteMeta(n.Cgroup) + `/kubepods/` + c.class + `pod[0-9a-f]{32}/` + id + "$")
			if !place.MatchString(cgroups) {
				t.Errorf("the container is in\n%s\nwant %s", cgroups, place)
			}
			_, rest, _ := strings.Cut(cgroups, ":cpu")
			path := strings.SplitN(strings.SplitN(rest, "\n", 2)[0], ":", 2)[1]
			if got := read(t, filepath.Join("/sys/fs/cgroup/cpu", path, "cpu.shares")); got != c.shares {
				t.Errorf("cpu.shares is %s, want %s", got, c.shares)
			}
		})
	}
}

// mayLowerOOMScore tells whether this machine has the capability for it, CAP_SYS_RESOURCE.
func mayLowerOOMScore(t *testing.T) bool {
	t.Helper()
	_, rest, _ := strings.Cut(read(t, "/proc/self/status"), "\nCapEff:\t")
	var capabilities uint64
	if _, err := fmt.Sscanf(rest, "%x", &capabilities); err != nil {
		t.Fatal(err)
	}
	return capabilities&(1<<24) != 0
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// TestProbes: each kind of handler finds a container ready, and a failing liveness probe restarts it.
func TestProbes(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	probe := func(h corev1.ProbeHandler) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: h, PeriodSeconds: 1, FailureThreshold: 1}
	}
	exec := corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"subject", "need:/tmp/good"}}}
	for name, h := range map[string]corev1.ProbeHandler{
		"http": {HTTPGet: &corev1.HTTPGetAction{Host: "127.0.0.1", Port: intstr.FromInt(18321), Path: "/ok"}},
		"tcp":  {TCPSocket: &corev1.TCPSocketAction{Host: "127.0.0.1", Port: intstr.FromInt(18322)}},
		"exec": exec,
	} {
		n.Put(name+".yaml", podtest.Pod(name).Container("main", map[string]string{
			"http": "listen:127.0.0.1:18321", "tcp": "tcp:127.0.0.1:18322", "exec": "write:/tmp/good="}[name], "forever").
			Edit(func(c *corev1.Container) { c.ReadinessProbe, c.StartupProbe = probe(h), probe(h) }).YAML())
	}
	n.Put("bad.yaml", podtest.Pod("bad").Container("main", "forever").Edit(func(c *corev1.Container) { c.ReadinessProbe = probe(exec) }).YAML())
	n.Put("dying.yaml", podtest.Pod("dying").Container("main", "forever").Edit(func(c *corev1.Container) { c.LivenessProbe = probe(exec) }).YAML())
	for _, name := range []string{"http", "tcp", "exec"} {
		waitReady(n, name)
	}
	n.WaitFor("a restart by the liveness probe", patience, func() (bool, string) {
		c, found := n.Running("dying", "main")
		return found && c.Attempt > 0, n.Describe("dying")
	})
	n.WaitFor("the reason why it is not ready", patience, func() (bool, string) {
		p := shown(n, "bad")
		return strings.Contains(why(p), "not ready") && strings.Contains(why(p), "/tmp/good"), why(p)
	})
	if ready(shown(n, "bad")) {
		t.Error("a pod whose readiness probe fails is ready")
	}
}

// TestTermination: hooks, signals and grace of a pod that goes.
func TestTermination(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{Containerd: "2"}) // which takes a stopSignal
	n.Supervise()
	dir := t.TempDir()
	order := filepath.Join(dir, "order")
	n.Put("web.yaml", podtest.Pod("web").Grace(10).
		Sidecar("side", "signal:TERM=0", "forever").
		Container("main", "signal:USR1=0", "forever").Edit(func(c *corev1.Container) {
		c.Lifecycle = &corev1.Lifecycle{
			PreStop:    &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"subject", "append:" + order + "=hook", "sleep:300ms"}}},
			StopSignal: ptr.To(corev1.SIGUSR1),
		}
	}).Spec(func(s *corev1.PodSpec) {
		s.OS = &corev1.PodOS{Name: corev1.Linux}
		s.InitContainers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"subject", "append:" + order + "=side"}}}}
	}).HostPath("d", dir, corev1.HostPathDirectory).YAML())
	n.WaitRunning("web", "main", patience)
	waitReady(n, "web")
	n.Remove("web.yaml")
	n.WaitGone("web", patience)
	if got := read(t, order); got != "hook\nside" {
		t.Errorf("the hooks ran in the order %q, want the container's, then the sidecar's", got)
	}
}

// TestEnds: what restart policies, deadlines and messages make of a container that ends.
func TestEnds(t *testing.T) {
	t.Parallel()
	n := podtest.New(t, podtest.Options{})
	n.Supervise()
	n.Put("never.yaml", podtest.Pod("never").Restart(corev1.RestartPolicyNever).Container("main", "write:/dev/termination-log=last words", "exit:3").YAML())
	n.Put("success.yaml", podtest.Pod("success").Restart(corev1.RestartPolicyOnFailure).Container("main", "print:done").YAML())
	n.Put("log.yaml", podtest.Pod("log").Restart(corev1.RestartPolicyNever).Container("main", "error:from the log", "exit:4").Edit(func(c *corev1.Container) {
		c.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	}).YAML())
	n.Put("deadline.yaml", podtest.Pod("deadline").Spec(func(s *corev1.PodSpec) { s.ActiveDeadlineSeconds = ptr.To[int64](1) }).Container("main", "forever").YAML())
	n.Put("missing.yaml", podtest.Pod("missing").Container("main", "forever").Edit(func(c *corev1.Container) {
		c.Image, c.ImagePullPolicy = "example.com/missing:1", corev1.PullNever
	}).YAML())
	for name, ok := range map[string]func(p *corev1.Pod) bool{
		"never": func(p *corev1.Pod) bool {
			s := p.Status.ContainerStatuses[0].State.Terminated
			return p.Status.Phase == corev1.PodFailed && s != nil && s.ExitCode == 3 && s.Message == "last words"
		},
		"success": func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded },
		"log": func(p *corev1.Pod) bool {
			s := p.Status.ContainerStatuses[0].State.Terminated
			return s != nil && s.ExitCode == 4 && strings.Contains(s.Message, "from the log")
		},
		"deadline": func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "DeadlineExceeded"
		},
		"missing": func(p *corev1.Pod) bool {
			w := p.Status.ContainerStatuses[0].State.Waiting
			return w != nil && w.Reason == "ErrImageNeverPull"
		},
	} {
		t.Run(name, func(t *testing.T) {
			n.WaitFor("its status", patience, func() (bool, string) {
				p := shown(n, name)
				return p != nil && len(p.Status.ContainerStatuses) > 0 && ok(p), fmt.Sprintf("%s %+v", why(p), p)
			})
		})
	}
	if all := n.Containers("never"); len(all) != 1 || all[0].Attempt != 0 {
		t.Errorf("a container that is never restarted: %s", n.Describe("never"))
	}
}
