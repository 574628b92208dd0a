package supervisor

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestLooksAreShared asks for fifty looks at once, twice, while the runtime is slow.
func TestLooksAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		snap := manyPods(t, w, 50)
		w.sources[0].next <- snap
		synctest.Wait()
		w.end()

		l := &looks{rt: w.rec}
		var group sync.WaitGroup
		ask := func() {
			for _, p := range snap.Pods {
				group.Go(func() {
					all := l.of(t.Context(), p.FullName())
					if all.err != nil || len(all.sandboxes) != 1 || len(all.containers) != 1 || fullNameOf(all.containers[0].GetLabels()) != p.FullName() {
						t.Errorf("%s: %d sandboxes, %d containers, %v", p.FullName(), len(all.sandboxes), len(all.containers), all.err)
					}
				})
			}
			synctest.Wait()
		}
		w.rt.ForgetCalls()
		release := w.rt.Hang("ListPodSandbox")
		ask() // two alone, and the rest together
		ask() // too late for any of those: all together
		release()
		group.Wait()
		if n := len(w.rt.Calls("ListPodSandbox")); n != loneLooks+2 {
			t.Errorf("%d listings for a hundred looks, want %d", n, loneLooks+2)
		}
	})
}

// TestLookOutlivesItsMaker ends the context of the one who makes the shared listing: the others get one all the same.
func TestLookOutlivesItsMaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		l := &looks{rt: w.rec, lone: loneLooks}
		w.rt.Hang("ListPodSandbox")
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		look := func(ctx context.Context, want error) {
			group.Go(func() {
				if all := l.of(ctx, "a/b"); !errors.Is(all.err, want) {
					t.Errorf("a look ended with %v, want %v", all.err, want)
				}
			})
			synctest.Wait()
		}
		look(t.Context(), nil)      // under way
		look(ctx, context.Canceled) // makes the next one
		look(t.Context(), nil)      // shares it
		look(t.Context(), nil)
		cancel()
		w.rt.Heal()
		group.Wait()
		if l.next != nil || l.under != nil {
			t.Error("a listing is left over")
		}
	})
}

// TestStrangersAreListedOnce counts the listings that hints about unknown things cause.
func TestStrangersAreListedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.begin()
		snap := manyPods(t, w, 1)
		w.sources[0].next <- snap
		synctest.Wait()
		w.rt.ForgetCalls()
		for range 100 {
			w.hints <- Hint{ID: "somebody else's"}
		}
		time.Sleep(doubtFor)
		synctest.Wait()
		if n := len(w.rt.Calls("ListPodSandbox")); n != 1 {
			t.Errorf("%d listings, want 1", n)
		}
		w.end()
	})
}
