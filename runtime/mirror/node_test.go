package mirror

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

func TestNodeThatIsRegistered(t *testing.T) {
	c := Config{NodeName: "n1", HostIPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		Capacity: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")}, Info: corev1.NodeSystemInfo{KubeletVersion: "v0.1.0+slipway"},
		ProviderID: "metal://7", Taints: []corev1.Taint{{Key: "role", Value: "edge", Effect: corev1.TaintEffectNoSchedule}, noSchedule()}}
	n := nodeObject(c, health{pressure: Pressure{Disk: true}}, time.Unix(1_700_000_000, 0).UTC())
	n.Labels[corev1.LabelArchStable], n.Labels["beta.kubernetes.io/arch"] = "ARCH", "ARCH"
	got, err := yaml.Marshal(map[string]any{"metadata": n.ObjectMeta, "spec": n.Spec, "status": nodeStatusOf(n)})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, string(got), `
metadata:
  labels:
    beta.kubernetes.io/arch: ARCH
    beta.kubernetes.io/os: linux
    kubernetes.io/arch: ARCH
    kubernetes.io/hostname: n1
    kubernetes.io/os: linux
    slipway.dev/static-pods-only: ""
  name: n1
spec:
  providerID: metal://7
  taints:
  - effect: NoSchedule
    key: slipway.dev/static-pods-only
  - effect: NoExecute
    key: slipway.dev/static-pods-only
  - effect: NoSchedule
    key: role
    value: edge
  unschedulable: true
status:
  addresses:
  - address: 10.0.0.1
    type: InternalIP
  - address: fd00::1
    type: InternalIP
  - address: n1
    type: Hostname
  allocatable:
    cpu: "2"
  capacity:
    cpu: "2"
  conditions:
  - lastHeartbeatTime: "2023-11-14T22:13:20Z"
    lastTransitionTime: "2023-11-14T22:13:20Z"
    message: this machine has sufficient memory available
    reason: KubeletHasSufficientMemory
    status: "False"
    type: MemoryPressure
  - lastHeartbeatTime: "2023-11-14T22:13:20Z"
    lastTransitionTime: "2023-11-14T22:13:20Z"
    message: the disk that the pods write to runs short of space or inodes
    reason: KubeletHasDiskPressure
    status: "True"
    type: DiskPressure
  - lastHeartbeatTime: "2023-11-14T22:13:20Z"
    lastTransitionTime: "2023-11-14T22:13:20Z"
    message: this machine has sufficient process ids available
    reason: KubeletHasSufficientPID
    status: "False"
    type: PIDPressure
  - lastHeartbeatTime: "2023-11-14T22:13:20Z"
    lastTransitionTime: "2023-11-14T22:13:20Z"
    message: slipway runs the static pods of this node; there is no kubelet to start
      any other pod
    reason: StaticPodsOnly
    status: "True"
    type: Ready
  nodeInfo:
    architecture: ""
    bootID: ""
    containerRuntimeVersion: ""
    kernelVersion: ""
    kubeProxyVersion: ""
    kubeletVersion: v0.1.0+slipway
    machineID: ""
    operatingSystem: ""
    osImage: ""
    systemUUID: ""`)
}

func TestNodeStatusIsSentWhenItChangesAndNowAndThen(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	const report = 5 * time.Minute
	for _, tc := range []struct {
		name   string
		after  time.Duration
		health health
		change func(have *corev1.Node)
		want   []string // words in the patch; none: no patch
	}{
		{"nothing new", time.Minute, health{}, nil, nil},
		{"nothing new for long", report, health{}, nil, []string{`"lastHeartbeatTime":"2023-11-14T22:18:20Z","lastTransitionTime":"2023-11-14T22:13:20Z"`}},
		{"a clock that was ahead", -time.Hour, health{}, nil, []string{`"lastHeartbeatTime":"2023-11-14T21:13:20Z"`}},
		{"runtime down", time.Minute, health{problem: "container runtime is down"}, nil,
			[]string{`"lastTransitionTime":"2023-11-14T22:14:20Z","reason":"KubeletNotReady","message":"container runtime is down"`}},
		{"taken for dead meanwhile", time.Minute, health{}, func(have *corev1.Node) { have.Status.Conditions[3].Status = "Unknown" },
			[]string{`"type":"Ready","status":"True","lastHeartbeatTime":"2023-11-14T22:13:20Z","lastTransitionTime":"2023-11-14T22:14:20Z"`}},
		{"a condition of others", time.Minute, health{}, func(have *corev1.Node) {
			have.Status.Conditions = append(have.Status.Conditions, corev1.NodeCondition{Type: "NetworkUnavailable", Status: "False"})
		}, nil},
		{"a condition is missing", time.Minute, health{}, func(have *corev1.Node) { have.Status.Conditions = have.Status.Conditions[1:] },
			[]string{"MemoryPressure"}},
		{"another address", time.Minute, health{}, func(have *corev1.Node) { have.Status.Addresses = nil }, []string{`"addresses":[{"$patch":"replace"},`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Config{NodeName: "n1"}
			have := nodeObject(c, health{}, at)
			if tc.change != nil {
				tc.change(have)
			}
			now := at.Add(tc.after)
			got := string(nodeStatusPatch(nodeObject(c, tc.health, now), have, report, now))
			if (got == "") != (tc.want == nil) {
				t.Errorf("patch %q", got)
			}
			for _, w := range tc.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %s in %s", w, got)
				}
			}
		})
	}
}

