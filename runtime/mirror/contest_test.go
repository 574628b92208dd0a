package mirror

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestContest lets one mirror be ruined at the given pace and writes down when it is held, and for how long.
func TestContest(t *testing.T) {
	for _, tc := range []struct {
		name  string
		every time.Duration // it is ruined after it was repaired; at once: 0
		times int
		want  string
	}{
		{"a script deletes it now and then", 10 * time.Second, 50, ""},
		{"a few times in a row", time.Second, flaps - 1, ""},
		{"somebody insists", 0, flaps + 6, "8: 30s, 9: 1m0s, 10: 2m0s, 11: 4m0s, 12: 8m0s, 13: 10m0s, 14: 10m0s"},
		{"somebody insists within some seconds", 5 * time.Second, flaps + 2, "8: 30s, 9: 1m0s, 10: 2m0s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now, c := time.Unix(1_700_000_000, 0), contest{}
			var held []string
			for i := range tc.times + 1 {
				c.repaired("h1", now)
				if left := c.left("h1", now); left > 0 {
					held = append(held, fmt.Sprintf("%d: %s", i, left))
					now = now.Add(left)
				}
				now = now.Add(tc.every)
			}
			expect(t, strings.Join(held, ", "), tc.want)
		})
	}
	t.Run("another version is another matter", func(t *testing.T) {
		now, c := time.Unix(1_700_000_000, 0), contest{}
		for range flaps + 1 {
			c.repaired("h1", now)
		}
		if c.left("h1", now) <= 0 || c.left("h2", now) != 0 {
			t.Error(c.left("h1", now), c.left("h2", now))
		}
	})
	t.Run("a mirror that stood for a minute begins anew", func(t *testing.T) {
		now, c := time.Unix(1_700_000_000, 0), contest{}
		for range flaps + 1 {
			c.repaired("h1", now)
		}
		now = now.Add(leastHold + flapsWithin + time.Second)
		c.repaired("h1", now)
		if left := c.left("h1", now); left > 0 {
			t.Errorf("held for %s", left)
		}
	})
}

// clock runs with the machine's, and can be put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }
func withClock(c *clock) func(m *Mirror) { return func(m *Mirror) { m.c.Now = c.now } }
func (r *running) reason(t *testing.T) string {
	t.Helper()
	select {
	case reason := <-r.refused:
		return reason
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing was told; requests so far: %v", r.takeAll())
		return ""
	}
}

func TestFightsOverAMirrorEnd(t *testing.T) {
	ours := func(p *corev1.Pod) bool { return p.Annotations[corev1.MirrorPodAnnotationKey] == "h1" }
	for _, tc := range []struct {
		name, reason string
		rival        func(*fakeAPI, *corev1.Pod) // at each creation; the lock is held
	}{
		{"a kubelet writes its own version over ours", "it shows another version of its static pod", func(f *fakeAPI, p *corev1.Pod) {
			if ours(p) {
				p.Annotations[corev1.MirrorPodAnnotationKey] = "a kubelet's"
				f.store(etcd, p)
			}
		}},
		{"a kubelet removes it as an orphan", "somebody deleted it", func(f *fakeAPI, p *corev1.Pod) { f.drop(etcd) }},
		{"a controller edits a label", "its label component was edited", func(f *fakeAPI, p *corev1.Pod) {
			p.Labels["component"] = "x"
			f.store(etcd, p)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, c := newFakeAPI(t), &clock{}
			fighting := true
			f.hurry = func(p *corev1.Pod) {
				if fighting && p.Name == "etcd-n1" {
					tc.rival(f, p)
				}
			}
			r := run(t, f, withClock(c))
			r.board.set(staticPod("etcd", "h1"))
			expect(t, r.reason(t), fmt.Sprintf("kube-system/etcd-n1: the mirror pod had to be repaired 9 times within 1m0s, last because %s; "+
				"it is left alone for 30s: does a kubelet run under this node's name?", tc.reason))
			const create = "POST /api/v1/namespaces/kube-system/pods"
			if n := r.takeAll()[create]; n != flaps+1 {
				t.Errorf("%d creations", n)
			}
			r.board.set(staticPod("etcd", "h1"), staticPod("kube-apiserver", "h2")) // the others go on
			r.await("another pod's mirror", r.shown("kube-system/kube-apiserver-n1", corev1.PodRunning))
			r.takeAll()

			c.forward(leastHold)
			r.board.set(staticPod("etcd", "h1"))
			r.await("one more try", func() bool { return r.all[create] == 1 })
			r.board.set(staticPod("etcd", "h1"), staticPod("kube-scheduler", "h3"))
			r.await("another pod's mirror", r.shown("kube-system/kube-scheduler-n1", corev1.PodRunning))
			if n := r.takeAll()[create]; n != 2 {
				t.Errorf("%d creations after the first hold, want one of each pod", n)
			}

			r.mu.Lock()
			fighting = false
			r.mu.Unlock()
			c.forward(2 * leastHold)
			r.board.set(staticPod("etcd", "h1"))
			r.await("the mirror", func() bool { return r.shown(etcd, corev1.PodRunning)() && ours(r.pods[etcd]) })
			c.forward(4*leastHold + flapsWithin + time.Second) // the third hold, and then peace
			r.board.set(staticPod("etcd", "h1"))
			expect(t, r.reason(t), "kube-system/etcd-n1: ")
		})
	}
}

