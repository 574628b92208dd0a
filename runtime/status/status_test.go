package status

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aymanbagabas/go-udiff"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lastgood"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

var update = flag.Bool("update", false, "rewrite testdata; only commit what you can explain")

// noon is when everything in these tests happens.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const etcd = `
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system, uid: "1"}
spec:
  hostNetwork: true
  containers:
  - {name: etcd, image: "registry.example/etcd:3"}
`

const job = `
apiVersion: v1
kind: Pod
metadata: {name: job, namespace: kube-system, uid: "1"}
spec:
  restartPolicy: OnFailure
  initContainers:
  - {name: prepare, image: "registry.example/prepare:1"}
  containers:
  - {name: work, image: "registry.example/work:1"}
  - {name: more, image: "registry.example/more:1"}
`

const everything = `
apiVersion: v1
kind: Pod
metadata: {name: all, namespace: kube-system, uid: "1"}
spec:
  restartPolicy: Never
  initContainers:
  - {name: first, image: "registry.example/first:1"}
  - {name: side, image: "registry.example/side:1", restartPolicy: Always}
  containers:
  - name: main
    image: registry.example/main:1
    resources: {requests: {cpu: 100m}, limits: {memory: 64Mi}}
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: data, mountPath: /plain, readOnly: true}
    - {name: data, mountPath: /deep, readOnly: true, recursiveReadOnly: IfPossible}
  - {name: batch, image: "registry.example/batch:1"}
  volumes: [{name: data, hostPath: {path: /srv}}]