func TestHealthDoesNotFlicker(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var down error
	var short Pressure
	m := New(Config{Healthy: func(context.Context) error { return down }, Pressure: func() Pressure { return short }})
	for _, tc := range []struct {
		after time.Duration
		down  bool
		short bool
		want  health
	}{
		{0, false, false, health{}},
		{time.Second, true, false, health{}},
		{unhealthyFor - time.Second, true, false, health{}},
		{time.Second, true, false, health{problem: "down"}},
		{time.Second, false, true, health{pressure: Pressure{Memory: true}}},
		{time.Second, true, false, health{pressure: Pressure{Memory: true}}}, // the 30 s begin anew, the pressure stays
		{pressureFor, false, false, health{}},
	} {
		now, down, short = now.Add(tc.after), nil, Pressure{Memory: tc.short}
		if tc.down {
			down = errors.New("down")
		}
		if got := m.health(t.Context(), now); got != tc.want {
			t.Errorf("at %s: %+v, want %+v", now.UTC(), got, tc.want)
		}
	}
}

func TestRates(t *testing.T) {
	for _, tc := range []struct {
		name     string
		r        Rates
		want     Rates
		lease    int
		renewals time.Duration
	}{
		{"a kubelet's", Rates{}, Rates{10 * time.Second, 5 * time.Minute, 40 * time.Second, 50, 100}, 40, 10 * time.Second},
		{"the report goes with the look", Rates{Status: time.Minute}, Rates{time.Minute, time.Minute, 40 * time.Second, 50, 100}, 40, 10 * time.Second},
		{"each its own", Rates{time.Second, time.Hour, 20 * time.Second, -1, 7}, Rates{time.Second, time.Hour, 20 * time.Second, -1, 7}, 20, 5 * time.Second},
	} {
		m := New(Config{Rates: tc.r})
		got := m.c.Rates
		if got != tc.want || got.Lease/renewals != tc.renewals || leaseObject("n1", "", got.Lease, time.Now()).Spec.LeaseDurationSeconds != tc.lease {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

func TestLeaseThatWasDeletedComesBack(t *testing.T) {
	r := run(t, newFakeAPI(t), nil)
	r.await("a lease", func() bool { return r.lease != nil })
	r.mu.Lock()
	r.lease = nil
	r.mu.Unlock()
	r.await("it again", func() bool { return r.lease != nil && r.lease.Spec.HolderIdentity == "n1" })
	if log := r.log.String(); strings.Contains(log, "WARN") {
		t.Error(log)
	}
}

// TestNodeThatWasDeletedIsNoticedByItsMirrors looks at the Node once an hour: it is the refused mirror that tells.
func TestNodeThatWasDeletedIsNoticedByItsMirrors(t *testing.T) {
	r := run(t, newFakeAPI(t), func(m *Mirror) { m.c.Rates.Status = time.Hour })
	r.board.set(staticPod("etcd", "h1"))
	r.await("a mirror", r.shown(etcd, corev1.PodRunning))
	r.mu.Lock()
	r.node = nil
	r.drop(etcd) // by the garbage collector, since its owner is gone
	r.mu.Unlock()
	r.await("a mirror of a new node", func() bool { return r.node != nil && r.shown(etcd, corev1.PodRunning)() })
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[etcd].OwnerReferences[0].UID != r.node.UID {
		t.Error("owned by", r.pods[etcd].OwnerReferences[0].UID)
	}
}

func TestNodeIsLeftToOthersToRegister(t *testing.T) {
	f := newFakeAPI(t)
	r := run(t, f, func(m *Mirror) { m.c.Unmanaged = true })
	r.board.set(staticPod("etcd", "h1"))
	r.awaitLog(t, "registerNode is false", 1)
	expect(t, r.takeTrace(), "")
	r.mu.Lock()
	f.node = nodeObject(Config{NodeName: "n1"}, health{}, time.Now())
	f.node.UID = "theirs"
	r.mu.Unlock()
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
}

func TestNamespaceThatComesLaterIsNoticedAtOnce(t *testing.T) {
	missing, quota := fail(http.StatusNotFound, "NotFound", `namespaces "x" not found`), fail(http.StatusForbidden, "Forbidden", "exceeded quota")
	busy := &statusError{Code: 429, RetryAfter: 9 * time.Second}
	for _, tc := range []struct {
		name  string
		times int
		err   error
		want  time.Duration
	}{
		{"a namespace is missing, first", 1, missing, 250 * time.Millisecond},
		{"a namespace is missing, for an hour", 2000, missing, 2 * time.Second},
		{"a quota, first", 1, quota, 250 * time.Millisecond},
		{"a quota, for a while", patience + 3, quota, 2 * time.Second},
		{"a quota, for an hour", 2000, quota, 30 * time.Second},
		{"the server asks for a pause", 1, busy, 9 * time.Second},
		{"the server asks for an hour", 1, &statusError{Code: 503, RetryAfter: time.Hour}, 30 * time.Second},
		{"a webhook does not answer", 1, &lostError{context.DeadlineExceeded}, 30 * time.Second},
	} {
		if got := refusedFor(tc.times, tc.err, usualPace()); got != tc.want {
			t.Errorf("%s: left alone for %s, want %s", tc.name, got, tc.want)
		}
	}
	f := newFakeAPI(t)
	f.absent["kube-system"] = true
	r := run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"))
	expect(t, r.reason(t), `kube-system/etcd-n1: creating the mirror pod: namespaces "kube-system" not found (404)`)
	r.mu.Lock()
	delete(r.absent, "kube-system")
	r.mu.Unlock()
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
	expect(t, r.reason(t), "kube-system/etcd-n1: ")
}

// TestSlowServerIsNoSlowWebhook: over a new connection, what got no answer is asked for at once, and what was refused is
// not.
func TestSlowServerIsNoSlowWebhook(t *testing.T) {
	now, m := time.Now(), newMemory()
	m.refusals["a/slow"], m.refusals["a/refused"] = &refusal{}, &refusal{}
	m.refusals["a/slow"].again("h", &lostError{context.DeadlineExceeded}, now, usualPace())
	m.refusals["a/refused"].again("h", fail(403, "Forbidden", "quota"), now, usualPace())
	r := newReconciler(Config{}, usualPace(), nil, "", m)
	if slow, refused := r.left("a/slow", "h", now), r.left("a/refused", "h", now); slow > 0 || refused <= 0 {
		t.Errorf("left alone for %s and %s", slow, refused)
	}
}

// TestRefusalOutlivesItsConnection: what was told is taken back, also when the API server was away in between.
func TestRefusalOutlivesItsConnection(t *testing.T) {
	f := newFakeAPI(t)
	f.absent["kube-system"] = true
	r := run(t, f, nil)
	r.board.set(staticPod("etcd", "h1"))
	r.reason(t)
	r.stop()
	r.mu.Lock()
	delete(r.absent, "kube-system")
	r.mu.Unlock()
	r.start()
	r.await("the mirror", r.shown(etcd, corev1.PodRunning))
	expect(t, r.reason(t), "kube-system/etcd-n1: ")
}

func TestThresholds(t *testing.T) {
	for _, tc := range []struct {
		text        string
		free, whole uint64
		want        bool
	}{
		{"100Mi", 100 << 20, 1 << 40, false}, {"100Mi", 100<<20 - 1, 1 << 40, true},
		{"10%", 100, 1000, false}, {"10%", 99, 1000, true}, {"0%", 0, 1000, false}, {"1k", 999, 5, true},
	} {
		got, err := parseThreshold(tc.text)
		if err != nil || got.over(tc.free, tc.whole) != tc.want {
			t.Errorf("%s: %d of %d is short: not %v (%v)", tc.text, tc.free, tc.whole, tc.want, err)
		}
	}
	for _, bad := range []string{"", "x", "-1%", "101%", "1Kib", "%"} {
		if _, err := ParseThresholds(map[string]string{"memory.available": bad}); err == nil || !strings.Contains(err.Error(), "memory.available") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for whole, none := range map[string]bool{"100%": false, "0%": true} { // of this very machine
		all := map[string]string{"memory.available": whole, "nodefs.available": whole, "nodefs.inodesFree": whole, "pid.available": whole}
		th, err := ParseThresholds(all)
		if got := th.ReadPressure(t.TempDir()); err != nil || got != (Pressure{!none, !none, !none}) {
			t.Errorf("at %s: %+v (%v)", whole, got, err)
		}
	}
	if p := (Thresholds)(nil).ReadPressure("/nowhere"); p != (Pressure{}) {
		t.Errorf("without thresholds: %+v", p)
	}
}

func TestWhatTheKernelSays(t *testing.T) {
	free, whole, ok := availableMemory("MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    4000 kB\nHugePages_Total:       0\n")
	if free != 4000*1024 || whole != 16000*1024 || !ok {
		t.Error(free, whole, ok)
	}
	running, most, ok := processes("0.1 0.2 0.3 2/345 6789\n", "4194304")
	if running != 345 || most != 4194304 || !ok {
		t.Error(running, most, ok)
	}
	for _, bad := range []string{"", "x", "1 2 3 4 5"} {
		if _, _, ok := availableMemory(bad); ok {
			t.Errorf("memory from %q", bad)
		}
		if _, _, ok := processes(bad, "1"); ok {
			t.Errorf("processes from %q", bad)
		}
	}
}
