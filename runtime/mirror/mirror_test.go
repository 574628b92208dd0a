package mirror

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

// board is a supervisor's view that the test changes.
type board struct {
	mu      sync.Mutex
	list    *corev1.PodList
	changed chan struct{}
}

func (b *board) pods() (*corev1.PodList, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.list, b.changed
}

func (b *board) set(pods ...*corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = &corev1.PodList{}
	for _, p := range pods {
		b.list.Items = append(b.list.Items, *p)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

type running struct {
	*fakeAPI
	board      *board
	log        *logBuffer
	kubeconfig string
	refused    chan string
}

const etcd = "kube-system/etcd-n1"

// run starts a mirror of node n1 against the fake API.
func run(t *testing.T, f *fakeAPI, tune func(*Mirror)) *running {
	t.Helper()
	r := &running{fakeAPI: f, board: &board{changed: make(chan struct{})}, log: &logBuffer{}, kubeconfig: tempKubeconfig(t), refused: make(chan string, 100)}
	f.ca.writeKubeconfig(r.kubeconfig, f.url(), "system:node:n1", "system:nodes")
	m := New(Config{
		Kubeconfig: r.kubeconfig, NodeName: "n1", HostIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}, Info: corev1.NodeSystemInfo{KubeletVersion: "v0.1.0"},
		Pods: r.board.pods, Refused: func(pod, reason string) { r.refused <- pod + ": " + reason },
		Log: slog.New(slog.NewTextHandler(r.log, nil)), Now: time.Now,
	})
	m.pace = pace{eager: 5 * time.Millisecond, eagerFor: time.Minute, least: 10 * time.Millisecond, most: 50 * time.Millisecond,
		polite: 50 * time.Millisecond, dial: 500 * time.Millisecond, request: 500 * time.Millisecond, brief: 20 * time.Millisecond}
	m.c.Rates = Rates{Status: 50 * time.Millisecond, Lease: 200 * time.Millisecond, Report: minutes(5), QPS: 50, Burst: 100}
	if tune != nil {
		tune(m)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Log(r.log)
		}
	})
	return r
}

// shown tells whether the API shows the pod with this phase.
func (r *running) shown(name string, phase corev1.PodPhase) func() bool {
	return func() bool {
		p := r.pods[name]
		return p != nil && p.DeletionTimestamp == nil && p.Status.Phase == phase
	}
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got, want = strings.TrimSpace(got), strings.TrimSpace(want); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestRegistersAndMirrors(t *testing.T) {
	r := run(t, newFakeAPI(t), nil)
	r.board.set(staticPod("etcd", "h1"), staticPod("kube-apiserver", "h2"))
	r.await("both mirrors", func() bool {
		return r.shown(etcd, corev1.PodRunning)() && r.shown("kube-system/kube-apiserver-n1", corev1.PodRunning)()
	})
	r.await("the lease", func() bool { return r.lease != nil })
	expect(t, r.takeTrace(), `
POST /api/v1/nodes
POST /api/v1/namespaces/kube-system/pods
POST /api/v1/namespaces/kube-system/pods
PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status
PATCH /api/v1/namespaces/kube-system/pods/kube-apiserver-n1/status`)
	expect(t, strings.Join(taints(r.node), " "), "slipway.dev/static-pods-only:NoSchedule slipway.dev/static-pods-only:NoExecute")
	if !r.node.Spec.Unschedulable || r.lease.Spec.HolderIdentity != "n1" || r.lease.OwnerReferences[0].UID != r.node.UID {
		t.Errorf("node %+v\nlease %+v", r.node.Spec, r.lease)
	}
	r.takeAll()
	for range 3 {
		r.mu.Lock()
		last := r.lease.Spec.RenewTime
		r.mu.Unlock()
		r.await("a renewal", func() bool { return r.lease.Spec.RenewTime.After(last.Time) })
		r.board.set(staticPod("etcd", "h1"), staticPod("kube-apiserver", "h2")) // told anew, and nothing has changed
	}
	for request, times := range r.takeAll() {
		if request != "PUT "+leasesPath+"/n1" && request != "GET /api/v1/nodes/n1" || times > 6 {
			t.Errorf("not silent when nothing changes: %d × %s", times, request)
		}
	}
}

func TestNothingIsRemovedBeforeTheSupervisorKnowsItsPods(t *testing.T) {
	f := newFakeAPI(t)
	r := run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	r.takeTrace()
	again := run(t, f, nil) // a second supervisor, which has not read its manifests
	r.await("a heartbeat", func() bool { return strings.Contains(again.log.String(), "showing the pods") })
	first := r.lease.Spec.RenewTime
	r.await("another", func() bool { return r.lease.Spec.RenewTime.After(first.Time) })
	expect(t, f.takeTrace(), "")
}

func TestDeletedAndEditedMirrorsComeBack(t *testing.T) {
	const back = `
DELETE /api/v1/namespaces/kube-system/pods/etcd-n1
POST /api/v1/namespaces/kube-system/pods
PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status`
	for _, tc := range []struct {
		name, trace string
		do          func(*running)
	}{
		{"deleted with grace", back, func(r *running) {
			r.edit(etcd, func(p *corev1.Pod) { now := p.CreationTimestamp; now.Time = time.Now(); p.DeletionTimestamp = &now })
		}},
		{"deleted by force", strings.TrimPrefix(back, "\nDELETE /api/v1/namespaces/kube-system/pods/etcd-n1"), func(r *running) { r.mu.Lock(); r.drop(etcd); r.mu.Unlock() }},
		{"label edited", back, func(r *running) { r.edit(etcd, func(p *corev1.Pod) { p.Labels = map[string]string{"component": "x"} }) }},
		{"annotation edited", back, func(r *running) {
			r.edit(etcd, func(p *corev1.Pod) { p.Annotations["kubernetes.io/config.source"] = "http" })
		}},
		{"toleration added", back, func(r *running) {
			r.edit(etcd, func(p *corev1.Pod) {
				p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "x", Operator: corev1.TolerationOpExists})
			})
		}},
		{"deadline set", back, func(r *running) {
			r.edit(etcd, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To(int64(1)) })
		}},
		{"image edited", back, func(r *running) { r.edit(etcd, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "x" }) }},
		{"manifest edited", back, func(r *running) { r.board.set(staticPod("etcd", "h2")) }},
		{"status edited", "PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status", func(r *running) {
			r.edit(etcd, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := run(t, newFakeAPI(t), nil)
			r.board.set(staticPod("etcd", "h1"))
			r.await("a mirror", r.shown(etcd, corev1.PodRunning))
			r.takeTrace()
			lines := strings.Count(strings.TrimSpace(tc.trace), "\n") + 1
			tc.do(r)
			r.await("the mirror again", func() bool { return len(r.trace) == lines && r.shown(etcd, corev1.PodRunning)() })
			expect(t, r.takeTrace(), tc.trace)
		})
	}
}

