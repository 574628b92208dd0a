package watched

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const etcd = "kube-system/etcd-node"

// ear notes which pods were told of, and when.
type ear struct {
	mu    sync.Mutex
	start time.Time
	heard []string
	log   bytes.Buffer
}

func (e *ear) hear(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, name)
}

func (e *ear) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	heard := e.heard
	e.heard = nil
	return heard
}

func (e *ear) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.log.Write(p)
}

// deaf returns a Watcher that the kernel tells nothing, so that time can be the tests'.
func deaf(t *testing.T) (*Watcher, *ear) {
	e := &ear{start: time.Now()}
	w := NewWatcher(e.hear, slog.New(slog.NewTextHandler(e, nil)))
	w.news = func() (notices, error) { return notices{}, errors.New("too many instances") }
	t.Cleanup(w.Close)
	return w, e
}

func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func current(t *testing.T, w *Watcher, name string) string {
	t.Helper()
	f, err := w.Fingerprint(name)
	need(t, err)
	return f
}

// state is what the goroutine, which rests, has seen. It takes the lock before it goes on.
func state(w *Watcher) (pending, seen []entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pods[etcd].pending, w.pods[etcd].seen
}

// expect says how often a pod was told of since the last time, and whether its fingerprint is that of its files.
func expect(t *testing.T, when string, w *Watcher, e *ear, times int, upToDate bool, paths ...string) {
	t.Helper()
	if heard := e.take(); len(heard) != times || slices.ContainsFunc(heard, func(s string) bool { return s != etcd }) {
		t.Errorf("%s: told of %q, want %d times", when, heard, times)
	}
	if got := current(t, w, etcd) == fingerprint(t, paths...); got != upToDate {
		t.Errorf("%s: the fingerprint is that of the files: %t, want %t", when, got, upToDate)
	}
}

func TestAChangeCountsOnceTheFilesRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		crt, key := dir+"/apiserver.crt", dir+"/apiserver.key"
		w, e := deaf(t)
		w.Watch(etcd, []string{crt, key})
		expect(t, "at once", w, e, 0, true, crt, key)
		after(5 * time.Second)
		put(t, crt, "new")
		after(5500 * time.Millisecond) // it was seen half a second ago
		expect(t, "half of it", w, e, 0, false, crt, key)
		put(t, key, "new")
		after(time.Second)
		expect(t, "the other half, a second ago", w, e, 0, false, crt, key)
		after(500 * time.Millisecond)
		expect(t, "at rest", w, e, 1, true, crt, key)
		after(time.Hour)
		expect(t, "an hour later", w, e, 0, true, crt, key)
	})
}

func TestFilesThatNeverRestNeverCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		for i := range 100 {
			put(t, dir+"/apiserver.crt", strings.Repeat("x", i))
			after(500 * time.Millisecond)
		}
		expect(t, "changing", w, e, 0, false, dir)
		after(2 * time.Second)
		expect(t, "at rest", w, e, 1, true, dir)
	})
}

func TestAFileThatGoesIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		crt := dir + "/apiserver.crt"
		w, e := deaf(t)
		w.Watch(etcd, []string{crt})
		after(time.Second)
		need(t, os.Remove(crt))
		after(15 * time.Second) // it was missed 6 s ago
		expect(t, "gone", w, e, 0, false, crt)
		put(t, crt, "new")
		after(1500 * time.Millisecond)
		expect(t, "replaced", w, e, 1, true, crt)

		after(10 * time.Second)
		need(t, os.Remove(crt))
		after(30 * time.Second)
		expect(t, "gone for good", w, e, 1, true, crt)
	})
}

func TestWhatMakesNoDifference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		for name, change := range map[string]func(){
			"a touch":        func() { need(t, os.Chtimes(dir+"/apiserver.crt", time.Unix(1, 0), time.Unix(1, 0))) },
			"the same again": func() { put(t, dir+"/apiserver.crt", "apiserver.crt") },
			"two levels":     func() { put(t, dir+"/etcd/server.crt", "x") },
			"there and back": func() {
				need(t, os.Rename(dir+"/apiserver.crt", dir+"/b"))
				need(t, os.Rename(dir+"/b", dir+"/apiserver.crt"))
			},
		} {
			change()
			after(30 * time.Second)
			expect(t, name, w, e, 0, true, dir)
		}
	})
}

func TestRestIsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		resting := func(when string) {
			t.Helper()
			after(9 * time.Second) // between two checks of all
			now, err := survey([]string{dir})
			need(t, err)
			if pending, seen := state(w); pending != nil || !slices.Equal(seen, now) {
				t.Errorf("%s: still looking", when)
			}
		}
		after(5 * time.Second)
		resting("nothing")
		put(t, dir+"/new", "x")
		after(6500 * time.Millisecond) // it was seen
		need(t, os.Remove(dir+"/new"))
		after(time.Second)
		resting("there and back")
		put(t, dir+"/apiserver.crt", "new")
		after(12 * time.Second)
		expect(t, "a change", w, e, 1, true, dir)
		resting("a change")
	})
}

func TestAWatcherWithoutPodsCanBeUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		after(time.Hour)
		w.Unwatch(etcd)
		after(time.Hour)
		w.Watch(etcd, []string{dir})
		after(time.Second)
		put(t, dir+"/apiserver.crt", "new")
		after(12 * time.Second)
		expect(t, "watched again", w, e, 1, true, dir)
		w.report(etcd, &pod{}, "what was looked at for a watch that has ended", nil)
		expect(t, "another watch", w, e, 0, true, dir)
	})
}

func TestPodsAreWatchedUntilTheyAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		crt, key := dir+"/apiserver.crt", dir+"/apiserver.key"
		w, e := deaf(t)
		if current(t, w, etcd) != "" {
			t.Error("a pod that watches nothing has a fingerprint")
		}
		w.Unwatch(etcd)
		w.Watch(etcd, []string{crt})
		w.Watch("kube-system/other-node", []string{key})
		put(t, key, "new")
		after(30 * time.Second)
		if heard := e.take(); !slices.Equal(heard, []string{"kube-system/other-node"}) {
			t.Errorf("told of %q", heard)
		}
		w.Watch(etcd, []string{crt, key})
		expect(t, "other paths", w, e, 0, true, crt, key)
		w.Watch(etcd, []string{crt})
		expect(t, "and back", w, e, 0, true, crt)
		w.Unwatch(etcd)
		put(t, crt, "new")
		after(30 * time.Second)
		if heard := e.take(); len(heard) > 0 || current(t, w, etcd) != "" {
			t.Errorf("told of %q, which nobody watches", heard)
		}
	})
}

func TestTheSamePathsAgainAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		after(time.Second)
		put(t, dir+"/apiserver.crt", "new")
		w.Watch(etcd, []string{dir})
		expect(t, "changed, not at rest", w, e, 0, false, dir)
		after(12 * time.Second)
		expect(t, "at rest", w, e, 1, true, dir)
	})
}

func TestFilesThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		crt := dir + "/apiserver.crt"
		w, e := deaf(t)
		unreadable := func(when, want string) {
			t.Helper()
			if f, err := w.Fingerprint(etcd); err == nil || f != want {
				t.Errorf("%s: %q, %v; want %q and an error", when, f, err, want)
			}
		}
		link(t, "apiserver.crt", crt)
		w.Watch(etcd, []string{crt})
		unreadable("from the start", "")
		after(time.Hour)
		unreadable("an hour later", "")
		put(t, crt, "geheim")
		after(12 * time.Second)
		expect(t, "readable", w, e, 1, true, crt)

		before := current(t, w, etcd)
		link(t, "apiserver.crt", crt)
		after(30 * time.Second)
		unreadable("again not", before)
		put(t, crt, "geheim")
		after(30 * time.Second)
		expect(t, "readable as before", w, e, 0, true, crt)

		need(t, os.Truncate(crt, 11<<20))
		after(30 * time.Second)
		unreadable("too large", before)
		looking := 0
		for range 40 {
			after(pollEvery)
			if pending, _ := state(w); pending != nil {
				looking++
			}
		}
		if looking > 5 {
			t.Errorf("what is too large is looked at in %d of 40 quarters of a second", looking)
		}
		put(t, crt, "other")
		after(30 * time.Second)
		expect(t, "readable", w, e, 1, true, crt)
		for i := range maxEntries {
			need(t, os.WriteFile(fmt.Sprintf("%s/.%d", dir, i), nil, 0o600))
		}
		w.Watch(etcd, []string{dir})
		unreadable("too many", "")
		for i := range maxEntries {
			need(t, os.Remove(fmt.Sprintf("%s/.%d", dir, i)))
		}
		after(12 * time.Second)
		expect(t, "not too many", w, e, 1, true, dir)
		for i := range maxEntries {
			need(t, os.WriteFile(fmt.Sprintf("%s/.%d", dir, i), nil, 0o600))
		}
		before = current(t, w, etcd)
		after(12 * time.Second)
		unreadable("too many again", before)
		for i := range maxEntries {
			need(t, os.Remove(fmt.Sprintf("%s/.%d", dir, i)))
		}
		after(12 * time.Second)
		expect(t, "nothing but what was there", w, e, 0, true, dir)
		if log := e.log.String(); strings.Contains(log, "geheim") || strings.Count(log, "too many levels") != 2 || strings.Count(log, "10 MiB") != 1 {
			t.Errorf("the log:\n%s", log)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		never, _ := deaf(t)
		never.Close()
		never.Close()
		w, e := deaf(t)
		w.Watch(etcd, []string{dir})
		put(t, dir+"/apiserver.crt", "new")
		w.Close()
		w.Close()
		after(time.Hour)
		w.Watch("kube-system/other-node", []string{dir})
		if heard := e.take(); len(heard) > 0 || current(t, w, "kube-system/other-node") != "" {
			t.Errorf("told of %q after the end", heard)
		}
	})
}

