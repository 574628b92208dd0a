package config

import (
	"strings"
	"testing"
)

func TestDidYouMean(t *testing.T) {
	names := []string{"serviceSubnet", "podSubnet", "dnsDomain", "v"}
	for word, want := range map[string]string{
		"serviceSubnets": `; did you mean "serviceSubnet"?`,
		"SERVICESUBNET":  `; did you mean "serviceSubnet"?`,
		"subnet":         "",
		"pdoSubnet":      `; did you mean "podSubnet"?`,
		"x":              "", // one letter is as near to "v" as to anything
		"":               "",
		"dnsDomein":      `; did you mean "dnsDomain"?`,

		strings.Repeat("serviceSubnet", 1000): "",
	} {
		if got := didYouMean(word, names); got != want {
			t.Errorf("%.20q: got %q, wanted %q", word, got, want)
		}
	}
}
