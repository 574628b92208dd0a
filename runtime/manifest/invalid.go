package manifest

import (
	"fmt"
	"strings"
)

// InvalidError is every problem of one manifest, so that a user repairs it once.
type InvalidError struct {
	Source string
	Fields []FieldError // at least one, in the order of their places
}

// FieldError is one problem at one place.
type FieldError struct {
	Line, Column int    // both from 1
	Field        string // spec.containers[0].image; "" for the document as a whole
	Detail       string
}

// Error prints one line per problem, as compilers do: path:line:column: field: detail.
func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", e.Source, f.Line, f.Column, f.Error())
	}
	return strings.Join(lines, "\n")
}

func (f FieldError) Error() string {
	if f.Field == "" {
		return f.Detail
	}
	return f.Field + ": " + f.Detail
}
