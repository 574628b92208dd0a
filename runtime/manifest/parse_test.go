package manifest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const minimal = `apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: main
    image: example.com/web:v1
`

func mustParse(t *testing.T, data string) *StaticPod {
	t.Helper()
	p, err := Parse([]byte(data), "/m/web.yaml", "Node-A")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The whole of what is filled in, as one file that a reviewer can compare with the kubelet's /pods.
func TestDefaults(t *testing.T) {
	in, err := os.ReadFile("testdata/defaults.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := yaml.Marshal(mustParse(t, string(in)).Pod)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/defaults.golden.yaml", got)
}

func TestStaticDefaults(t *testing.T) {
	p := mustParse(t, minimal)
	if p.FullName() != "default/web-node-a" || p.Pod.Spec.NodeName != "Node-A" {
		t.Errorf("full name %s on %q", p.FullName(), p.Pod.Spec.NodeName)
	}
	if p.UID != p.SpecHash || string(p.Pod.UID) != p.UID || len(p.UID) != 32 {
		t.Errorf("uid %q, pod uid %q, hash %q", p.UID, p.Pod.UID, p.SpecHash)
	}
	want := map[string]string{AnnotationConfigHash: p.UID, AnnotationConfigSource: "file"}
	if diff := cmp.Diff(want, p.Pod.Annotations); diff != "" {
		t.Error(diff)
	}
	fromURL, err := Parse([]byte(minimal), "https://example.com/pods", "Node-A")
	if err != nil {
		t.Fatal(err)
	}
	if len(fromURL.Pod.Spec.Tolerations) != 0 || fromURL.Pod.Annotations[AnnotationConfigSource] != "http" {
		t.Errorf("a pod from a URL gets no toleration: %+v", fromURL.Pod)
	}
}

// If this fails because a default or a field was added: an upgrade of slipway will restart every static pod. Think
// twice, then write it into the release notes.
func TestUIDIsPinned(t *testing.T) {
	if got, want := mustParse(t, minimal).UID, "b74181b5a049bc409cd359677029adc1"; got != want {
		t.Errorf("uid = %s, want %s", got, want)
	}
}

func TestUIDFollowsContentOnly(t *testing.T) {
	base := mustParse(t, minimal)
	same := map[string]string{
		"comment":     "# by hand\n" + strings.Replace(minimal, "name: web", "name: web # the name", 1),
		"key order":   "kind: Pod\nspec:\n  containers:\n  - image: example.com/web:v1\n    name: main\nmetadata: {name: web}\napiVersion: v1\n",
		"JSON":        `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"main","image":"example.com/web:v1"}]}}`,
		"namespace":   strings.Replace(minimal, "name: web", "name: web\n  namespace: default", 1),
		"default set": minimal + "  restartPolicy: Always\n",
		"status":      minimal + "status:\n  phase: Running\n",
		"separators":  "---\n" + minimal + "---\n# nothing\n",
		"overwritten": strings.Replace(minimal, "name: web", "name: web\n  annotations: {kubernetes.io/config.hash: a, kubernetes.io/config.seen: b}", 1) + "  nodeName: elsewhere\n",
	}
	for name, data := range same {
		p, err := Parse([]byte(data), "/other/"+name, "Node-A")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if p.UID != base.UID {
			t.Errorf("%s: the uid changed", name)
		}
	}
	for name, data := range map[string]string{
		"label": strings.Replace(minimal, "name: web", "name: web\n  labels: {a: b}", 1),
		"env":   minimal + "    env: [{name: A, value: b}]\n",
	} {
		if p := mustParse(t, data); p.UID == base.UID {
			t.Errorf("%s: the uid did not change", name)
		}
	}
	if other, _ := Parse([]byte(minimal), "/m/web.yaml", "node-b"); other.UID == base.UID {
		t.Error("two nodes share a uid")
	}
}

func TestExplicitUID(t *testing.T) {
	p := mustParse(t, strings.Replace(minimal, "name: web", "name: web\n  uid: 0000-abc", 1))
	if p.UID != "0000-abc" || p.SpecHash != mustParse(t, minimal).UID || p.Pod.Annotations[AnnotationConfigHash] != "0000-abc" {
		t.Errorf("uid %q hash %q annotations %v", p.UID, p.SpecHash, p.Pod.Annotations)
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"a": corev1.PullAlways, "a:latest": corev1.PullAlways, "localhost:5000/a": corev1.PullAlways,
		"a:v1": corev1.PullIfNotPresent, "localhost:5000/a:v1": corev1.PullIfNotPresent,
		"a@sha256:00": corev1.PullIfNotPresent, "a:v1@sha256:00": corev1.PullIfNotPresent, "a:latest@sha256:00": corev1.PullAlways,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestRefused(t *testing.T) {
	edit := func(from, to string) string { return strings.Replace(minimal, from, to, 1) }
	for _, tc := range []struct{ name, data, want string }{
		{"empty", "", "m.yaml:1:1: is empty; expected one Pod (apiVersion: v1, kind: Pod)"},
		{"only comments", "---\n# a\n", "m.yaml:1:1: is empty"},
		{"two documents", minimal + "---\n" + minimal, "m.yaml:9:1: a second document begins here (2 in all)"},
		{"deployment", "apiVersion: apps/v1\nkind: Deployment\n", "m.yaml:2:7: kind: is a Deployment of apps/v1; expected one Pod"},
		{"list", "apiVersion: v1\nkind: List\nitems: [{}, {}]\n", "is a List of 2 items"},
		{"wrong version", edit("apiVersion: v1", "apiVersion: v2"), `m.yaml:1:13: apiVersion: is "v2"`},
		{"no kind", "metadata: {}\n", "kind and apiVersion are missing"},
		{"sequence", "- a\n- b\n", "is a sequence of 2 items"},
		{"broken", "a: b\nc: d: e\n", "m.yaml:2:1: is not valid YAML: mapping values are not allowed"},
		{"unknown field", edit("image:", "imagee:"), `m.yaml:8:5: spec.containers[0].imagee: unknown field; did you mean "image"?`},
		{"case", edit("containers:", "Containers:"), `spec.Containers: unknown field; did you mean "containers"?`},
		{"duplicate key", edit("    image:", "    name: other\n    image:"), "m.yaml:8:5: spec.containers[0].name: duplicate key"},
		{"unquoted number", minimal + "    env:\n    - name: PORT\n      value: 8080\n", `m.yaml:11:14: spec.containers[0].env[0].value: expected a string, found the number 8080; write "8080" in quotes`},
		{"list for mapping", edit("metadata:\n  name: web", "metadata: [web]"), "m.yaml:3:11: metadata: expected a mapping, found a list"},
		{"bad quantity", minimal + "    resources: {limits: {cpu: lots}}\n", "quantities must match the regular expression"},
		{"no name", edit("name: web", "labels: {}"), "metadata.name: Required value"},
		{"bad name", edit("name: web", "name: Web_1"), `m.yaml:4:9: metadata.name: Invalid value: "Web_1"`},
		{"bad uid", edit("name: web", "name: web\n  uid: a_b"), `metadata.uid: Invalid value: "a_b": may hold letters`},
		{"uid with a slash", edit("name: web", "name: web\n  uid: ../x"), "metadata.uid: Invalid value"},
		{"no containers", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "spec.containers: Required value"},
		{"no image", edit("    image: example.com/web:v1\n", ""), "m.yaml:7:5: spec.containers[0].image: Required value"},
		{"same name twice", minimal + "  - name: main\n    image: a\n", `m.yaml:9:11: spec.containers[1].name: Invalid value: "main": is also the name of spec.containers[0]`},
		{"no such volume", minimal + "    volumeMounts: [{name: data, mountPath: /data}]\n", `spec.containers[0].volumeMounts[0].name: Not found: "data"`},
		{"dot dot", minimal + "  volumes: [{name: a, hostPath: {path: /a/../b}}]\n", "must not contain '..'"},
		{"two types", minimal + "  volumes: [{name: a, emptyDir: {}, hostPath: {path: /a}}]\n", "has 2 types"},
		{"host network port", minimal + "    ports: [{containerPort: 80, hostPort: 81}]\n  hostNetwork: true\n", "must be containerPort 80 with hostNetwork"},
		{"port named nowhere", minimal + "    livenessProbe: {httpGet: {port: web}}\n", `livenessProbe.httpGet.port: Not found: "web"`},
		{"two handlers", minimal + "    livenessProbe: {httpGet: {port: 1}, exec: {command: [a]}}\n", "has 2 handlers; expected one"},
		{"service account", minimal + "  serviceAccountName: a\n", "m.yaml:9:23: spec.serviceAccountName: Forbidden: a static pod may not refer to a ServiceAccount"},
		{"secret", minimal + "    envFrom: [{secretRef: {name: a}}]\n", "envFrom[0].secretRef: Forbidden: a static pod may not refer to a Secret"},
		{"config map", minimal + "  volumes: [{name: a, configMap: {name: a}}]\n", "may not refer to a ConfigMap"},
		{"token", minimal + "  volumes: [{name: a, projected: {sources: [{serviceAccountToken: {path: a}}]}}]\n", "sources[0].serviceAccountToken: Forbidden"},
		{"claim", minimal + "  volumes: [{name: a, persistentVolumeClaim: {claimName: a}}]\n", "may not refer to a PersistentVolumeClaim"},
		{"mirror", edit("name: web", "name: web\n  annotations: {kubernetes.io/config.mirror: a}"), "only a mirror pod"},
		{"field path", minimal + "    env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.foo}}}]\n", `Unsupported value: "spec.foo"`},
		{"line after separator", "# a\n---\n" + edit("image:", "imagee:"), "m.yaml:10:5: spec.containers[0].imagee"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.data), "m.yaml", "node")
			var inv *InvalidError
			if !errors.As(err, &inv) {
				t.Fatalf("got %v, want an *InvalidError", err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got  %s\nwant %s", err, tc.want)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := Parse([]byte(strings.NewReplacer("web\n", "Web\n", "main", "Main", "example.com/web:v1", `""`).Replace(minimal)), "m.yaml", "node")
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three lines, got:\n%v", err)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := Parse(make([]byte, MaxSize+1), "m.yaml", "node")
	if err == nil || !strings.Contains(err.Error(), "is 10485761 bytes; a manifest may have at most 10485760") {
		t.Error(err)
	}
}

func TestJSONWithTabs(t *testing.T) {
	p := mustParse(t, "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\t\"metadata\": {\"name\": \"web\", \"annotations\": {\"e\": \"\\ud83d\\ude00\"}},\n\t\"spec\": {\"containers\": [{\"name\": \"main\", \"image\": \"a:1\"}]}}")
	if p.Pod.Annotations["e"] != "😀" {
		t.Errorf("annotation %q", p.Pod.Annotations["e"])
	}
}
