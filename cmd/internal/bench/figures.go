package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// median returns the middle of the values, or the mean of the two in the middle. There must be one at least.
func median[T ~int64 | ~float64](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// spread prints the smallest and the largest value.
func spread(values []time.Duration) string {
	return duration(slices.Min(values)) + " to " + duration(slices.Max(values))
}

// duration prints seconds with two decimals, and what is shorter than a second in milliseconds.
func duration(d time.Duration) string {
	if d = d.Round(time.Millisecond); d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

// percent prints a share of one.
func percent(share float64) string { return fmt.Sprintf("%.2f %%", 100*share) }

// milliseconds prints a duration of a trace, without the unit.
func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond))
}

// megabytes prints bytes in units of 10⁶, the unit of the targets.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// target says how a figure stands to its limit, both in the same unit.
func target(figure, limit float64, format string) string {
	verdict := "met"
	if figure > limit {
		verdict = "missed"
	}
	return fmt.Sprintf("≤ "+format+": %s", limit, verdict)
}

// table renders rows as Markdown, with columns as wide as their widest cell.
func table(header []string, rows [][]string) string {
	widths := make([]int, len(header))
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		for i, cell := range cells {
			fmt.Fprintf(&b, "| %-*s ", widths[i], cell)
		}
		b.WriteString("|\n")
	}
	rule := make([]string, len(header))
	for i, w := range widths {
		rule[i] = strings.Repeat("-", max(w, 3))
	}
	line(header)
	line(rule)
	for _, row := range rows {
		line(row)
	}
	return b.String()
}
