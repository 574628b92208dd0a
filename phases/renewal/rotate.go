package renewal

import (
	"path/filepath"
	"strings"

	"github.com/slipway-k8s/slipway/phases/pki"
)

// rotation are the files beside an authority's own while it is replaced, below the PKI directory.
type rotation struct {
	nextCert, nextKey     string // the one to come
	formerCert, formerKey string // the one that goes
	cross                 string // the next one's name and key, signed by the former
}

func rotationFiles(ca string) rotation {
	s, _ := pki.LookUp(ca)
	base := func(suffix string) string { return filepath.FromSlash(strings.TrimSuffix(s.Base, ".crt") + suffix) }
	return rotation{base("-next.crt"), base("-next.key"), base("-former.crt"), base("-former.key"), base("-cross.crt")}
}
