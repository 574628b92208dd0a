package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with what the user gave. The error of Load joins them; errors.As finds the first.
type Problem struct {
	Source string // the file, or the flag or variable; "" for a value that was derived from the host
	Line   int    // in the file, from 1; 0 where there is none
	Field  string // path of the field, as it is written in the file; "" for a flag
	Reason string // what is wrong, and what to do
}

// Error returns "file:line: field: reason", leaving out what is not known.
func (p *Problem) Error() string {
	where := p.Source
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.Source, p.Line)
	}
	parts := slices.DeleteFunc([]string{where, p.Field, p.Reason}, func(s string) bool { return s == "" })
	return strings.Join(parts, ": ")
}

// report collects what is found about one input, and knows where each field came from.
type report struct {
	file     string
	begin    int               // line of the document that this is about, where it is about one
	lines    map[string]int    // field path → line of the file
	flags    map[string]string // field path → flag or variable that set it
	unread   map[string]bool   // field paths that could not be decoded: their value says nothing
	problems []*Problem
	warnings []*Problem
}

func newReport(file string) *report {
	return &report{file: file, lines: map[string]int{}, flags: map[string]string{}, unread: map[string]bool{}}
}

// problemf records a problem of a field's value, unless the field could not be decoded in the first place.
func (r *report) problemf(field, format string, args ...any) {
	for f := field; f != ""; f = parent(f) {
		if r.unread[f] {
			return
		}
	}
	r.problems = append(r.problems, r.at(field, fmt.Sprintf(format, args...)))
}

// warnf records something the user should know about a field that does no harm.
func (r *report) warnf(field, format string, args ...any) {
	r.warnings = append(r.warnings, r.at(field, fmt.Sprintf(format, args...)))
}

// unreadable records that the field at a line of the file could not be decoded.
func (r *report) unreadable(line int, field, format string, args ...any) {
	r.unread[field] = true
	r.problems = append(r.problems, &Problem{r.file, line, field, fmt.Sprintf(format, args...)})
}

// given says whether the file or a flag names the field.
func (r *report) given(field string) bool {
	return r.lines[field] > 0 || r.flags[field] != ""
}

// at places a message at the flag or line that gave the field, or at the line of the nearest field around it.
func (r *report) at(field, reason string) *Problem {
	if flag := r.flags[field]; flag != "" {
		return &Problem{Source: flag, Reason: reason}
	}
	for f := field; f != ""; f = parent(f) {
		if line := r.lines[f]; line > 0 {
			return &Problem{r.file, line, field, reason}
		}
	}
	if r.begin > 0 {
		return &Problem{r.file, r.begin, field, reason}
	}
	return &Problem{Field: field, Reason: reason}
}

// err joins the problems, those of the file first and by line. It is nil when there are none.
func (r *report) err() error {
	sortByLine(r.problems)
	errs := make([]error, len(r.problems))
	for i, p := range r.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// warningTexts returns the warnings in the order of err.
func (r *report) warningTexts() []string {
	sortByLine(r.warnings)
	var texts []string
	for _, w := range r.warnings {
		texts = append(texts, w.Error())
	}
	return texts
}

func sortByLine(ps []*Problem) {
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		if (a.Line > 0) != (b.Line > 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Compare(a.Line, b.Line)
	})
}

// parent returns the path of the field around a field: "a.b[2]" → "a.b" → "a" → "".
func parent(field string) string {
	if i := strings.LastIndexAny(field, ".["); i > 0 {
		return field[:i]
	}
	return ""
}
