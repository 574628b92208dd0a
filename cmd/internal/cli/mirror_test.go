package cli

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/slipway-k8s/slipway/runtime/event"
	"github.com/slipway-k8s/slipway/runtime/mirror"
	"github.com/slipway-k8s/slipway/runtime/status"
)

func TestRatesOfAKubeletConfiguration(t *testing.T) {
	for _, tc := range []struct {
		name string
		k    kubeletv1beta1.KubeletConfiguration
		want mirror.Rates
	}{
		{"nothing said", kubeletv1beta1.KubeletConfiguration{}, mirror.Rates{}},
		{"everything said", kubeletv1beta1.KubeletConfiguration{
			NodeStatusUpdateFrequency: metav1.Duration{Duration: time.Second}, NodeStatusReportFrequency: metav1.Duration{Duration: time.Minute},
			NodeLeaseDurationSeconds: 20, EventRecordQPS: ptr.To[int32](5), EventBurst: 7,
		}, mirror.Rates{Status: time.Second, Report: time.Minute, Lease: 20 * time.Second, QPS: 5, Burst: 7}},
		{"no limit of events", kubeletv1beta1.KubeletConfiguration{EventRecordQPS: ptr.To[int32](0)}, mirror.Rates{QPS: -1}},
	} {
		if got := ratesOf(&tc.k); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

func TestRefusedMirrorIsAnEvent(t *testing.T) {
	log := event.NewLog(time.Now)
	m := mirrored{events: log, board: status.NewBoard()}
	m.refused("kube-system/etcd-n1", "exceeded quota")
	m.refused("kube-system/etcd-n1", "")
	m.refused("", "another program renews this node's lease")
	all, _ := log.Since(0)
	want := []event.Event{
		{Pod: "kube-system/etcd-n1", Type: "Warning", Reason: "FailedMirror", Message: "exceeded quota"},
		{Pod: "kube-system/etcd-n1", Type: "Normal", Reason: "MirrorShown", Message: "the Kubernetes API shows this pod now"},
		{Type: "Warning", Reason: "FailedMirror", Message: "another program renews this node's lease"},
	}
	if len(all) != len(want) {
		t.Fatalf("%+v", all)
	}
	for i, got := range all {
		got.Number, got.Count, got.First, got.Last = 0, 0, time.Time{}, time.Time{}
		if got != want[i] {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
	mirrored{board: status.NewBoard()}.refused("kube-system/etcd-n1", "nobody records it")
}
