package pki

import (
	"errors"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// Check returns every reason for which the phase would refuse what is on disk, joined, or nil. It writes nothing: a
// run can tell all of it before its first effect.
func Check(files artifact.Store, c *config.Cluster, now time.Time) error {
	want := Want(c, now)
	disk := map[string]Pair{}
	for _, w := range want {
		p, err := readPair(files.ReadFile, w.Spec, c.Paths.PKI)
		if err != nil {
			return err
		}
		disk[w.Name] = p
	}
	var errs []error
	said := map[string]bool{} // leaves repeat what is wrong with their authority
	for _, d := range Decide(want, disk, now) {
		if d.Action == Refuse && !said[d.Err.Error()] {
			said[d.Err.Error()] = true
			errs = append(errs, d.Err)
		}
	}
	p, err := readServiceAccount(files, c.Paths.PKI)
	if err != nil {
		return err
	}
	if d := decideServiceAccount(p); d.action == Refuse {
		errs = append(errs, d.err)
	}
	return errors.Join(errs...)
}
