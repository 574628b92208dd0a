package mirror

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// settledNode is a reconciler of so many pods that the API shows as they are.
func settledNode(pods int) (*reconciler, *corev1.PodList) {
	r := newReconciler(Config{NodeName: "n1", Now: time.Now}, usualPace(), nil, nodeUID, newMemory())
	r.have = map[string]seen{}
	list := &corev1.PodList{}
	for i := range pods {
		p := staticPod(fmt.Sprint("p", i), "h1")
		list.Items = append(list.Items, *p)
		m := mirrorOf(p, types.UID(fmt.Sprint("m", i)))
		m.ResourceVersion = fmt.Sprint(i + 1)
		r.have["kube-system/"+p.Name] = seenOf(m)
	}
	r.due(list)
	return r, list
}

func TestOnlyWhatChangedIsComparedAgain(t *testing.T) {
	r, list := settledNode(3)
	compared := func(list *corev1.PodList) string {
		want, have, _ := r.unsettled(list)
		return fmt.Sprint(len(want), len(have))
	}
	expect(t, compared(list), "0 0")
	next := &corev1.PodList{Items: append([]corev1.Pod(nil), list.Items...)}
	next.Items[1] = *staticPod("p1", "h1") // said anew, in the same words
	expect(t, compared(next), "0 0")
	next.Items[1].Status.Phase = corev1.PodFailed
	expect(t, compared(next), "1 1")
	h := r.have["kube-system/p2-n1"]
	h.version++
	r.have["kube-system/p2-n1"] = h
	expect(t, compared(next), "2 2")
	expect(t, compared(&corev1.PodList{Items: next.Items[:1]}), "0 2")
}

// BenchmarkOneOf200PodsHasChanged is what each change of one pod's status costs on a full node, requests aside.
func BenchmarkOneOf200PodsHasChanged(b *testing.B) {
	r, list := settledNode(200)
	for i := 0; b.Loop(); i++ {
		list.Items[7].Status.Message = fmt.Sprint(i)
		r.due(list)
	}
}
