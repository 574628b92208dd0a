package manifest

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each step is one listing: file name → what the file holds. The expectation is the snapshot as text.
func TestAssemble(t *testing.T) {
	pod := func(name, image string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec: {containers: [{name: c, image: %q}]}\n", name, image)
	}
	type step struct {
		files map[string]string // the content "!" is a file that cannot be read
		fail  string            // the listing as a whole fails
		want  string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"add, edit, remove", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{files: map[string]string{"a.yaml": pod("a", "i:2")}, want: "default/a-n i:2 a.yaml"},
			{want: ""},
		}},
		{"an invalid edit keeps the pod, a valid one replaces it", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{files: map[string]string{"a.yaml": pod("a", "")}, want: "default/a-n i:1 a.yaml | a.yaml default/a-n: image: Required"},
			{files: map[string]string{"a.yaml": ""}, want: "default/a-n i:1 a.yaml | a.yaml default/a-n: is empty"},
			{files: map[string]string{"a.yaml": pod("a", "i:3")}, want: "default/a-n i:3 a.yaml"},
		}},
		{"an invalid file that is removed takes its pod along", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{files: map[string]string{"a.yaml": "x"}, want: "default/a-n i:1 a.yaml | a.yaml default/a-n: is a text"},
			{want: ""},
		}},
		{"a file that was never valid still says whom it means", []step{
			{files: map[string]string{"a.yaml": pod("a", "")}, want: " | a.yaml default/a-n: image: Required"},
			{files: map[string]string{"a.yaml": "{"}, want: " | a.yaml : is not valid YAML"},
		}},
		{"one bad file does not touch its neighbours", []step{
			{files: map[string]string{"a.yaml": "x", "b.yaml": pod("b", "i:1")}, want: "default/b-n i:1 b.yaml | a.yaml : is a text"},
		}},
		{"unreadable", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{files: map[string]string{"a.yaml": "!"}, want: "default/a-n i:1 a.yaml | a.yaml default/a-n: input/output error"},
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
		}},
		{"the directory is away and comes back", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{fail: "not there", want: "default/a-n i:1 a.yaml | /m : not there"},
			{files: map[string]string{"a.yaml": pod("a", "i:2")}, want: "default/a-n i:2 a.yaml"},
		}},
		{"two files, one pod: who came first stays, whatever the names", []step{
			{files: map[string]string{"b.yaml": pod("a", "i:1")}, want: "default/a-n i:1 b.yaml"},
			{files: map[string]string{"a.yaml": pod("a", "i:2"), "b.yaml": pod("a", "i:1")},
				want: "default/a-n i:1 b.yaml | a.yaml default/a-n: already taken from b.yaml"},
			{files: map[string]string{"a.yaml": pod("a", "i:2")}, want: "default/a-n i:2 a.yaml"},
		}},
		{"two files at once: the first by name", []step{
			{files: map[string]string{"b.yaml": pod("a", "i:2"), "a.yaml": pod("a", "i:1")},
				want: "default/a-n i:1 a.yaml | b.yaml default/a-n: already taken from a.yaml"},
		}},
		{"two pods, one uid", []step{
			{files: map[string]string{
				"a.yaml": strings.Replace(pod("a", "i:1"), "name: a", "name: a, uid: u", 1),
				"b.yaml": strings.Replace(pod("b", "i:1"), "name: b", "name: b, uid: u", 1)},
				want: "default/a-n i:1 a.yaml | b.yaml default/b-n: metadata.uid"},
		}},
		{"an edit to another pod's uid keeps the version before it", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1"), "b.yaml": pod("b", "i:1")}, want: "default/a-n i:1 a.yaml; default/b-n i:1 b.yaml"},
			{files: map[string]string{"a.yaml": strings.Replace(pod("a", "i:2"), "name: a", "name: a, uid: u", 1), "b.yaml": strings.Replace(pod("b", "i:2"), "name: b", "name: b, uid: u", 1)},
				want: "default/a-n i:2 a.yaml; default/b-n i:1 b.yaml | b.yaml default/b-n: metadata.uid"},
			{files: map[string]string{"a.yaml": pod("a", "i:2"), "b.yaml": pod("b", "i:2")}, want: "default/a-n i:2 a.yaml; default/b-n i:2 b.yaml"},
		}},
		{"an edit to another pod's name keeps the pod before it", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1"), "b.yaml": pod("b", "i:1")}, want: "default/a-n i:1 a.yaml; default/b-n i:1 b.yaml"},
			{files: map[string]string{"a.yaml": pod("b", "i:2"), "b.yaml": pod("b", "i:1")},
				want: "default/a-n i:1 a.yaml; default/b-n i:1 b.yaml | a.yaml default/b-n: already taken from b.yaml"},
			{files: map[string]string{"a.yaml": pod("b", "i:2")}, want: "default/b-n i:2 a.yaml"},
		}},
		{"two files change names", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1"), "b.yaml": pod("b", "i:1")}, want: "default/a-n i:1 a.yaml; default/b-n i:1 b.yaml"},
			{files: map[string]string{"a.yaml": pod("b", "i:2"), "b.yaml": pod("a", "i:2")}, want: "default/a-n i:2 b.yaml; default/b-n i:2 a.yaml"},
		}},
		{"renaming the pod inside its file", []step{
			{files: map[string]string{"a.yaml": pod("a", "i:1")}, want: "default/a-n i:1 a.yaml"},
			{files: map[string]string{"a.yaml": pod("b", "i:1")}, want: "default/b-n i:1 a.yaml"},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var st state
			for i, s := range tc.steps {
				l := listing{}
				if s.fail != "" {
					l.err = errors.New(s.fail)
				}
				for name, content := range s.files {
					it := item{source: name, data: []byte(content)}
					if content == "!" {
						it = item{source: name, err: errors.New("input/output error")}
					}
					l.items = append(l.items, it)
				}
				st = assemble(st, l, "/m", "n")
				checkSnapshot(t, fmt.Sprintf("step %d", i), st.snap, s.want)
			}
		})
	}
}

