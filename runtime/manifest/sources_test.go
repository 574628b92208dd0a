package manifest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// running starts a source and returns a function that waits for the snapshot that satisfies ok.
func running(t *testing.T, run func(context.Context, func(Snapshot)) error) func(what string, ok func(Snapshot) bool) Snapshot {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	snaps := make(chan Snapshot, 100)
	done := make(chan error, 1)
	go func() { done <- run(ctx, func(s Snapshot) { snaps <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return func(what string, ok func(Snapshot) bool) Snapshot {
		t.Helper()
		limit := time.NewTimer(10 * time.Second)
		defer limit.Stop()
		var last Snapshot
		for {
			select {
			case last = <-snaps:
				if ok(last) {
					return last
				}
			case <-limit.C:
				t.Fatalf("%s: not seen; last %+v", what, last)
			}
		}
	}
}

func images(s Snapshot) string {
	var out []string
	for _, p := range s.Pods {
		out = append(out, p.Pod.Spec.Containers[0].Image)
	}
	return strings.Join(out, " ")
}

func showing(want string) func(Snapshot) bool {
	return func(s Snapshot) bool { return images(s) == want }
}

func podYAML(name, image string) []byte {
	return fmt.Appendf(nil, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: %q}]}\n", name, image)
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The period is an hour: whatever is seen here, a notification has told.
func TestDirectoryNotices(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "manifests")
	must(t, os.Mkdir(dir, 0o755))
	d := Directory{Path: dir, NodeName: "n", Every: time.Hour}
	wait := running(t, d.Run)
	wait("the empty directory", showing(""))

	a := filepath.Join(dir, "a.yaml")
	write(t, a, podYAML("a", "i:1"))
	wait("a written file", showing("i:1"))

	write(t, filepath.Join(dir, ".a.tmp"), podYAML("a", "i:2"))
	must(t, os.Rename(filepath.Join(dir, ".a.tmp"), a))
	wait("a renamed file", showing("i:2"))

	write(t, filepath.Join(dir, "b.json"), []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"j:1"}]}}`))
	wait("JSON beside it", showing("i:2 j:1"))

	for _, name := range []string{"a.yaml.bak", "a.yaml~", ".c.yaml", "#c.yaml#", "4913"} {
		write(t, filepath.Join(dir, name), podYAML("c", "i:9"))
	}
	write(t, a, []byte("kind: ["))
	if s := wait("a broken edit", func(s Snapshot) bool { return len(s.Problems) == 1 }); images(s) != "i:2 j:1" {
		t.Errorf("a broken edit left %q", images(s))
	}
	must(t, os.Remove(a))
	wait("a removed file", showing("j:1"))

	must(t, os.Rename(dir, dir+".away"))
	if s := wait("the directory gone", func(s Snapshot) bool { return len(s.Problems) == 1 }); images(s) != "j:1" {
		t.Errorf("without its directory: %q", images(s))
	}
	must(t, os.Mkdir(dir, 0o755))
	if s := wait("a new and empty directory", showing("")); len(s.Problems) != 0 {
		t.Errorf("problems: %v", s.Problems)
	}
	write(t, filepath.Join(dir, "d.yml"), podYAML("d", "k:1"))
	wait("a file in the new directory", showing("k:1"))
}

func TestDirectoryFollowsSymlinks(t *testing.T) {
	base := t.TempDir()
	dir, elsewhere := filepath.Join(base, "manifests"), filepath.Join(base, "elsewhere")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Mkdir(elsewhere, 0o755))
	target := filepath.Join(elsewhere, "a.yaml")
	write(t, target, podYAML("a", "i:1"))
	must(t, os.Symlink(target, filepath.Join(dir, "a.yaml")))
	d := Directory{Path: dir, NodeName: "n", Every: time.Hour}
	wait := running(t, d.Run)
	wait("the link's target", showing("i:1"))
	write(t, target, podYAML("a", "i:2"))
	wait("an edit of the target", showing("i:2"))
	must(t, os.Remove(target))
	if s := wait("a link to nowhere", func(s Snapshot) bool { return len(s.Problems) == 1 }); images(s) != "i:2" {
		t.Errorf("a link to nowhere left %q", images(s))
	}
}

func TestDirectoryMadeLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	d := Directory{Path: dir, NodeName: "n", Every: time.Hour}
	wait := running(t, d.Run)
	if s := wait("the missing directory", func(Snapshot) bool { return true }); len(s.Problems) != 1 {
		t.Errorf("want a problem, got %v", s.Problems)
	}
	must(t, os.MkdirAll(dir, 0o755))
	write(t, filepath.Join(dir, "a.yaml"), podYAML("a", "i:1"))
	wait("the file", showing("i:1"))
}

func TestSingleFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod.conf")
	write(t, path, podYAML("a", "i:1"))
	d := Directory{Path: path, NodeName: "n", Every: time.Hour}
	wait := running(t, d.Run)
	wait("the file", showing("i:1"))
	write(t, path+".new", podYAML("a", "i:2"))
	must(t, os.Rename(path+".new", path))
	wait("its replacement", showing("i:2"))
	must(t, os.Remove(path))
	wait("its removal", showing(""))
}

func TestPeriodicListIsEnough(t *testing.T) {
	dir := t.TempDir()
	first := list(dir, false)
	write(t, filepath.Join(dir, "a.yaml"), podYAML("a", "i:1"))
	st := assemble(assemble(state{}, first, dir, "n"), list(dir, false), dir, "n")
	if images(st.snap) != "i:1" {
		t.Errorf("got %q", images(st.snap))
	}
}

func TestHTTP(t *testing.T) {
	var answer atomic.Value
	answer.Store("!")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header["X-Token"]; !slices.Equal(got, []string{"a", "b"}) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		body := answer.Load().(string)
		if body == "!" {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		_, _ = w.Write([]byte(body))
	}))
	defer server.Close()
	h := HTTP{URL: server.URL, Header: http.Header{"X-Token": {"a", "b"}}, NodeName: "n", Every: 5 * time.Millisecond}
	wait := running(t, h.Run)
	problem := func(part string) func(Snapshot) bool {
		return func(s Snapshot) bool { return len(s.Problems) == 1 && strings.Contains(s.Problems[0].Error(), part) }
	}
	wait("an error", problem("it answered 502 Bad Gateway"))

	answer.Store(string(podYAML("a", "i:1")))
	s := wait("one pod", showing("i:1"))
	if got := s.Pods[0].Pod.Annotations[AnnotationConfigSource]; got != "http" {
		t.Errorf("config.source = %q", got)
	}
	answer.Store(`{"kind":"PodList","apiVersion":"v1","items":[
		{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i:2"}]}},
		{"metadata":{"name":"b"},"spec":{"containers":[{"name":"c","image":"j:1"}]}}]}`)
	wait("a list", showing("i:2 j:1"))

	answer.Store(`{"kind":"PodList","apiVersion":"v1","items":[
		{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i:3"}]}},
		{"metadata":{"name":"b"},"spec":{"containers":[{"name":"c"}]}}]}`)
	if s := wait("one bad item", problem("image: Required")); images(s) != "i:3 j:1" {
		t.Errorf("one bad item left %q", images(s))
	}
	for body, part := range map[string]string{"": "answered with nothing", "{": "not valid", "!": "502"} {
		answer.Store(body)
		if s := wait("a bad answer", func(s Snapshot) bool {
			return slices.ContainsFunc(s.Problems, func(p Problem) bool { return strings.Contains(p.Error(), part) })
		}); images(s) != "i:3 j:1" {
			t.Errorf("answer %q left %q", body, images(s))
		}
	}
	answer.Store(`{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i:4"}]}},{"metadata":{"nmae":"b"}}]}`)
	if s := wait("an item that may mean anybody", problem(`metadata.nmae: unknown field`)); images(s) != "i:4 j:1" {
		t.Errorf("an item without a name left %q", images(s))
	}
	answer.Store(`{"kind":"PodList","apiVersion":"v1","items":[]}`)
	if s := wait("an empty list", showing("")); len(s.Problems) != 0 {
		t.Errorf("problems: %v", s.Problems)
	}
}

func BenchmarkChangeToSnapshot(b *testing.B) {
	dir := b.TempDir()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	snaps := make(chan Snapshot, 10)
	go func() {
		_ = Directory{Path: dir, NodeName: "n", Every: time.Hour}.Run(ctx, func(s Snapshot) { snaps <- s })
	}()
	<-snaps
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), podYAML("a", fmt.Sprint("i:", i)), 0o600); err != nil {
			b.Fatal(err)
		}
		<-snaps
	}
}
