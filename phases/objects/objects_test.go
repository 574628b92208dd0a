package objects_test

import (
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/phases/objects"
)

func TestRenderIsStrict(t *testing.T) {
	const head = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{json .}}\n  namespace: n\n"
	list, err := objects.Render(head+"data:\n  a: {{json .}}\n---\n"+head, "x\": [1]\n---\nkind: Secret")
	if err != nil || len(list) != 2 || list[0].GetName() != "x\": [1]\n---\nkind: Secret" {
		t.Errorf("a value became structure: %v, %v", list, err)
	}
	for stream, want := range map[string]string{
		head + "datum: {}\n":                        `unknown field "datum"`,
		head + "data: {}\ndata: {}\n":               `"data" already set`,
		"apiVersion: v1\nkind: Pod\n":               "not a kind that slipway writes",
		head + "data: {a: {{json .Missing}}}\n":     "filling in a template",
		head + "data: {a: {{.}}}\n---\n{{nothing}}": "parsing a template",
	} {
		if _, err := objects.Render(stream, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", stream, err, want)
		}
	}
}
