package kubeconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/pki"
)

// Check returns every reason for which the phase would refuse what is on disk, joined, or nil. It writes nothing: a
// run can tell all of it before its first effect. What is wrong with the authority itself is pki.Check's to tell.
func Check(files artifact.Store, c *config.Cluster, now time.Time) error {
	want := Want(c, now)
	certPath, keyPath := pki.Table()[0].CertPath(c.Paths.PKI), pki.Table()[0].KeyPath(c.Paths.PKI)
	fresh := absent(files, certPath) && absent(files, keyPath)
	var a *pki.Authority
	if !absent(files, certPath) {
		var err error
		if a, err = pki.LoadAuthority(files, c.Paths, now); err != nil {
			return nil
		}
	}
	var errs []error
	gone := false
	for _, w := range want {
		_, have, err := read(files, w.Path)
		switch {
		case err != nil:
			errs = append(errs, err)
		case fresh && have != nil:
			errs = append(errs, fmt.Errorf("kubeconfig %q is there while the certificate authority %q is missing; put the authority back, or remove the file to have it written anew", w.Path, certPath))
		case a == nil:
		case have == nil:
			gone = true
		default:
			if d := Decide(w, have, a, now); d.Action == pki.Refuse {
				errs = append(errs, d.Err)
			}
		}
	}
	if gone && a.Key == nil {
		errs = append(errs, missing(files, want, a.KeyPath))
	}
	return errors.Join(errs...)
}

func absent(files artifact.Store, path string) bool {
	_, err := files.ReadFile(path)
	return errors.Is(err, fs.ErrNotExist)
}
