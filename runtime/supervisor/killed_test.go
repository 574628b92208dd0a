package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-k8s/slipway/runtime/garbage"
	"github.com/slipway-k8s/slipway/runtime/garbage/marker"
	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// TestKilledAtAnyInstant ends the supervisor after each of the calls by which it starts, replaces, restarts and removes
// a pod with hooks, and lets another one go on: the outcome is the same, and nothing is left behind.
func TestKilledAtAnyInstant(t *testing.T) {
	for n, calls := 1, 1; n <= calls; n++ {
		t.Run(fmt.Sprint("call ", n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { calls = killedAfter(t, n) })
		})
	}
}

// killedAfter ends the first supervisor after n calls with an effect, and returns how many there were.
func killedAfter(t *testing.T, n int) (calls int) {
	w := newWorld(t)
	w.takes["post-start"], w.takes["pre-stop"] = time.Second, time.Second
	w.rec.onCall = func() {
		if calls++; calls == n {
			w.cancel()
		}
	}
	w.begin()
	deliver := func(options ...string) {
		var snap manifest.Snapshot
		if len(options) > 0 {
			p, err := w.parse(options[0], options[1], options[2:])
			if err != nil {
				t.Fatal(err)
			}
			snap.Pods = append(snap.Pods, p)
		}
		w.sources[0].last = &snap
		w.sources[0].next <- snap
	}
	settle := func(sandboxes, containers int, what string) {
		t.Helper()
		for range 2 {
			time.Sleep(30 * time.Second)
			synctest.Wait()
			w.revive()
		}
		all := w.inventory()
		if s, c := strings.Count(all, "SANDBOX_READY"), strings.Count(all, "CONTAINER_RUNNING"); s != sandboxes || c != containers {
			t.Errorf("%s: %d sandboxes are ready and %d containers run, want %d and %d:\n%s", what, s, c, sandboxes, containers, all)
		}
	}
	deliver("etcd", "v1", "containers=a,b", "post-start", "pre-stop", "grace=10")
	settle(1, 2, "started")
	w.rt.Exit("a", 1)
	settle(1, 2, "restarted")
	w.rt.KillSandbox("etcd-" + nodeName)
	settle(1, 2, "sandbox made anew")
	if all := w.inventory(); !regexp.MustCompile(`a v1 #[2-9] .* CONTAINER_RUNNING`).MatchString(all) {
		t.Errorf("the restart count did not go on:\n%s", all)
	}
	deliver("etcd", "v2", "containers=a", "pre-stop")
	settle(1, 1, "replaced")
	deliver()
	settle(0, 0, "removed")
	w.end()
	if all := w.inventory(); all != "" {
		t.Errorf("left in the runtime:\n%s", all)
	}
	w.collectGarbage()
	if left := w.leftovers(); len(left) > 0 {
		t.Errorf("left on the host, and nothing tells whose it is: %q", left)
	}
	return calls
}

// collectGarbage removes what is left of pods of which the supervisor forgot, by the markers in their directories.
func (w *world) collectGarbage() {
	dirs, err := filepath.Glob(filepath.Join(w.node.KubeletRoot, "pods", "*", marker.Name))
	if err != nil {
		w.t.Fatal(err)
	}
	remover := garbage.Remover{Node: w.node, Cgroups: w.cgroups}
	for _, path := range dirs {
		data, err := os.ReadFile(path)
		if err != nil {
			w.t.Fatal(err)
		}
		pod, err := marker.Decode(data)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := remover.Remove(w.t.Context(), pod); err != nil {
			w.t.Error(err)
		}
	}
}

// revive starts another supervisor if the last one was killed.
func (w *world) revive() {
	select {
	case err := <-w.done:
		if err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.begin()
	default:
	}
}