func TestOrphansAreDeletedOnceTheirPodIsGone(t *testing.T) {
	r := run(t, newFakeAPI(t), nil)
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	ending := staticPod("etcd", "h1")
	now := ending.CreationTimestamp
	now.Time = time.Now()
	ending.DeletionTimestamp, ending.Annotations, ending.Status.Message = &now, nil, "stopping"
	ending.Status.Conditions[0].Status = corev1.ConditionFalse
	r.board.set(ending)
	r.await("its end to be told", func() bool { p := r.pods[etcd]; return p != nil && p.Status.Message == "stopping" })
	r.takeTrace()
	r.board.set()
	r.await("its end", func() bool { return r.pods[etcd] == nil })
	expect(t, r.takeTrace(), "DELETE /api/v1/namespaces/kube-system/pods/etcd-n1")
}

func TestNodeThatWasDeletedIsRegisteredAgainWithItsPods(t *testing.T) {
	r := run(t, newFakeAPI(t), nil)
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	r.takeTrace()
	r.mu.Lock()
	old := r.node.UID
	r.node = nil
	r.mu.Unlock()
	r.await("a mirror of the new node", func() bool {
		return r.node != nil && r.shown(etcd, corev1.PodRunning)() && r.pods[etcd].OwnerReferences[0].UID == r.node.UID && r.node.UID != old
	})
	expect(t, r.takeTrace(), `
POST /api/v1/nodes
DELETE /api/v1/namespaces/kube-system/pods/etcd-n1
POST /api/v1/namespaces/kube-system/pods
PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status`)
}

func TestOneLinePerOutage(t *testing.T) {
	r := run(t, newFakeAPI(t), func(m *Mirror) { m.pace.eagerFor = 0 })
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	r.stop()
	for range 20 {
		r.board.set(staticPod("etcd", "h1")) // the pods live on, and each change is a reason to try again
		wait(t.Context(), 10*time.Millisecond)
	}
	r.board.set(staticPod("etcd", "h1"), staticPod("kube-scheduler", "h3"))
	r.takeTrace()
	r.start()
	r.await("what happened meanwhile", r.shown("kube-system/kube-scheduler-n1", corev1.PodRunning))
	expect(t, r.takeTrace(), `
POST /api/v1/namespaces/kube-system/pods
PATCH /api/v1/namespaces/kube-system/pods/kube-scheduler-n1/status`)
	if n := strings.Count(r.log.String(), "is not reachable"); n != 1 {
		t.Errorf("%d lines for one outage", n)
	}
}