func TestFightOverAPodThatIsNotWantedEnds(t *testing.T) {
	f := newFakeAPI(t)
	r := run(t, f, nil)
	r.board.set()
	for range flaps + 2 {
		r.await("nothing of it", func() bool { return r.pods[etcd] == nil && r.node != nil })
		r.mu.Lock()
		f.store(etcd, mirrorOf(staticPod("etcd", "a kubelet's"), "k"))
		r.mu.Unlock()
		select {
		case reason := <-r.refused:
			expect(t, reason, "kube-system/etcd-n1: the mirror pod had to be repaired 9 times within 1m0s, last because its static pod is gone; "+
				"it is left alone for 30s: does a kubelet run under this node's name?")
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Error("nobody is told")
}

func TestLeaseThatAnotherProgramRenewsIsLeftToIt(t *testing.T) {
	f, c := newFakeAPI(t), &clock{}
	r := run(t, f, withClock(c))
	renew := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		l := *r.lease
		l.ResourceVersion, l.Spec.RenewTime.Time = f.next(), l.Spec.RenewTime.Add(time.Second)
		f.lease = &l
		f.changed.Broadcast()
	}
	r.await("our lease", func() bool { return r.lease != nil })
	const write, status = "PUT " + leasesPath + "/n1", "PATCH /api/v1/nodes/n1/status"
	told := ""
	for told == "" { // a kubelet that renews as often as we do
		r.takeAll()
		renew()
		r.await("our answer", func() bool { return r.all[write] > 0 || len(r.refused) > 0 })
		select {
		case told = <-r.refused:
		default:
		}
	}
	expect(t, told, ": another program renews this node's lease and reports its status: does a kubelet run under this node's name? Its Node and Lease are left to it")
	r.takeAll()
	r.mu.Lock()
	theirs := r.node.DeepCopy()
	theirs.Status.Conditions[3].Reason = "KubeletReady"
	f.node = theirs
	r.mu.Unlock()
	for range 3 {
		renew()
		r.await("a look at it", func() bool { return r.all["GET "+leasesPath+"/n1"] > 0 && r.all["GET /api/v1/nodes/n1"] > 0 })
		if all := r.takeAll(); all[write]+all[status] > 0 {
			t.Errorf("still fighting: %v", all)
		}
	}
	c.forward(time.Minute) // the other one is gone
	expect(t, r.reason(t), ": ")
	r.await("the Node's status to be ours again", func() bool { return r.node.Status.Conditions[3].Reason == readyReason })
}
