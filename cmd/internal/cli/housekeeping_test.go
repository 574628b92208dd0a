package cli

import (
	"testing"

	"github.com/slipway-k8s/slipway/runtime/status"
)

// TestRunningLogs: what runs now is told, and nothing is looked up while the board stays as it is.
func TestRunningLogs(t *testing.T) {
	board := status.NewBoard()
	logs := runningLogs{board: board, dir: "/var/log/pods"}
	if got := logs.now(); len(got) != 0 {
		t.Errorf("of an empty board: %v", got)
	}
	pod := staticPod(t, "kube-system", "etcd", oneContainer)
	board.Publish(viewOf(pod, runs("main", 0)))
	first := logs.now()
	if len(first) != 1 {
		t.Fatalf("of one container: %v", first)
	}
	if n := testing.AllocsPerRun(10, func() { logs.now() }); n != 0 {
		t.Errorf("a look at a board that has not changed allocates %v times", n)
	}
	board.Publish(viewOf(staticPod(t, "kube-system", "kube-scheduler", oneContainer), runs("main", 0)))
	board.Remove("kube-system/etcd-n1")
	for id, path := range logs.now() {
		if first[id] == path {
			t.Errorf("after the change it still has %s", path)
		}
	}
	if len(logs.now()) != 1 {
		t.Errorf("after the change: %v", logs.now())
	}
}
