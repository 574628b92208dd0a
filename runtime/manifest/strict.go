package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// checkKind refuses everything but a v1 Pod, naming what it is.
func checkKind(doc document, tree *tree) *FieldError {
	const expected = "expected one Pod (apiVersion: v1, kind: Pod)"
	b, err := toJSON(doc.data, yaml.YAMLToJSON)
	if err != nil {
		return syntaxError(err, doc)
	}
	var whole any
	if err := json.Unmarshal(b, &whole); err != nil {
		return &FieldError{Detail: err.Error()}
	}
	m, ok := whole.(map[string]any)
	if !ok {
		return tree.at("", fmt.Sprintf("is %s; %s", describe(whole), expected))
	}
	apiVersion, _ := m["apiVersion"].(string)
	kind, _ := m["kind"].(string)
	switch {
	case kind == "" && apiVersion == "":
		return tree.at("", "kind and apiVersion are missing; "+expected)
	case kind == "":
		return tree.at("", "kind is missing; "+expected)
	case kind == "List" || strings.HasSuffix(kind, "List") && m["items"] != nil:
		items, _ := m["items"].([]any)
		return tree.at("kind", fmt.Sprintf("is a %s of %d items; expected one Pod: give each its own file", kind, len(items)))
	case kind != "Pod":
		of := ""
		if apiVersion != "" {
			of = " of " + apiVersion
		}
		return tree.at("kind", fmt.Sprintf("is a %s%s; %s", kind, of, expected))
	case apiVersion != "v1":
		return tree.at("apiVersion", fmt.Sprintf("is %q; %s", apiVersion, expected))
	}
	return nil
}

// toJSON leaves JSON as it is: YAML 1.1 disputes its tabs and its surrogate pairs.
func toJSON(data []byte, convert func([]byte) ([]byte, error)) ([]byte, error) {
	if json.Valid(data) {
		return data, nil
	}
	return convert(data)
}

func describe(v any) string {
	switch v := v.(type) {
	case []any:
		return fmt.Sprintf("a sequence of %d items", len(v))
	case string:
		return "a text"
	case nil:
		return "null"
	}
	return fmt.Sprintf("the value %v", v)
}

