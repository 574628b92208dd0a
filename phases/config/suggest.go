package config

import (
	"fmt"
	"slices"
	"strings"
)

// didYouMean returns `; did you mean "x"?` for the candidate nearest to a misspelt word, or "" when none is near: at
// most a third of the letters, and at least two, may differ. Case does not count.
func didYouMean(word string, candidates []string) string {
	best, distance := "", max(2, len(word)/3)+1
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if len(word) > 2*len(c)+2 {
			continue // too long to be near, and maybe very long
		}
		if d := editDistance(strings.ToLower(word), strings.ToLower(c)); d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance is the number of bytes to insert, remove or replace to turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
