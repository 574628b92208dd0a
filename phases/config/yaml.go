package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds a document once its aliases are expanded, so that a small file cannot fill the memory. A complete
// KubeletConfiguration has about 300 nodes.
const maxNodes = 100_000

// maxDepth bounds the nesting of a document; an alias inside its own anchor would nest for ever.
const maxDepth = 64

// syntaxError is where a file stops being YAML.
type syntaxError struct {
	line   int // 0 if the parser does not tell
	reason string
}

func (e *syntaxError) Error() string { return e.reason }

// parseYAML returns the root nodes of the documents in data, aliases and merge keys expanded and empty documents left
// out, up to the end or to the first syntax error. JSON is YAML.
func parseYAML(data []byte) ([]*yaml.Node, *syntaxError) {
	var roots []*yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return roots, newSyntaxError(err)
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) == 0 || doc.Content[0].ShortTag() == "!!null" {
			continue
		}
		ex := expander{left: maxNodes}
		root, serr := ex.expand(doc.Content[0], 0)
		if serr != nil {
			return roots, serr
		}
		if c := doc.HeadComment; c != "" && len(root.Content) > 0 { // on the root itself it would be written before the "---"
			root.Content[0].HeadComment = strings.TrimSpace(c + "\n\n" + root.Content[0].HeadComment)
		}
		roots = append(roots, root)
	}
}

// newSyntaxError takes the line out of the parser's "yaml: line 3: reason".
func newSyntaxError(err error) *syntaxError {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &syntaxError{reason: "not valid YAML: " + reason}
	if rest, ok := strings.CutPrefix(reason, "line "); ok {
		number, text, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			e.line, e.reason = line, "not valid YAML: "+text
		}
	}
	return e
}

// expander copies a tree, with each alias replaced by a copy of what it stands for, and each merge key ("<<") by the
// fields that its mapping does not have itself.
type expander struct{ left int }

func (e *expander) expand(n *yaml.Node, depth int) (*yaml.Node, *syntaxError) {
	if e.left--; e.left < 0 {
		return nil, &syntaxError{n.Line, fmt.Sprintf("more than %d values once aliases are expanded", maxNodes)}
	}
	if depth > maxDepth {
		return nil, &syntaxError{n.Line, fmt.Sprintf("nested more than %d deep, or an alias inside its own anchor", maxDepth)}
	}
	if n.Kind == yaml.AliasNode {
		return e.expand(n.Alias, depth+1)
	}
	out := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value, Line: n.Line, Column: n.Column,
		HeadComment: n.HeadComment, LineComment: n.LineComment, FootComment: n.FootComment}
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			child, err := e.expand(c, depth+1)
			if err != nil {
				return nil, err
			}
			out.Content = append(out.Content, child)
		}
		return out, nil
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, err := e.expand(n.Content[i], depth+1)
		if err != nil {
			return nil, err
		}
		value, err := e.expand(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		if key.ShortTag() != "!!merge" {
			out.Content = append(out.Content, key, value)
			continue
		}
		if merged, err = mergeSources(merged, value); err != nil {
			return nil, err
		}
	}
	has := map[string]bool{}
	for i := 0; i+1 < len(out.Content); i += 2 {
		has[out.Content[i].Value] = true
	}
	for i := 0; i+1 < len(merged); i += 2 {
		if !has[merged[i].Value] {
			has[merged[i].Value] = true
			out.Content = append(out.Content, merged[i], merged[i+1])
		}
	}
	return out, nil
}

// mergeSources appends the fields of the mapping, or list of mappings, that a merge key names.
func mergeSources(fields []*yaml.Node, value *yaml.Node) ([]*yaml.Node, *syntaxError) {
	sources := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		sources = value.Content
	}
	for _, s := range sources {
		if s.Kind != yaml.MappingNode {
			return nil, &syntaxError{s.Line, `not valid YAML: "<<" wants a mapping or a list of mappings`}
		}
		fields = append(fields, s.Content...)
	}
	return fields, nil
}

// nodeJSON returns the JSON of a node. Keys are sorted, a later duplicate wins. Timestamps stay text.
func nodeJSON(n *yaml.Node) (json.RawMessage, error) {
	v, err := nodeValue(n)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

func nodeValue(n *yaml.Node) (any, error) {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := nodeValue(n.Content[i+1])
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := nodeValue(c)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	var v any
	switch n.ShortTag() {
	case "!!int", "!!float", "!!bool", "!!null":
		if err := n.Decode(&v); err != nil {
			return nil, err
		}
	default:
		v = n.Value
	}
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil, fmt.Errorf("%s has no JSON form", n.Value)
	}
	return v, nil
}