// decodeStrict decodes the document into pod and returns every field that does not belong. The tree finds most of
// them, with their places; the decoder is the judge of what the tree lets through. decoded tells whether pod holds
// what remains of the document when those fields are left out.
func decodeStrict(doc document, tree *tree, pod *corev1.Pod) (found []FieldError, decoded bool) {
	found = tree.check(reflect.TypeFor[corev1.Pod]())
	b, err := toJSON(doc.data, yaml.YAMLToJSONStrict)
	if err != nil {
		if len(found) == 0 {
			found = append(found, *syntaxError(err, doc))
		}
		return found, false
	}
	strict, err := strictjson.UnmarshalStrict(b, pod)
	switch wrong := (*json.UnmarshalTypeError)(nil); {
	case err != nil && len(found) > 0: // the tree has found it
		return found, false
	case errors.As(err, &wrong):
		return []FieldError{*tree.at(wrong.Field, fmt.Sprintf("expected %s, found %s", wrong.Type, wrong.Value))}, false
	case err != nil:
		return []FieldError{{Detail: strings.TrimPrefix(err.Error(), "json: ")}}, false
	}
	if len(found) > 0 {
		return found, true
	}
	for _, e := range strict {
		var at strictjson.FieldError
		if errors.As(e, &at) {
			what := strings.TrimSuffix(e.Error(), fmt.Sprintf(" %q", at.FieldPath()))
			found = append(found, *tree.at(at.FieldPath(), what))
			continue
		}
		found = append(found, FieldError{Detail: e.Error()})
	}
	return found, true
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// syntaxError takes the line out of the YAML decoder's message.
func syntaxError(err error, doc document) *FieldError {
	detail := err.Error()
	for _, noise := range []string{"error converting YAML to JSON: ", "yaml: ", "unmarshal errors:\n", "  "} {
		detail = strings.TrimPrefix(detail, noise)
	}
	f := &FieldError{Detail: detail}
	if m := yamlLine.FindStringSubmatchIndex(detail); m != nil {
		fmt.Sscan(detail[m[2]:m[3]], &f.Line)
		f.Line += doc.before
		f.Detail = detail[:m[0]] + detail[m[1]:]
	}
	f.Detail = "is not valid YAML: " + f.Detail
	return f
}

// check holds the tree against a Go type by its json tags and returns unknown fields, duplicate keys and scalars of
// the wrong kind.
func (t *tree) check(typ reflect.Type) []FieldError {
	if t.root == nil {
		return nil
	}
	var errs []FieldError
	t.checkNode(t.root, typ, "", &errs)
	return errs
}

func (t *tree) checkNode(n *yamlv3.Node, typ reflect.Type, path string, errs *[]FieldError) {
	for n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if n.Tag == "!!null" || reflect.PointerTo(typ).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return
	}
	bad := func(at *yamlv3.Node, path, detail string) {
		*errs = append(*errs, FieldError{Line: at.Line + t.before, Column: at.Column, Field: path, Detail: detail})
	}
	switch typ.Kind() {
	case reflect.Struct, reflect.Map:
		if n.Kind != yamlv3.MappingNode {
			bad(n, path, "expected a mapping, found "+found(n))
			return
		}
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.Tag == "!!merge" {
				continue // what it brings was checked where the anchor is, or is left to the decoder
			}
			if seen[key.Value] {
				bad(key, child(path, key.Value), "duplicate key")
				continue
			}
			seen[key.Value] = true
			if typ.Kind() == reflect.Map {
				t.checkNode(value, typ.Elem(), fmt.Sprintf("%s[%s]", path, key.Value), errs)
				continue
			}
			field, ok := fieldByJSON(typ, key.Value)
			if !ok {
				bad(key, child(path, key.Value), "unknown field"+didYouMean(key.Value, jsonNames(typ)))
				continue
			}
			t.checkNode(value, field, child(path, key.Value), errs)
		}
	case reflect.Slice:
		if typ.Elem().Kind() == reflect.Uint8 {
			return
		}
		if n.Kind != yamlv3.SequenceNode {
			bad(n, path, "expected a list, found "+found(n))
			return
		}
		for i, item := range n.Content {
			t.checkNode(item, typ.Elem(), fmt.Sprintf("%s[%d]", path, i), errs)
		}
	case reflect.String:
		if n.Kind != yamlv3.ScalarNode || n.Tag != "!!str" {
			quote := ""
			if n.Kind == yamlv3.ScalarNode {
				quote = fmt.Sprintf("; write %q in quotes", n.Value)
			}
			bad(n, path, "expected a string, found "+found(n)+quote)
		}
	case reflect.Bool:
		if n.Kind != yamlv3.ScalarNode || n.Tag == "!!int" || n.Tag == "!!float" || n.Style&(yamlv3.DoubleQuotedStyle|yamlv3.SingleQuotedStyle) != 0 {
			bad(n, path, "expected true or false, found "+found(n))
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if n.Kind != yamlv3.ScalarNode || n.Tag != "!!int" && n.Tag != "!!float" {
			bad(n, path, "expected a number, found "+found(n))
		}
	}
}

func found(n *yamlv3.Node) string {
	switch n.Kind {
	case yamlv3.MappingNode:
		return "a mapping"
	case yamlv3.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!str":
		return fmt.Sprintf("the string %q", n.Value)
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	return n.Value
}

func child(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldByJSON returns the type of the field with that json name, looking into inlined structs.
func fieldByJSON(typ reflect.Type, name string) (reflect.Type, bool) {
	for f := range fields(typ) {
		if jsonName(f) == name {
			return f.Type, true
		}
	}
	return nil, false
}

func jsonNames(typ reflect.Type) []string {
	var names []string
	for f := range fields(typ) {
		names = append(names, jsonName(f))
	}
	return names
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func fields(typ reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for _, f := range reflect.VisibleFields(typ) {
			if name := jsonName(f); f.IsExported() && name != "" && name != "-" && !yield(f) {
				return
			}
		}
	}
}

// didYouMean names the nearest of the known names when it is near enough to be a slip of the keyboard.
func didYouMean(name string, known []string) string {
	best, distance := "", 1+len(name)/3
	for _, k := range slices.Sorted(slices.Values(known)) {
		if d := levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(k)); d < distance || d == distance && best == "" {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
