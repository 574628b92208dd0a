package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// table prints rows below a header in aligned columns.
func table(out io.Writer, header []string, rows [][]string) error {
	var c columns
	return c.print(out, append([][]string{header}, rows...))
}

// columns remembers how wide the columns of a table are, so that rows that come later stand below the earlier ones.
type columns struct{ widths []int }

// gap is the space between two columns.
const gap = "   "

// print prints rows. A column grows with what comes, and never shrinks. Of a cell, line breaks are spaces.
func (c *columns) print(out io.Writer, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(c.widths) {
				c.widths = append(c.widths, 0)
			}
			c.widths[i] = max(c.widths[i], utf8.RuneCountInString(cell))
		}
	}
	var text strings.Builder
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString(gap)
			}
			line.WriteString(strings.ReplaceAll(cell, "\n", " "))
			line.WriteString(strings.Repeat(" ", c.widths[i]-utf8.RuneCountInString(cell)))
		}
		text.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("printing a table: %w", err)
	}
	return nil
}

// printJSON prints a value as indented JSON.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing JSON: %w", err)
	}
	return nil
}

// printYAML prints a value as YAML, by its JSON names.
func printYAML(out io.Writer, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("printing YAML: %w", err)
	}
	if _, err := out.Write(text); err != nil {
		return fmt.Errorf("printing YAML: %w", err)
	}
	return nil
}

// print prints a value where the format is one for programs. In a series each YAML value is a document.
func (o *output) print(out io.Writer, v any, series bool) (done bool, err error) {
	switch o.format {
	case "json":
		return true, printJSON(out, v)
	case "yaml":
		if series {
			fmt.Fprintln(out, "---")
		}
		return true, printYAML(out, v)
	}
	return false, nil
}

// age is how long ago something was, in its two largest units: 3d4h, 5m20s, 12s.
func age(d time.Duration) string {
	d = max(0, d.Round(time.Second))
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%ds", int(d.Seconds()))
}

// since is the age of what was at t, "-" for what was not.
func since(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return age(now.Sub(t))
}
