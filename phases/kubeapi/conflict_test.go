package kubeapi

import (
	"encoding/json"
	"testing"
)

// Paths are as the API server spells them: structured-merge-diff v6 fieldpath.PathElement.String.
func TestCut(t *testing.T) {
	const object = `{"data":{"a":"1","a.conf":"2","a.conf.d":"3"},"spec":{"replicas":2,"template":{"containers":[` +
		`{"name":"x","image":"i","args":["a]","b"]},{"name":"y\"]","image":"j"}],"ports":[{"port":53,"protocol":"UDP","t":1},{"port":53,"protocol":"TCP"}]}}}`
	for _, tc := range []struct{ path, left string }{
		{".data.a", `{"data":{"a.conf":"2","a.conf.d":"3"}`},
		{".data.a.conf", `{"data":{"a":"1","a.conf.d":"3"}`},
		{".data.a.conf.d", `{"data":{"a":"1","a.conf":"2"}`},
		{".spec.replicas", ""},
		{`.spec.template.containers[name="x"].image`, ""},
		{`.spec.template.containers[name="y\"]"].image`, ""},
		{`.spec.template.containers[name="x"]`, ""},
		{`.spec.template.containers[name="x"].args[="a]"]`, ""},
		{`.spec.template.ports[port=53,protocol="UDP"].t`, ""},
		{`.spec.template.ports[port=53,protocol="TCP"]`, ""},
	} {
		var o map[string]any
		if err := json.Unmarshal([]byte(object), &o); err != nil {
			t.Fatal(err)
		}
		if !(conflict{field: tc.path}).cut(o) {
			t.Errorf("%s: not found", tc.path)
		}
		if (conflict{field: tc.path}).cut(o) {
			t.Errorf("%s: still there", tc.path)
		}
		left, _ := json.Marshal(o)
		if tc.left != "" && string(left)[:len(tc.left)] != tc.left {
			t.Errorf("%s leaves %s", tc.path, left)
		}
	}
	for _, path := range []string{".nothing", ".spec.template.containers[name=\"z\"].image", ".spec.template.containers[0]", "", ".", ".spec[", ".data.a.b"} {
		var o map[string]any
		json.Unmarshal([]byte(object), &o)
		if (conflict{field: path}).cut(o) {
			t.Errorf("%q was found", path)
		}
	}
}
