package host

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNarratorTellsWhatLiveWouldDo(t *testing.T) {
	var told []string
	report := func(p Progress) { told = append(told, p.Text) }
	n := NewNarrator()
	must(t, n.EnsureRuntime(t.Context(), Runtime{Own: true, Socket: "/run/slipway/containerd.sock"}, report))
	must(t, n.EnsureRuntime(t.Context(), Runtime{Socket: "/run/crio.sock"}, report))
	must(t, n.EnsureImages(t.Context(), Images{Refs: []string{"r/a:1"}, Archives: "/images", Pull: true}, report))
	must(t, n.EnsureImages(t.Context(), Images{Refs: []string{"r/a:1"}, Archives: "/images"}, report))
	must(t, n.EnsureSupervisor(t.Context(), Supervisor{KubeletConfig: "/c.yaml", NodeName: "n", Instance: "b", Runtime: "unix:///s"}, report))
	must(t, n.WaitReady(t.Context(), Wait{Pods: []string{"etcd", "kube-apiserver"}, Deadline: 4 * time.Minute}, report))
	want := []string{
		"would start containerd at /run/slipway/containerd.sock, unless it runs",
		"would use the container runtime at /run/crio.sock",
		"would take r/a:1 from the store, archives in /images or the registry",
		"would take r/a:1 from the store, archives in /images",
		"would start the supervisor: slipway supervise --config /c.yaml --node-name n --cri-socket unix:///s --instance b",
		"would wait up to 4m0s for etcd, kube-apiserver",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told differs (-want +got):\n%s", diff)
	}
	if _, err := n.Inspect(t.Context(), Query{}); !errors.Is(err, ErrNotInspected) {
		t.Errorf("inspected: %v", err)
	}
}
