package phases

import (
	"fmt"
	"strings"
)

// didYouMean returns `: did you mean "…"?` with the nearest of the names, or "" when none is near. A name's last
// element counts as much as all of it, because that is what people type.
func didYouMean(name string, names []string) string {
	name = strings.TrimSuffix(name, "/all")
	best, distance := "", len(name)/2+1 // half of it mistyped is no longer the same word
	for _, n := range names {
		last := n[strings.LastIndexByte(n, '/')+1:]
		if d := min(editDistance(name, n), editDistance(name, last)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// editDistance counts the insertions, deletions and substitutions of bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