func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := pki(t)
		w, _ := deaf(t)
		told := make(chan struct{})
		w.changed = func(string) {
			close(told)
			<-time.After(time.Second)
		}
		w.Watch(etcd, []string{dir})
		put(t, dir+"/apiserver.crt", "new")
		<-told
		start := time.Now()
		w.Close()
		if took := time.Since(start); took != time.Second {
			t.Errorf("Close returned after %s, the goroutine ends after 1s", took)
		}
	})
}

// TestTheKernelTells runs against real time: a change is known before the periodic check could have found it.
func TestTheKernelTells(t *testing.T) {
	for name, tc := range map[string]struct {
		watch  string
		change func(t *testing.T, dir string)
		last   string // a file that is replaced afterwards: what was replaced before is watched anew
	}{
		"a file that is replaced":             {last: "apiserver.crt", watch: "apiserver.crt", change: func(t *testing.T, d string) { put(t, d+"/apiserver.crt", "new") }},
		"a file that is written to":           {last: "apiserver.crt", watch: "apiserver.crt", change: func(t *testing.T, d string) { need(t, os.WriteFile(d+"/apiserver.crt", []byte("newer"), 0o600)) }},
		"a file in a directory":               {last: "etcd/new.crt", watch: "etcd", change: func(t *testing.T, d string) { put(t, d+"/etcd/new.crt", "new") }},
		"a file that comes":                   {last: "etcd/new.crt", watch: "etcd/new.crt", change: func(t *testing.T, d string) { put(t, d+"/etcd/new.crt", "new") }},
		"what a link leads to":                {last: "archive/1.crt", watch: "front.crt", change: func(t *testing.T, d string) { put(t, d+"/archive/1.crt", "new") }},
		"what a link in a directory leads to": {last: "archive/1.crt", watch: "", change: func(t *testing.T, d string) { put(t, d+"/archive/1.crt", "new") }},
		"a directory that is replaced": {last: "etcd/server.crt", watch: "etcd", change: func(t *testing.T, d string) {
			need(t, os.Mkdir(d+"/etcd.new", 0o700))
			put(t, d+"/etcd.new/server.crt", "new")
			need(t, os.Rename(d+"/etcd", d+"/etcd.old"))
			need(t, os.Rename(d+"/etcd.new", d+"/etcd"))
		}},
		"a path that is made piece by piece": {last: "a/b/c.crt", watch: "a/b/c.crt", change: func(t *testing.T, d string) {
			need(t, os.MkdirAll(d+"/a/b", 0o700))
			put(t, d+"/a/b/c.crt", "new")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := pki(t)
			told := make(chan string, 10)
			w := NewWatcher(func(name string) { told <- name }, nil)
			t.Cleanup(w.Close)
			path, first := filepath.Join(dir, tc.watch), filepath.Join(t.TempDir(), "first")
			w.Watch(etcd, []string{path, first})
			before := current(t, w, etcd)
			for _, change := range []func(){
				func() { put(t, first, "") }, // once this is known, the kernel has been asked
				func() { tc.change(t, dir) },
				func() { put(t, filepath.Join(dir, tc.last), "last") },
			} {
				change()
				select {
				case <-told:
				case <-time.After(7 * time.Second): // the periodic check would take until the 11th second
					t.Fatal("not told in time")
				}
				now := current(t, w, etcd)
				if now == before || now != fingerprint(t, path, first) {
					t.Errorf("fingerprint %s, before %s", now, before)
				}
				before = now
			}
		})
	}
}
