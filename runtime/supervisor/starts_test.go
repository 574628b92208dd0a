package supervisor

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// TestWhatIsMeasured checks what Config.Observe and Config.Started are told: the time from a manifest to its running
// containers, once for each version, and not of a pod that was found running.
func TestWhatIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		deliver := func(version string, options ...string) {
			p, err := w.parse("etcd", version, options)
			if err != nil {
				t.Fatal(err)
			}
			w.sources[0].last = &manifest.Snapshot{Pods: []*manifest.StaticPod{p}}
			w.sources[0].next <- *w.sources[0].last
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		w.takes["post-start"] = 3 * time.Second
		w.rt.Fail("RunPodSandbox", errors.New("not now"), 1)
		deliver("v1", "containers=a,b", "post-start")
		w.rt.Exit("a", 1)
		synctest.Wait()
		w.rt.StopTakes("a", 2*time.Second, 0)
		deliver("v2", "containers=a")
		w.end()
		w.begin()
		time.Sleep(time.Minute)
		synctest.Wait()
		w.end()

		want := []time.Duration{firstRetry + 3*time.Second, 2 * time.Second} // b starts when a's hook has ended
		if !slices.Equal(w.starts, want) {
			t.Errorf("starts took %v, want %v", w.starts, want)
		}
		if n := w.observed[lifecycle.RunSandbox]; n != [2]int{2, 1} {
			t.Errorf("%d sandboxes were run and %d failed, want 2 and 1", n[0], n[1])
		}
		if n := w.observed[lifecycle.StartContainer]; n != [2]int{4, 0} {
			t.Errorf("%d containers were started and %d failed, want 4 and 0", n[0], n[1])
		}
	})
}

// TestPodDoesNotWaitForItsClass holds up the cgroups of the classes: the sandbox of a new pod is made meanwhile.
func TestPodDoesNotWaitForItsClass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		held := make(chan struct{})
		w.cgroups.held = map[string]chan struct{}{}
		for _, path := range podspec.QOSCgroups(w.node) {
			w.cgroups.held[path] = held
		}
		w.begin()
		w.sources[0].next <- manyPods(t, w, 1)
		synctest.Wait()
		if n := len(w.rt.Calls("RunPodSandbox")); n != 1 {
			t.Errorf("%d sandboxes while the cgroups of the classes are made, want 1", n)
		}
		close(held)
		synctest.Wait()
		if n := len(w.rt.Calls("StartContainer")); n != 1 {
			t.Errorf("%d containers once they are made, want 1", n)
		}
		w.end()
	})
}