// checkSnapshot compares "fullname image source; … | source fullname: part of the message; …".
func checkSnapshot(t *testing.T, at string, snap Snapshot, want string) {
	t.Helper()
	wantPods, wantProblems, _ := strings.Cut(want, " | ")
	var pods []string
	for _, p := range snap.Pods {
		pods = append(pods, fmt.Sprintf("%s %s %s", p.FullName(), p.Pod.Spec.Containers[0].Image, p.Source))
	}
	if diff := cmp.Diff(strings.TrimSpace(wantPods), strings.Join(pods, "; ")); diff != "" {
		t.Errorf("%s: pods (-want +got):\n%s", at, diff)
	}
	var problems []string
	if wantProblems != "" {
		problems = strings.Split(wantProblems, "; ")
	}
	if len(problems) != len(snap.Problems) {
		t.Errorf("%s: %d problems, want %d: %v", at, len(snap.Problems), len(problems), snap.Problems)
		return
	}
	for i, p := range snap.Problems {
		head, part, _ := strings.Cut(problems[i], ": ")
		if p.Source+" "+p.FullName != head || !strings.Contains(p.Err.Error(), part) {
			t.Errorf("%s: problem %s %s: %v\nwant %s", at, p.Source, p.FullName, p.Err, problems[i])
		}
	}
}

// Between two looks at an item that is invalid, an answer that lacks it makes it neither valid nor gone.
func TestNamelessItemForgetsNothing(t *testing.T) {
	const list, web = `{"kind":"PodList","items":[%s]}`, `{"metadata":{"name":"web"},"spec":{"containers":[{"name":"c"%s}]}}`
	st := state{}
	look := func(item string) {
		st = assemble(st, itemize(fmt.Appendf(nil, list, item), "http://a", "n"), "http://a", "n")
	}
	look(fmt.Sprintf(web, `,"image":"i:1"`))
	for range 2 {
		look(fmt.Sprintf(web, ""))
		checkSnapshot(t, "invalid", st.snap, "default/web-n i:1 http://a#default/web | http://a#default/web default/web-n: image: Required")
		look(`{}`)
		checkSnapshot(t, "nameless", st.snap, "default/web-n i:1 http://a#default/web | http://a#0 : metadata.name: Required")
	}
}

// A comment is an edit of the file and none of the pod: nobody is woken.
func TestCommentIsNoChange(t *testing.T) {
	at := func(prev state, data string) state {
		return assemble(prev, listing{items: []item{{source: "a.yaml", data: []byte(data)}}}, "/m", "n")
	}
	one := at(state{}, minimal)
	two := at(one, "# a comment\n"+minimal)
	if one.snap.Pods[0] != two.snap.Pods[0] || !one.snap.Equal(two.snap) {
		t.Error("the snapshot changed")
	}
}

func TestMergeKeepsTheHolder(t *testing.T) {
	one, two := mustParse(t, minimal), mustParse(t, strings.Replace(minimal, "web:v1", "web:v2", 1))
	two.Source = "https://example.com/"
	first := Merge(Snapshot{}, Snapshot{Pods: []*StaticPod{two}})
	both := Merge(first, Snapshot{Pods: []*StaticPod{one}}, Snapshot{Pods: []*StaticPod{two}})
	if len(both.Pods) != 1 || both.Pods[0] != two || len(both.Problems) != 1 || both.Problems[0].Source != one.Source {
		t.Errorf("got %+v", both)
	}
}
