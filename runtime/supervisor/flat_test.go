package supervisor

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// TestStaysFlat edits a pod a thousand times, and now and then restarts it, lets containers crash, adds and removes pods:
// neither goroutines nor memory grow.
func TestStaysFlat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		// Some hundred edits fill what has a limit, such as the log of events.
		w.edits(0, 300)
		goroutines, heap := usage()
		w.edits(300, 1300)
		after, heapAfter := usage()
		if after != goroutines {
			t.Errorf("%d goroutines became %d", goroutines, after)
		}
		if heapAfter > heap+1<<20 {
			t.Errorf("%d KiB of heap became %d KiB", heap>>10, heapAfter>>10)
		}
		r := w.s.roster
		if len(r.pods) != 3 || len(r.owner) > 20 || len(r.departed) > 100 {
			t.Errorf("the roster has %d pods, %d owners and %d departed", len(r.pods), len(r.owner), len(r.departed))
		}
		e := r.worker("kube-system/edited-n1")
		if len(e.asked) > 1 || len(e.exits) > 0 || len(e.preStopped) > 1 || len(e.reserved) > 0 || len(e.images) > 1 {
			t.Errorf("the worker of the edited pod keeps %v, %v, %v, %v, %d images", e.asked, e.exits, e.preStopped, e.reserved, len(e.images))
		}
		w.end()
	})
}

func usage() (goroutines int, heap uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// edits delivers numbered versions, every twentieth for long enough to be found good.
func (w *world) edits(from, to int) {
	w.t.Helper()
	for i := from; i < to; i++ {
		edited, rest := []string{"edited", fmt.Sprint("v", i), "probe", "pre-stop", "watch=/etc/pki"}, time.Second
		if i%20 == 19 {
			edited, rest = append(edited, "post-start"), time.Minute
		}
		var snap manifest.Snapshot
		for _, options := range [][]string{edited, {"steady", "v1", "containers=a,b", "liveness"}, {fmt.Sprint("passing-", i/10), "v1"}} {
			p, err := w.parse(options[0], options[1], options[2:])
			if err != nil {
				w.t.Fatal(err)
			}
			snap.Pods = append(snap.Pods, p)
		}
		w.sources[0].next <- snap
		time.Sleep(rest)
		synctest.Wait()
		if rest > time.Second {
			w.rt.Exit("a", 1)
			if err := w.s.Restart("kube-system/edited-n1", "why not"); err != nil {
				w.t.Fatal(err)
			}
			time.Sleep(rest)
			synctest.Wait()
		}
		w.rec.forget()
		w.rt.ForgetCalls()
		w.log.Reset()
	}
}
