package manifest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// seeds are the manifests of the tests.
func seeds(f *testing.F) [][]byte {
	f.Helper()
	out := [][]byte{[]byte(minimal), []byte(podOf("volumes: [{name: v}]", "volumeMounts: [{name: v, mountPath: /v, subPathExpr: a/$(A)}]"))}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	more, err := filepath.Glob("../podspec/testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range append(files, more...) {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, data)
	}
	return out
}

// Whatever the bytes, Parse answers. What it refuses has places; what it accepts is the same pod when it is written out
// and read again.
func FuzzParse(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, "f.yaml", "node")
		if err != nil {
			var inv *InvalidError
			if !errors.As(err, &inv) || len(inv.Fields) == 0 {
				t.Fatalf("%T: %v", err, err)
			}
			for _, field := range inv.Fields {
				if field.Line < 1 || field.Column < 1 {
					t.Fatalf("%v is at %d:%d", field, field.Line, field.Column)
				}
			}
			if _, again := Parse(data, "f.yaml", "node"); again == nil || again.Error() != err.Error() {
				t.Fatalf("refused with %v, then with %v", err, again)
			}
			return
		}
		// Back to what a user could have written: the static defaults off again.
		pod := p.Pod.DeepCopy()
		pod.Name = strings.TrimSuffix(pod.Name, "-node")
		pod.Spec.Tolerations = pod.Spec.Tolerations[:len(pod.Spec.Tolerations)-1]
		if p.UID == p.SpecHash {
			pod.UID = ""
		}
		delete(pod.Annotations, AnnotationConfigHash)
		delete(pod.Annotations, AnnotationConfigSource)
		written, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(written, "f.yaml", "node")
		if err != nil {
			t.Fatalf("not read again: %v\n%s", err, written)
		}
		if diff := gocmp.Diff(p.Pod.Spec, again.Pod.Spec, ignoreSpelling); diff != "" {
			t.Fatal(diff)
		}
		if p.UID != again.UID || p.SpecHash != again.SpecHash {
			t.Fatalf("uid %s became %s\n%s", p.UID, again.UID, written)
		}
	})
}

// Whatever a URL answers after a good answer, no pod is lost but by a valid answer that leaves it out.
func FuzzHTTP(f *testing.F) {
	const list = `{"kind":"PodList","apiVersion":"v1","items":[%s]}`
	const good = `{"metadata":{"name":%q},"spec":{"containers":[{"name":"main","image":"a:1"}]}}`
	two := fmt.Sprintf(list, fmt.Sprintf(good, "web")+","+fmt.Sprintf(good, "db"))
	for _, answer := range []string{
		"", "<html>", two, fmt.Sprintf(list, ""), `{"kind":"PodList"}`, fmt.Sprintf(list, `{"metadata":{"name":"web"}},null,5`), fmt.Sprintf(list, `{"metadata":{"nmae":"web"}}`), minimal,
		fmt.Sprintf(list, fmt.Sprintf(good, "web")+","+fmt.Sprintf(good, "web")), "kind: PodList\nitems:\n- metadata: {name: db, uid: a}\n",
		fmt.Sprintf(list, `{"metadata":{"name":"x","uid":"u"},"spec":{"containers":[{"name":"m","image":"a"}]}},{"metadata":{"name":"db","uid":"u"}}`),
	} {
		f.Add([]byte(answer))
	}
	const url = "http://127.0.0.1/pods"
	before := assemble(state{}, itemize([]byte(two), url, "node"), url, "node")
	if len(before.snap.Pods) != 2 || len(before.snap.Problems) > 0 {
		f.Fatalf("the good answer: %+v", before.snap)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		l := itemize(answer, url, "node")
		after := assemble(before, l, url, "node")
		names, nameless, understood := named(answer)
		if understood != (l.err == nil) {
			t.Fatalf("understood: %v, but %v", understood, l.err)
		}
		if (!understood || nameless) && len(after.snap.Problems) == 0 {
			t.Fatal("a bad answer is no problem")
		}
		full, uids := map[string]bool{}, map[string]bool{}
		for _, p := range after.snap.Pods {
			if full[p.FullName()] || uids[p.UID] {
				t.Fatalf("%s twice, or its uid", p.FullName())
			}
			full[p.FullName()], uids[p.UID] = true, true
		}
		for _, p := range before.snap.Pods {
			if (!understood || nameless || names[p.FullName()]) && !full[p.FullName()] {
				t.Fatalf("%s was lost to %q", p.FullName(), answer)
			}
			if understood && !nameless && !names[p.FullName()] && full[p.FullName()] {
				t.Fatalf("%s is not in %q and was kept", p.FullName(), answer)
			}
		}
		if again := assemble(after, itemize(answer, url, "node"), url, "node"); !again.snap.Equal(after.snap) {
			t.Fatalf("the same answer changes %+v to %+v", after.snap, again.snap)
		}
	})
}

// named tells which pods an answer speaks of, whether it also speaks of one without saying of which, and whether it is a
// list or one valid pod: another reading than itemize's.
func named(answer []byte) (names map[string]bool, nameless, understood bool) {
	if p, err := Parse(answer, "http://a", "node"); err == nil {
		return map[string]bool{p.FullName(): true}, false, true
	}
	b, err := toJSON(answer, yaml.YAMLToJSON)
	if err != nil {
		return nil, false, false
	}
	var list struct {
		Kind  string `json:"kind"`
		Items *[]any `json:"items"`
	}
	if json.Unmarshal(b, &list) != nil || list.Kind != "PodList" || list.Items == nil {
		return nil, false, false
	}
	names = map[string]bool{}
	for _, item := range *list.Items {
		pod, _ := item.(map[string]any)
		meta, _ := pod["metadata"].(map[string]any)
		name, _ := meta["name"].(string)
		ns, isText := meta["namespace"].(string)
		if name == "" || meta["namespace"] != nil && !isText {
			nameless = true
		} else {
			names[cmp.Or(ns, corev1.NamespaceDefault)+"/"+podName(name, "node")] = true
		}
	}
	return names, nameless, true
}
