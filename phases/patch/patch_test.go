package patch

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/config"
)

const etcd = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"etcd","annotations":{"a":"1","b":"2"}},
	"spec":{"hostNetwork":true,"containers":[{"name":"etcd","image":"etcd:1","command":["etcd","--a=1"]}],"volumes":[{"name":"data"},{"name":"certs"}]}}`

func patchFor(target, kind, file, data string) config.Patch {
	return config.Patch{Target: target, Type: kind, File: file, Data: []byte(data)}
}

// pod decodes a manifest without its parts that no case looks at.
func pod(t *testing.T, manifest []byte) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal(manifest, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		name    string
		patches []config.Patch
		look    func(*corev1.Pod) any
		want    any
	}{
		{"strategic: lists merge by key",
			[]config.Patch{patchFor("etcd", "strategic", "etcd.yaml", `{"spec":{"containers":[{"name":"etcd","image":"etcd:2"}],"volumes":[{"name":"data","$patch":"delete"}]}}`)},
			func(p *corev1.Pod) any {
				return []string{p.Spec.Containers[0].Image, p.Spec.Containers[0].Command[1], p.Spec.Volumes[0].Name}
			}, []string{"etcd:2", "--a=1", "certs"}},
		{"merge: lists are replaced and null removes",
			[]config.Patch{patchFor("etcd", "merge", "etcd+merge.yaml", `{"metadata":{"annotations":{"a":null}},"spec":{"containers":[{"name":"etcd","image":"etcd:2"}]}}`)},
			func(p *corev1.Pod) any {
				return []any{p.Annotations, len(p.Spec.Containers[0].Command)}
			}, []any{map[string]string{"b": "2"}, 0}},
		{"json: operations by path",
			[]config.Patch{patchFor("etcd", "json", "etcd+json.json", `[{"op":"add","path":"/spec/containers/0/command/-","value":"--b=2"}]`)},
			func(p *corev1.Pod) any { return p.Spec.Containers[0].Command }, []string{"etcd", "--a=1", "--b=2"}},
		{"files in the order of their names, documents of a file in theirs",
			[]config.Patch{
				patchFor("etcd", "json", "etcd2+json.json", `[{"op":"add","path":"/spec/containers/0/command/-","value":"third"}]`),
				patchFor("etcd", "json", "etcd1+json.json", `[{"op":"add","path":"/spec/containers/0/command/-","value":"first"}]`),
				patchFor("etcd", "json", "etcd1+json.json", `[{"op":"add","path":"/spec/containers/0/command/-","value":"second"}]`),
			},
			func(p *corev1.Pod) any { return p.Spec.Containers[0].Command[2:] }, []string{"first", "second", "third"}},
		{"another target's patches are passed over",
			[]config.Patch{patchFor("kube-scheduler", "merge", "kube-scheduler+merge.yaml", `{"spec":{"hostNetwork":false}}`)},
			func(p *corev1.Pod) any { return p.Spec.HostNetwork }, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Apply("etcd", []byte(etcd), tc.patches)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, tc.look(pod(t, got))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	for _, tc := range []struct {
		patch config.Patch
		want  string
	}{
		{patchFor("etcd", "json", "etcd+json.json", `[{"op":"remove","path":"/spec/nodeName"}]`), `applying json patch "etcd+json.json" to etcd: `},
		{patchFor("etcd", "json", "etcd+json.json", `{}`), `applying json patch "etcd+json.json" to etcd: reading the list of operations: `},
		{patchFor("etcd", "strategic", "etcd.yaml", `{"spec":{"containers":[{"image":"etcd:2"}]}}`), `applying strategic patch "etcd.yaml" to etcd: `},
		{patchFor("etcd", "merge", "etcd+merge.yaml", `{"spec":{"hostNetwrok":true}}`), `reading etcd after merge patch "etcd+merge.yaml": unknown field "spec.hostNetwrok"`},
		{patchFor("etcd", "merge", "etcd+merge.yaml", `{"spec":{"hostNetwork":"yes"}}`), `reading etcd after merge patch "etcd+merge.yaml": `},
		{patchFor("etcd", "jsn", "etcd+jsn.yaml", `{}`), `applying jsn patch "etcd+jsn.yaml" to etcd: unknown type "jsn": use strategic, merge or json`},
		{patchFor(KubeletConfiguration, "merge", "kubeletconfiguration+merge.yaml", `{"maxpods":4}`), `reading kubeletconfiguration after merge patch "kubeletconfiguration+merge.yaml": unknown field "maxpods"`},
	} {
		manifest := etcd
		if tc.patch.Target == KubeletConfiguration {
			manifest = `{"maxPods":1}`
		}
		if _, err := Apply(tc.patch.Target, []byte(manifest), []config.Patch{tc.patch}); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.patch.Data, err, tc.want)
		}
	}
}

func TestApplyPatchesAKubeletConfiguration(t *testing.T) {
	for _, p := range []config.Patch{
		patchFor(KubeletConfiguration, "strategic", "kubeletconfiguration.yaml", `{"maxPods":7}`),
		patchFor(KubeletConfiguration, "merge", "kubeletconfiguration+merge.yaml", `{"maxPods":7}`),
		patchFor(KubeletConfiguration, "json", "kubeletconfiguration+json.yaml", `[{"op":"replace","path":"/maxPods","value":7}]`),
	} {
		got, err := Apply(KubeletConfiguration, []byte(`{"maxPods":1}`), []config.Patch{p})
		if err != nil || string(got) != `{"maxPods":7}` {
			t.Errorf("%s: got %s, %v", p.Type, got, err)
		}
	}
}
