package manifest

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// tree knows on which line each field of a document stands. Without a root it knows nothing, and answers so.
type tree struct {
	root   *yamlv3.Node
	before int
}

// locate reads the places of a document. The document may be broken: then the decoder says why.
func locate(doc document) *tree {
	data := doc.data
	if json.Valid(data) {
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" ")) // in JSON only ever white space, which YAML disputes
	}
	var n yamlv3.Node
	if err := yamlv3.Unmarshal(data, &n); err != nil || len(n.Content) == 0 {
		return &tree{before: doc.before}
	}
	return &tree{root: n.Content[0], before: doc.before}
}

// at is an error at a field, placed on the line of the nearest part of the path that exists.
func (t *tree) at(path, detail string) *FieldError {
	f := &FieldError{Field: path, Detail: detail}
	if t.root == nil {
		return f
	}
	n := t.find(path)
	f.Line, f.Column = n.Line+t.before, n.Column
	return f
}

// locateAll places the errors of a validation.
func (t *tree) locateAll(errs field.ErrorList) []FieldError {
	out := make([]FieldError, 0, len(errs))
	for _, e := range errs {
		out = append(out, *t.at(e.Field, e.ErrorBody()))
	}
	return out
}

// find follows a path such as spec.containers[0].env[1].name or metadata.labels[a.b/c] as far as it goes.
func (t *tree) find(path string) *yamlv3.Node {
	n := t.root
	for path != "" {
		var step string
		switch path[0] {
		case '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return n
			}
			step, path = path[1:end], path[end+1:]
		default:
			path = strings.TrimPrefix(path, ".")
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			step, path = path[:end], path[end:]
		}
		next := down(n, step)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func down(n *yamlv3.Node, step string) *yamlv3.Node {
	for n.Kind == yamlv3.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	case yamlv3.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i]
		}
	}
	return nil
}
