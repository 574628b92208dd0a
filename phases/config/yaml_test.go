package config

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseYAMLBoundsWhatAliasesUnfoldTo(t *testing.T) {
	var doc strings.Builder
	doc.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&doc, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	_, err := parseYAML([]byte(doc.String()))
	if err == nil || !strings.Contains(err.reason, "once aliases are expanded") {
		t.Errorf("the error is %v", err)
	}
}

func TestParseYAMLMergeKeys(t *testing.T) {
	roots, serr := parseYAML([]byte("base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nuse: {<<: [*b, *o], x: 5}\n"))
	if serr != nil {
		t.Fatal(serr)
	}
	got, err := nodeJSON(roots[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"base":{"x":1,"y":2},"other":{"y":3,"z":4},"use":{"x":5,"y":2,"z":4}}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, serr := parseYAML([]byte("a: {<<: 1}\n")); serr == nil || serr.line != 1 {
		t.Errorf("a number is merged: %v", serr)
	}
}

func TestNodeJSONKeepsTextAsItIs(t *testing.T) {
	roots, serr := parseYAML([]byte("a: 2001-01-01\nb: \"1\"\nc: 0x10\nd: null\ne: 1.5\nf: !!binary aGk=\n"))
	if serr != nil {
		t.Fatal(serr)
	}
	got, err := nodeJSON(roots[0])
	if want := `{"a":"2001-01-01","b":"1","c":16,"d":null,"e":1.5,"f":"aGk="}`; err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
	roots, _ = parseYAML([]byte("a: .inf\n"))
	if _, err := nodeJSON(roots[0]); err == nil {
		t.Error("infinity has no JSON form")
	}
}
