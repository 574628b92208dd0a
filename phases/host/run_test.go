package host

import (
	"cmp"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// ran returns the pod as the version uid, with a container of that id.
func ran(p corev1.Pod, uid, container string) corev1.Pod {
	for i := range p.Status.ContainerStatuses {
		p.Status.ContainerStatuses[i].ContainerID = "containerd://" + container
	}
	return of([]corev1.Pod{p}, "kube-apiserver", uid+"/hash", "", "")[0]
}

// givenUp returns the pod as one whose version was given up.
func givenUp(p corev1.Pod, version, reason string) corev1.Pod {
	p.Annotations = maps.Clone(p.Annotations)
	p.Annotations[annotationRejected], p.Annotations[annotationRejectedVersion] = reason, version+"/hash"
	return p
}

// await waits for the API server alone and returns how that ended, and when.
func await(t *testing.T, w Wait, build func() []step) (took time.Duration, err error) {
	t.Helper()
	w.Namespace, w.NodeName, w.Deadline, w.Pods = "kube-system", "node-1", time.Minute, []string{"kube-apiserver"}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err = waitReady(t.Context(), w, &script{steps: build()}, func(Progress) {})
		took = time.Since(began)
	})
	return took, err
}

// TestWaitForARestart: the readiness of the run before is not that of the next.
func TestWaitForARestart(t *testing.T) {
	former := Wait{Former: map[string]Run{"kube-apiserver": {UID: "u1", Containers: []string{"containerd://a"}}}}
	took, err := await(t, former, func() []step {
		stopped := ran(pod("kube-apiserver", "exited 137 60 1"), "u1", "a")
		return []step{
			{pods: []corev1.Pod{ran(pod("kube-apiserver", "ready"), "u1", "a")}},
			{after: time.Second, pods: []corev1.Pod{stopped}},
			{after: time.Second, pods: []corev1.Pod{ran(pod("kube-apiserver", "running"), "u1", "b")}},
			{after: time.Second, pods: []corev1.Pod{ran(pod("kube-apiserver", "ready"), "u1", "b")}},
		}
	})
	must(t, err)
	if took != 3*time.Second {
		t.Errorf("took %s", took)
	}
	for name, next := range map[string]corev1.Pod{
		"another version":                 ran(pod("kube-apiserver", "ready"), "u2", "a"),
		"though a newer one was given up": givenUp(ran(pod("kube-apiserver", "ready"), "u1", "b"), "u9", "it exited"),
	} {
		if took, err := await(t, former, func() []step { return []step{{pods: []corev1.Pod{next}}} }); err != nil || took != 0 {
			t.Errorf("%s: %v after %s", name, err, took)
		}
	}
	_, err = await(t, former, func() []step { return []step{{pods: []corev1.Pod{ran(pod("kube-apiserver", "ready"), "u1", "a")}}} })
	if want := "kube-apiserver not ready after 1m0s:\n  kube-apiserver: it has not been restarted yet"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestWaitForAVersion ends with that version, or with the one that the supervisor has returned to.
func TestWaitForAVersion(t *testing.T) {
	next := Wait{Versions: map[string]string{"kube-apiserver": "new/hash"}, Verdict: true}
	old, taken := ran(pod("kube-apiserver", "ready"), "old", "a"), ran(pod("kube-apiserver", "ready"), "new", "b")
	stale := givenUp(old, "older", "it exited long ago")
	bad, back := givenUp(ran(pod("kube-apiserver", "running"), "old", "c"), "new", "it exited 3 times"), givenUp(old, "new", "it exited 3 times")
	loops := func(n int) (steps []step) {
		for i := range n {
			steps = append(steps, step{after: time.Second, pods: []corev1.Pod{ran(pod("kube-apiserver", "exited 1 0 "+string(rune('1'+i))), "new", "x")}})
		}
		return steps
	}
	for _, tc := range []struct {
		name  string
		steps func() []step
		took  time.Duration
		err   string // its beginning
		up    *NotReady
	}{
		{"it is taken", func() []step {
			return []step{{pods: []corev1.Pod{old}}, {after: time.Second, pods: []corev1.Pod{taken}}}
		}, time.Second, "", nil},
		{"an older one was given up before", func() []step {
			return []step{{pods: []corev1.Pod{stale}}, {after: 5 * time.Second, pods: []corev1.Pod{taken}}}
		}, 5 * time.Second, "", nil},
		{"it is given up, and the one before comes back", func() []step {
			return []step{{pods: []corev1.Pod{bad}}, {after: time.Second, pods: []corev1.Pod{back}}}
		}, time.Second, "the new version of kube-apiserver was given up: it exited 3 times", &NotReady{GivenUp: true, Pod: "kube-apiserver", Recovered: true}},
		{"it is given up, and the one before does not come back", func() []step { return []step{{pods: []corev1.Pod{bad}}} },
			time.Minute, "the new version of kube-apiserver was given up", &NotReady{GivenUp: true, Pod: "kube-apiserver"}},
		{"it loops, and may still be given up", func() []step { return append(loops(3), step{after: time.Second, pods: []corev1.Pod{back}}) },
			4 * time.Second, "the new version of kube-apiserver was given up", &NotReady{GivenUp: true, Pod: "kube-apiserver", Recovered: true}},
		{"it loops, and there is none before", func() []step { return loops(4) }, 4 * time.Second, "kube-apiserver cannot start", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took, err := await(t, next, tc.steps)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)) {
				t.Errorf("got %v", err)
			}
			if took < tc.took || took > tc.took+time.Second/2 {
				t.Errorf("took %s", took)
			}
			var up *NotReady
			errors.As(err, &up)
			if want := cmp.Or(tc.up, &NotReady{}); up != nil && (up.GivenUp != want.GivenUp || up.Recovered != want.Recovered) {
				t.Errorf("got %+v, want %+v", up, want)
			}
		})
	}
}