func TestHangingServerIsLeft(t *testing.T) {
	r := run(t, newFakeAPI(t), func(m *Mirror) { m.pace.request = 50 * time.Millisecond })
	r.board.set(staticPod("etcd", "h1"), staticPod("kube-apiserver", "h3"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	hang := make(chan struct{})
	r.mu.Lock()
	r.hang = hang
	r.mu.Unlock()
	r.board.set(staticPod("etcd", "h2"), staticPod("kube-apiserver", "h3")) // the request for it gets no answer
	r.awaitLog(t, "is not reachable", 1)
	r.mu.Lock()
	r.hang = nil
	r.mu.Unlock()
	close(hang)
	r.await("the new version", func() bool {
		p := r.pods[etcd]
		return p != nil && p.Annotations[corev1.MirrorPodAnnotationKey] == "h2"
	})
}

func TestRenewedCertificateIsTaken(t *testing.T) {
	for _, expired := range []bool{false, true} {
		r := run(t, newFakeAPI(t), nil)
		r.board.set(staticPod("etcd", "h1"))
		r.await("a mirror", r.shown(etcd, corev1.PodRunning))
		if expired { // the server does not take the old one any more
			r.mu.Lock()
			r.minimum = r.ca.n + 1
			r.mu.Unlock()
			for !strings.Contains(r.log.String(), "refuses this node") {
				wait(t.Context(), time.Millisecond)
			}
		}
		r.ca.writeKubeconfig(r.kubeconfig, r.url(), "system:node:n1", "system:nodes")
		r.mu.Lock()
		r.minimum = r.ca.n
		r.mu.Unlock()
		r.board.set(staticPod("etcd", "h2"))
		r.await("work with the new one", func() bool {
			p := r.pods[etcd]
			return p != nil && p.Annotations[corev1.MirrorPodAnnotationKey] == "h2"
		})
	}
}

func TestRefusedMirrorIsAReasonAndNothingElse(t *testing.T) {
	f := newFakeAPI(t)
	refusing := true
	f.veto = func(_ string, p *corev1.Pod) error {
		if refusing && p.Name == "etcd-n1" {
			return fail(403, "Forbidden", "admission webhook %q denied the request", "quota")
		}
		return nil
	}
	r := run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"), staticPod("kube-apiserver", "h2"))
	r.await("the others", r.shown("kube-system/kube-apiserver-n1", corev1.PodRunning))
	expect(t, <-r.refused, `kube-system/etcd-n1: creating the mirror pod: admission webhook "quota" denied the request (403)`)
	r.mu.Lock()
	refusing = false
	r.mu.Unlock()
	r.await("it after all", r.shown(etcd, corev1.PodRunning))
	expect(t, <-r.refused, "kube-system/etcd-n1: ")
}

func TestPodInTheWayIsAReasonAndNothingElse(t *testing.T) {
	f := newFakeAPI(t)
	r := run(t, f, nil)
	f.mu.Lock()
	p := staticPod("etcd", "h1")
	p.Annotations = nil
	f.store(etcd, p)
	f.mu.Unlock()
	r.board.set(staticPod("etcd", "h1"))
	expect(t, <-r.refused, "kube-system/etcd-n1: a pod of this name that is no mirror of a static pod is bound to this node: delete it")
	f.mu.Lock()
	f.drop(etcd)
	f.mu.Unlock()
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
	if n := strings.Count(r.log.String(), "showing the pods"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestMutatingWebhookIsNotFought(t *testing.T) {
	f := newFakeAPI(t)
	f.mutate = func(p *corev1.Pod) { p.Spec.Containers[0].Image = "proxy/" + p.Spec.Containers[0].Image }
	r := run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	r.edit(etcd, func(p *corev1.Pod) { p.Annotations["touched"] = "by another" })
	first := r.lease
	r.await("heartbeats", func() bool { return r.lease != first })
	expect(t, r.takeTrace(), `
POST /api/v1/nodes
POST /api/v1/namespaces/kube-system/pods
PATCH /api/v1/namespaces/kube-system/pods/etcd-n1/status`)
}

func TestNodeOfAKubeletIsTakenOverAsFarAsANodeMay(t *testing.T) {
	f := newFakeAPI(t)
	f.node = nodeObject(Config{NodeName: "n1"}, health{}, time.Now())
	f.node.UID, f.node.Spec, f.node.Labels = "kubelets", corev1.NodeSpec{}, map[string]string{"kubernetes.io/hostname": "n1", "role": "x"}
	f.node.Status.Conditions = append(f.node.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Status: "Unknown"})
	f.node.Status.Capacity = corev1.ResourceList{"hugepages-2Mi": resource.MustParse("0")}
	f.node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.9"}}
	r := run(t, f, nil)
	r.await("heartbeats", func() bool { return r.lease != nil })
	first := r.lease.Spec.RenewTime
	r.await("renewals", func() bool { return r.lease.Spec.RenewTime.After(first.Time) })
	expect(t, r.takeTrace(), "PATCH /api/v1/nodes/n1\nPATCH /api/v1/nodes/n1/status")
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.node.Spec.Unschedulable || r.node.Labels["role"] != "x" || r.node.Labels["kubernetes.io/os"] != "linux" || len(r.node.Status.Addresses) != 2 {
		t.Errorf("%s", encode(r.node))
	}
	if !strings.Contains(r.log.String(), "kubectl taint node n1 slipway.dev/static-pods-only=:NoSchedule") {
		t.Error("nobody is told that the taint is missing")
	}
}
