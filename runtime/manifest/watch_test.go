package manifest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// TestWatchKnowsWholeFiles: new manifests that were renamed into place need no time to settle, and removals a little. The
// events are those that the kernel gives for what is named.
func TestWatchKnowsWholeFiles(t *testing.T) {
	const create, write, rename, remove = fsnotify.Create, fsnotify.Write, fsnotify.Rename, fsnotify.Remove
	type event = fsnotify.Event
	placed := []event{{Name: "/m/.new.tmp", Op: create}, {Name: "/m/.new.tmp", Op: write}, {Name: "/m/.new.tmp", Op: rename}, {Name: "/m/new.yaml", Op: create}}
	for name, c := range map[string]struct {
		events []event
		rest   time.Duration
	}{
		"a draft that is not in place yet":           {placed[:3], settleFor},
		"a new one, renamed into place":              {placed, 0},
		"a new one, written in place":                {[]event{{Name: "/m/new.yaml", Op: create}, {Name: "/m/new.yaml", Op: write}}, settleFor},
		"a known one, replaced by a rename":          {[]event{{Name: "/m/.x", Op: rename}, {Name: "/m/known.yaml", Op: create}}, settleFor},
		"a known one, moved away":                    {[]event{{Name: "/m/known.yaml", Op: rename}, {Name: "/m/known.yaml~", Op: create}}, settleFor},
		"a known one, removed":                       {[]event{{Name: "/m/known.yaml", Op: remove}}, settleGone},
		"a known one, removed and made anew":         {[]event{{Name: "/m/known.yaml", Op: remove}, {Name: "/m/known.yaml", Op: create}}, settleFor},
		"a known one, removed beside a new one":      {append([]event{{Name: "/m/known.yaml", Op: remove}}, placed...), settleFor},
		"a draft, removed":                           {[]event{{Name: "/m/.new.tmp", Op: remove}}, settleFor},
		"a new one beside one that is being written": {append([]event{{Name: "/m/half.yaml", Op: write}}, placed...), settleFor},
		"a new one that is then written again":       {append(placed[:4:4], event{Name: "/m/new.yaml", Op: write}), settleFor},
		"a directory of links that is switched": {append([]event{
			{Name: "/m/..data_tmp", Op: create}, {Name: "/m/..data_tmp", Op: rename}, {Name: "/m/..data", Op: create}}, placed...), settleFor},
		"a new one beside a change where a link leads": {append([]event{{Name: "/elsewhere/pod.yaml", Op: write}}, placed...), settleFor},
	} {
		t.Run(name, func(t *testing.T) {
			v := &watch{path: "/m", dirs: map[string]os.FileInfo{}}
			for _, e := range c.events {
				v.take(e)
			}
			if got := v.rest(func(path string) bool { return path == "/m/known.yaml" }); got != c.rest {
				t.Errorf("it rests for %s, want %s", got, c.rest)
			}
			v.forget()
			if v.rest(func(string) bool { return false }) != settleFor {
				t.Error("a new round begins with something noted")
			}
		})
	}
}

// TestWatchSeesARenameAsWhole: the kernel and the library do give the events as the table above has them.
func TestWatchSeesARenameAsWhole(t *testing.T) {
	dir := t.TempDir()
	v, err := newWatch(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	v.follow()
	draft := filepath.Join(dir, ".new.tmp")
	if err := os.WriteFile(draft, []byte("apiVersion: v1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(draft, filepath.Join(dir, "new.yaml")); err != nil {
		t.Fatal(err)
	}
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for !v.whole(func(string) bool { return false }) {
		select {
		case <-v.events():
		case <-limit.C:
			t.Fatal("a manifest that was renamed into place is not known to be whole")
		}
	}
}
