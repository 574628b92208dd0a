package phases

import (
	"fmt"
	"strings"

	"github.com/agnivade/levenshtein"
)

// didYouMean returns `: did you mean "…"?` with the nearest of the names, or "" when none is near. A name's last
// element counts as much as all of it, because that is what people type.
func didYouMean(name string, names []string) string {
	name = strings.TrimSuffix(name, "/all")
	best, distance := "", len(name)/2+1 // half of it mistyped is no longer the same word
	for _, n := range names {
		last := n[strings.LastIndexByte(n, '/')+1:]
		if d := min(levenshtein.ComputeDistance(name, n), levenshtein.ComputeDistance(name, last)); d < distance {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}
