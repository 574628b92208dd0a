package mirror

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

const nodeUID types.UID = "node-1-uid"

// staticPod is a pod as the supervisor shows it, running and ready.
func staticPod(name, hash string) *corev1.Pod {
	yes := true
	at := metav1.Unix(1_700_000_000, 0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "kube-system", Name: name + "-n1", UID: types.UID(hash), Labels: map[string]string{"component": name},
			Annotations: map[string]string{manifest.AnnotationConfigHash: hash, manifest.AnnotationConfigSource: "file",
				status.AnnotationState: "Running", status.AnnotationWhy: "all is well", status.AnnotationSource: "/m/" + name + ".yaml",
				status.AnnotationRejected: "it exited", status.AnnotationRejectedLog: "last words"},
		},
		Spec: corev1.PodSpec{NodeName: "n1", HostNetwork: true, Containers: []corev1.Container{{Name: name, Image: "r/" + name + ":1"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Message: "all is well", HostIP: "10.0.0.1", HostIPs: []corev1.HostIP{{IP: "10.0.0.1"}},
			PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}, StartTime: &at,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: name, Image: "r/" + name + ":1", Ready: true, Started: &yes,
				ContainerID: "containerd://c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}}},
		},
	}
}

// mirrorOf is what the API shows of it when all is well.
func mirrorOf(static *corev1.Pod, uid types.UID) *corev1.Pod {
	w := wantedOf(static)
	m := ownedBy(w.pod, "n1", nodeUID).DeepCopy()
	m.UID, m.Status = uid, *static.Status.DeepCopy()
	m.Status.Message = ""
	return m
}