`

func want(t testing.TB, text string) *manifest.StaticPod {
	t.Helper()
	p, err := manifest.Parse([]byte(text), "/etc/kubernetes/manifests/pod.yaml", "n1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// running and exited are containers of the pods above; a second of runtime lies between two events of a container.
func running(name string, attempt uint32, ready bool) lifecycle.Container {
	return lifecycle.Container{
		ID: name + "-id", Name: name, SandboxID: "s0", UID: "1", Attempt: attempt, State: lifecycle.ContainerRunning,
		CreatedAt: noon.Add(time.Second), StartedAt: noon.Add(2 * time.Second), ImageRef: "sha256:aa",
		Probe: lifecycle.Probe{Started: true, Ready: ready},
	}
}

func exited(name string, attempt uint32, code int32) lifecycle.Container {
	c := running(name, attempt, false)
	c.ID += "-dead"
	c.State, c.ExitCode, c.FinishedAt, c.Probe = lifecycle.ContainerExited, code, noon.Add(3*time.Second), lifecycle.Probe{}
	return c
}

func hooked(c lifecycle.Container, state lifecycle.HookState, message string) lifecycle.Container {
	c.Hook = lifecycle.Hook{State: state, Message: message}
	return c
}

func created(name string) lifecycle.Container {
	c := running(name, 0, false)
	c.State, c.StartedAt, c.Probe = lifecycle.ContainerCreated, time.Time{}, lifecycle.Probe{}
	return c
}

func lost(name string) lifecycle.Container {
	c := exited(name, 0, 255)
	c.State = lifecycle.ContainerUnknown
	return c
}

func sandbox() []lifecycle.Sandbox {
	return []lifecycle.Sandbox{{ID: "s0", UID: "1", Ready: true, HostNetwork: true, CreatedAt: noon}}
}

func podSandbox() []lifecycle.Sandbox {
	return []lifecycle.Sandbox{{ID: "s0", UID: "1", Ready: true, IP: "10.244.0.5", CreatedAt: noon}}
}

// rejected is a pod that runs its former version.
func rejected(t testing.TB) View {
	return View{
		Want: want(t, etcd), Ready: true, Problem: "the newest version was given up",
		Rejected: &lastgood.Rejection{Pod: "kube-system/etcd-n1", Version: "2/2", UID: "2", Source: "/etc/kubernetes/manifests/pod.yaml", At: noon,
			Reason: "etcd exited 3 times within 1m0s, last with exit code 1", Log: []string{"bad flag", "usage: etcd"}, Good: "1/1"},
		Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("etcd", 0, true)}},
		Decision: lifecycle.Decision{State: lifecycle.Running, Why: "etcd runs"},
	}
}

// TestPod prints the status and the annotations of a pod in each state.
func TestPod(t *testing.T) {
	for name, v := range map[string]View{
		"starting": {
			Want:     want(t, etcd),
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "making the sandbox: there is none"},
		},
		"running": {
			Want: want(t, etcd), Ready: true,
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("etcd", 0, true)}},
			Decision: lifecycle.Decision{State: lifecycle.Running, Why: "etcd runs"},
		},
		"not-ready": {
			Want:     want(t, etcd),
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("etcd", 1, false), exited("etcd", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Running, Why: "etcd runs, not ready (readiness probe: connection refused)"},
		},
		"crash-loop": {
			Want:     want(t, etcd),
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{exited("etcd", 3, 1), exited("etcd", 2, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.BackOff, Why: "back-off 40s restarting etcd (exit code 1, 3 restarts)", Wake: noon.Add(time.Minute)},
		},
		"image-pull-error": {
			Want: want(t, etcd),
			Seen: lifecycle.Observed{Sandboxes: sandbox(), Images: map[string]lifecycle.Image{
				"registry.example/etcd:3": {Err: "no such host", FailedAt: noon},
			}},
			Decision: lifecycle.Decision{State: lifecycle.Pulling, Why: "etcd: image registry.example/etcd:3: no such host: back-off 10s", Wake: noon.Add(time.Minute)},
		},
		"held": {
			Want:     want(t, etcd),
			Decision: lifecycle.Decision{State: lifecycle.Held, Why: "waits for kube-apiserver"},
		},
		"failing": {
			Want: want(t, etcd), Failure: "run sandbox (attempt 0): no network", Problem: "/etc/kubernetes/manifests/pod.yaml:3:1: not a pod",
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "making the sandbox"},
		},
		"logs-remember": {
			Want: want(t, etcd), Seen: lifecycle.Observed{LastAttempt: map[string]uint32{"etcd": 4}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "making the sandbox: there is none"},
		},
		"initializing": {
			Want:     want(t, job),
			Seen:     lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{running("prepare", 0, true)}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "init container prepare runs"},
		},
		"one-has-ended": {
			Want: want(t, job),
			Seen: lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{
				exited("prepare", 0, 0), exited("work", 0, 0), running("more", 0, true),
			}},
			Decision: lifecycle.Decision{State: lifecycle.Running, Why: "more runs; work has ended (exit code 0)"},
		},
		"completed": {
			Want: want(t, job),
			Seen: lifecycle.Observed{Containers: []lifecycle.Container{
				exited("prepare", 0, 0), exited("work", 0, 0), exited("more", 1, 0),
			}},
			Decision: lifecycle.Decision{State: lifecycle.Completed, Why: "work has ended (exit code 0); more has ended (exit code 0)"},
		},
		"hook-runs": {
			Want: want(t, etcd),
			Seen: lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{
				hooked(running("etcd", 1, true), lifecycle.HookRunning, "the post-start hook runs since 12:00:02"), exited("etcd", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "etcd: the post-start hook runs"},
		},
		"hook-failed": {
			Want: want(t, job),
			Seen: lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{
				exited("prepare", 0, 0), hooked(running("work", 0, true), lifecycle.HookFailed, "exec: exit code 3")}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "stopping work: its post-start hook failed"},
		},
		"everything": {
			Want: want(t, everything), Ready: true, QOS: corev1.PodQOSBurstable, RecursiveReadOnly: true,
			Users: map[string]*corev1.LinuxContainerUser{"main-id": {UID: 1000, GID: 1000, SupplementalGroups: []int64{7}}},
			Seen: lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{
				running("side", 0, true), running("main", 0, true), exited("batch", 0, 42)}},
			Decision: lifecycle.Decision{State: lifecycle.Running, Why: "main runs"},
		},
		"restarted-by-a-rule": {
			Want: want(t, strings.Replace(everything, "batch:1\"", "batch:1\", restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]", 1)),
			Seen: lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{
				running("side", 0, true), exited("main", 0, 0), exited("batch", 0, 42)}},
			Decision: lifecycle.Decision{State: lifecycle.BackOff, Why: "back-off 10s restarting batch", Wake: noon.Add(2 * time.Minute)},
		},
		"init-again": {
			Want: want(t, job),
			Seen: lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{
				running("prepare", 1, true), exited("prepare", 0, 0), exited("work", 0, 1), exited("more", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "init container prepare runs"},
		},
		"past-its-deadline": {
			Want:     want(t, strings.Replace(etcd, "spec:", "spec:\n  activeDeadlineSeconds: 60", 1)),
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{exited("etcd", 0, 137)}},
			Decision: lifecycle.Decision{State: lifecycle.Completed, Why: "past its deadline of 1m0s"},
		},
		"init-failed-for-good": {
			Want:     want(t, strings.Replace(job, "OnFailure", "Never", 1)),
			Seen:     lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{exited("prepare", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Completed, Why: "prepare has failed (exit code 1)"},
		},
		"failed-for-good": {
			Want:     want(t, strings.Replace(job, "OnFailure", "Never", 1)),
			Seen:     lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{exited("work", 0, 0), exited("more", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Completed, Why: "work has ended (exit code 0); more has ended (exit code 1)"},
		},
		"start-fails": {
			Want: want(t, job), Failure: "start container work (attempt 0): exec format error",
			Seen:     lifecycle.Observed{Sandboxes: podSandbox(), Containers: []lifecycle.Container{created("work"), exited("prepare", 0, 0)}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "starting work"},
		},
		"create-fails": {
			Want: want(t, etcd), Failure: "start container etcd (attempt 0): creating container etcd: no such user",
			Seen:     lifecycle.Observed{Sandboxes: sandbox()},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "starting etcd"},
		},
		"image-never": {
			Want: want(t, strings.Replace(etcd, "{name: etcd, image", "{name: etcd, imagePullPolicy: Never, image", 1)),
			Seen: lifecycle.Observed{Sandboxes: sandbox(), Images: map[string]lifecycle.Image{
				"registry.example/etcd:3": {Err: "not in the store", FailedAt: noon}}},
			Decision: lifecycle.Decision{State: lifecycle.Pulling, Why: "not in the store", Wake: noon.Add(time.Minute)},
		},
		"unknown-to-the-runtime": {
			Want:     want(t, etcd),
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{lost("etcd")}},
			Decision: lifecycle.Decision{State: lifecycle.Starting, Why: "starting etcd"},
		},
		"rejected": rejected(t),
		"terminating-unknown": {
			Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("b", 0, true), running("a", 1, true), exited("a", 0, 1)}},
			Decision: lifecycle.Decision{State: lifecycle.Terminating, Why: "manifest removed: stopping a, b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v.Name, v.HostIPs, v.Now = "kube-system/etcd-n1", []netip.Addr{netip.MustParseAddr("192.0.2.10")}, noon.Add(time.Minute)
			golden(t, name, Pod(v, nil))
		})
	}
}

// TestPodTerminating checks what is shown of a pod whose manifest went: what was shown before, less what has stopped.
func TestPodTerminating(t *testing.T) {
	v := View{
		Name: "kube-system/etcd-n1", Now: noon.Add(time.Minute), Want: want(t, etcd), Ready: true,
		Seen:     lifecycle.Observed{Sandboxes: sandbox(), Containers: []lifecycle.Container{running("etcd", 0, true)}},
		Decision: lifecycle.Decision{State: lifecycle.Running},
	}
	before := Pod(v, nil)
	v.Want, v.Ready, v.Now = nil, false, noon.Add(2*time.Minute)
	v.Decision = lifecycle.Decision{State: lifecycle.Terminating, Why: "manifest removed: stopping etcd"}
	first := Pod(v, before)
	golden(t, "terminating", first)
	v.Now, v.Seen.Containers = noon.Add(3*time.Minute), nil
	second := Pod(v, first)
	if !second.DeletionTimestamp.Equal(first.DeletionTimestamp) || second.Status.Phase != corev1.PodRunning || second.UID != "1" {
		t.Errorf("deleted at %v, %s, uid %q; want the first time again, Running, 1", second.DeletionTimestamp, second.Status.Phase, second.UID)
	}
}

// TestStartTimeStays is that of the pod's first sandbox, also when the runtime has only later ones.
func TestStartTimeStays(t *testing.T) {
	v := View{Name: "kube-system/etcd-n1", Now: noon.Add(time.Minute), Want: want(t, etcd), Seen: lifecycle.Observed{Sandboxes: sandbox()}}
	first := Pod(v, nil)
	v.Seen.Sandboxes[0].CreatedAt = noon.Add(time.Hour)
	if again := Pod(v, first); !again.Status.StartTime.Time.Equal(noon) {
		t.Errorf("started at %v, want %v", again.Status.StartTime, noon)
	}
	other := first.DeepCopy()
	other.UID = "2"
	if again := Pod(v, other); !again.Status.StartTime.Time.Equal(noon.Add(time.Hour)) {
		t.Errorf("another version started at %v, want %v", again.Status.StartTime, noon.Add(time.Hour))
	}
}

// TestReadOnlyMounts says how read-only a mount is: what lies below it can be left out only by some runtimes.
func TestReadOnlyMounts(t *testing.T) {
	spec := want(t, everything).Pod.Spec.Containers[0]
	for _, can := range []bool{true, false} {
		got := volumeMounts(&spec, View{RecursiveReadOnly: can})
		deep := corev1.RecursiveReadOnlyDisabled
		if can {
			deep = corev1.RecursiveReadOnlyEnabled
		}
		if got[0].RecursiveReadOnly != nil || *got[1].RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled || *got[2].RecursiveReadOnly != deep {
			t.Errorf("a runtime that can: %v: %+v", can, got)
		}
	}
}

// golden compares what is of interest in a pod with a file.
func golden(t *testing.T, name string, pod *corev1.Pod) {
	t.Helper()
	got, err := json.MarshalIndent(struct {
		UID         string
		Deleted     *metav1.Time `json:",omitempty"`
		Annotations map[string]string
		Status      corev1.PodStatus
	}{string(pod.UID), pod.DeletionTimestamp, pod.Annotations, pod.Status}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := udiff.Unified(path, "got", string(file), string(got)); diff != "" {
		t.Errorf("%s\nrewrite with: go test ./runtime/status -update", diff)
	}
}

// TestWantIsNotChanged holds Pod to sharing what it was given without writing to it.
func TestWantIsNotChanged(t *testing.T) {
	p := want(t, etcd)
	before := p.Pod.DeepCopy()
	Pod(View{Name: p.FullName(), Want: p, Problem: "a problem", Now: noon}, nil)
	a, _ := json.Marshal(before)
	b, _ := json.Marshal(p.Pod)
	if string(a) != string(b) {
		t.Errorf("the wanted pod was changed:\n%s", udiff.Unified("before", "after", string(a), string(b)))
	}
}