func TestPlan(t *testing.T) {
	now := metav1.Now()
	type world struct {
		static, api *corev1.Pod
		base        *face
	}
	for _, tc := range []struct {
		name   string
		change func(*world)
		want   string
	}{
		{"all is well", func(*world) {}, ""},
		{"nothing in the API", func(w *world) { w.api = nil }, "create kube-system/etcd-n1"},
		{"static pod gone", func(w *world) { w.static = nil }, "remove kube-system/etcd-n1: its static pod is gone"},
		{"static pod edited", func(w *world) { w.static = staticPod("etcd", "h2") },
			"remove kube-system/etcd-n1: it shows another version of its static pod"},
		{"mirror deleted", func(w *world) { w.api.DeletionTimestamp = &now }, "remove kube-system/etcd-n1: it was deleted, its static pod was not"},
		{"node registered again", func(w *world) { w.api.OwnerReferences[0].UID = "old" },
			"remove kube-system/etcd-n1: its owner is not this Node (node-1-uid)"},
		{"no owner", func(w *world) { w.api.OwnerReferences = nil }, "remove kube-system/etcd-n1: its owner is not this Node (node-1-uid)"},
		{"label edited", func(w *world) { w.api.Labels["component"] = "x" }, "remove kube-system/etcd-n1: its label component was edited"},
		{"label removed", func(w *world) { w.api.Labels = nil }, "remove kube-system/etcd-n1: its label component was edited"},
		{"label added by others", func(w *world) { w.api.Labels["team"] = "x" }, ""},
		{"annotation edited", func(w *world) { w.api.Annotations[manifest.AnnotationConfigSource] = "http" },
			"remove kube-system/etcd-n1: its annotation kubernetes.io/config.source was edited"},
		{"first seen at another time", func(w *world) {
			w.static.Annotations[manifest.AnnotationConfigSeen] = "2026-01-01T00:00:00Z"
			w.api.Annotations[manifest.AnnotationConfigSeen] = "2025-01-01T00:00:00Z"
		}, ""},
		{"toleration added", func(w *world) {
			base := faceOf(w.api)
			w.base = &base
			w.api.Spec.Tolerations = append(slices.Clone(w.api.Spec.Tolerations), corev1.Toleration{Key: "x", Operator: corev1.TolerationOpExists})
		}, "remove kube-system/etcd-n1: its spec.tolerations was edited"},
		{"toleration added on admission, before this supervisor was started", func(w *world) {
			w.api.Spec.Tolerations = append(slices.Clone(w.api.Spec.Tolerations), corev1.Toleration{Key: "x", Operator: corev1.TolerationOpExists})
		}, ""},
		{"toleration removed", func(w *world) { w.api.Spec.Tolerations = nil }, "remove kube-system/etcd-n1: its spec.tolerations was edited"},
		{"deadline set", func(w *world) { w.api.Spec.ActiveDeadlineSeconds = ptr.To(int64(5)) },
			"remove kube-system/etcd-n1: its spec.activeDeadlineSeconds was edited"},
		{"deadline edited", func(w *world) {
			w.static.Spec.ActiveDeadlineSeconds, w.api.Spec.ActiveDeadlineSeconds = ptr.To(int64(50)), ptr.To(int64(5))
		}, "remove kube-system/etcd-n1: its spec.activeDeadlineSeconds was edited"},
		{"image edited", func(w *world) { w.api.Spec.Containers[0].Image = "evil" }, "remove kube-system/etcd-n1: its image of container etcd was edited"},
		{"image chosen by a webhook", func(w *world) {
			w.api.Spec.Containers[0].Image = "proxy/etcd:1"
			base := faceOf(w.api)
			w.base = &base
		}, ""},
		{"status differs", func(w *world) { w.static.Status.Phase = corev1.PodPending },
			`report kube-system/etcd-n1 {"metadata":{"uid":"m1"},"status":{"phase":"Pending"}}`},
		{"ending, its mirror there", func(w *world) {
			w.static.DeletionTimestamp, w.static.Annotations = &now, nil
			w.static.Status.Phase = corev1.PodPending
		}, `report kube-system/etcd-n1 {"metadata":{"uid":"m1"},"status":{"phase":"Pending"}}`},
		{"ending, mirror deleted", func(w *world) { w.static.DeletionTimestamp, w.api.DeletionTimestamp = &now, &now }, ""},
		{"ending, no mirror", func(w *world) { w.static.DeletionTimestamp, w.api = &now, nil }, ""},
		{"ending, another version's mirror", func(w *world) { w.static = staticPod("etcd", "h0"); w.static.DeletionTimestamp = &now }, ""},
		{"somebody's pod of the name", func(w *world) { delete(w.api.Annotations, corev1.MirrorPodAnnotationKey) },
			"refuse kube-system/etcd-n1: a pod of this name that is no mirror of a static pod is bound to this node: delete it"},
		{"somebody's pod, on its own", func(w *world) { w.static = nil; w.api.Annotations = nil }, ""},
		{"somebody's pod, deleted, never started", func(w *world) {
			w.static, w.api.Annotations, w.api.DeletionTimestamp, w.api.Status = nil, nil, &now, corev1.PodStatus{}
		}, "remove kube-system/etcd-n1: deleted, and never started here"},
		{"somebody's pod, deleted, with containers", func(w *world) { w.static = nil; w.api.Annotations = nil; w.api.DeletionTimestamp = &now }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := world{static: staticPod("etcd", "h1")}
			w.api = mirrorOf(w.static, "m1")
			tc.change(&w)
			want, have, bases := map[string]wanted{}, map[string]seen{}, map[types.UID]face{}
			if w.static != nil {
				want["kube-system/etcd-n1"] = wantedOf(w.static)
			}
			if w.api != nil {
				have["kube-system/etcd-n1"] = seenOf(w.api)
			}
			if w.base != nil {
				bases["m1"] = *w.base
			}
			got := ""
			for _, a := range plan(nodeUID, want, have, bases) {
				got += a.String()
				if a.patch != nil {
					got += " " + string(a.patch)
				}
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestMirrorIsTheStaticPodWithoutTheLocalView(t *testing.T) {
	static := staticPod("etcd", "h1")
	static.Annotations["user/own"] = "kept"
	m := ownedBy(wantedOf(static).pod, "n1", nodeUID)
	got := string(encode(m.ObjectMeta))
	want := `{"name":"etcd-n1","namespace":"kube-system","labels":{"component":"etcd"},` +
		`"annotations":{"kubernetes.io/config.hash":"h1","kubernetes.io/config.mirror":"h1","kubernetes.io/config.source":"file","user/own":"kept"},` +
		`"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n1","uid":"node-1-uid","controller":true}]}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(static.Annotations) != 8 || len(static.OwnerReferences) != 0 {
		t.Error("the supervisor's pod was changed")
	}
	if len(m.Spec.Tolerations) != 1 {
		t.Errorf("tolerations of a pod that tolerates the taint: %v", m.Spec.Tolerations)
	}
	static.Spec.Tolerations = nil // as of a pod from a URL
	if m := wantedOf(static).pod; len(m.Spec.Tolerations) != 1 || m.Spec.Tolerations[0].Key != TaintKey {
		t.Errorf("the mirror would be evicted from a node with our taint: %v", m.Spec.Tolerations)
	}
}

func TestStatusPatchSaysOnlyWhatChanged(t *testing.T) {
	later := metav1.Unix(1_700_000_900, 0)
	for _, tc := range []struct {
		name   string
		change func(static, api *corev1.PodStatus)
		want   string // of status
	}{
		{"times of a restarted supervisor", func(s, _ *corev1.PodStatus) { s.StartTime = &later; s.Conditions[0].LastTransitionTime = later }, ``},
		{"times of a condition that changed", func(s, _ *corev1.PodStatus) {
			s.Conditions[0].Status, s.Conditions[0].LastTransitionTime, s.Message = corev1.ConditionFalse, later, ""
		}, `{"conditions":[{"type":"Ready","status":"False","lastProbeTime":null,"lastTransitionTime":"2023-11-14T22:28:20Z"}]}`},
		{"why a pod is not ready", func(s, api *corev1.PodStatus) { s.Conditions[0].Status, api.Conditions[0].Status = "False", "False" },
			`{"message":"all is well"}`},
		{"conditions of others", func(_, api *corev1.PodStatus) {
			api.Conditions = append([]corev1.PodCondition{{Type: "DisruptionTarget", Status: "True"}}, api.Conditions...)
		}, ``},
		{"generation that the server observed", func(_, api *corev1.PodStatus) { api.ObservedGeneration = 1; api.Conditions[0].ObservedGeneration = 1 }, ``},
		{"an address less", func(s, api *corev1.PodStatus) { api.PodIPs = append(api.PodIPs, corev1.PodIP{IP: "fd00::1"}) },
			`{"podIPs":[{"$patch":"replace"},{"ip":"10.0.0.1"}]}`},
		{"evicted in the API only", func(_, api *corev1.PodStatus) { api.Reason, api.Phase = "Evicted", corev1.PodFailed },
			`{"phase":"Running","reason":null}`},
		{"no address", func(s, _ *corev1.PodStatus) { s.PodIP, s.PodIPs = "", nil }, `{"podIP":null,"podIPs":null}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			static := staticPod("etcd", "h1")
			api := mirrorOf(static, "m1")
			tc.change(&static.Status, &api.Status)
			want := ""
			if tc.want != "" {
				want = `{"metadata":{"uid":"m1"},"status":` + tc.want + `}`
			}
			if got := string(statusPatch(static.Status, seenOf(api))); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestPauseBetweenTries(t *testing.T) {
	p := usualPace()
	for _, tc := range []struct {
		failures int
		minutes  float64
		want     string
	}{{1, 0, "250ms"}, {200, 0.9, "250ms"}, {1, 2, "500ms"}, {2, 2, "1s"}, {3, 2, "1.5s"}, {5000, 600, "1.5s"}} {
		if got := p.pause(tc.failures, minutes(tc.minutes)).String(); got != tc.want {
			t.Errorf("after %d failures, %v min after the start: %s, want %s", tc.failures, tc.minutes, got, tc.want)
		}
	}
}
