package preflight

import (
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// earliest is before any clock that is right: Kubernetes v1.34, the oldest that slipway installs, is of August 2025.
var earliest = time.Date(2025, 8, 27, 0, 0, 0, 0, time.UTC)

// checkClock refuses a clock that is years behind: every certificate would be expired, for everyone else, before it is
// used. One that is wrong by less shows in the certificates, which have a check of their own.
func checkClock(_ *config.Cluster, seen *host.Inspection) []Problem {
	if seen.Now.IsZero() {
		return nil
	}
	if seen.Now.Before(earliest) {
		return []Problem{fatal("Clock", "set it, for example with date -s or a time service", "this machine's clock says %s, which is before Kubernetes v1.34 was released",
			seen.Now.UTC().Format(time.RFC3339))}
	}
	// Only a warning: a node by itself needs no one's time. Others that join, and certificates and tokens that are checked
	// elsewhere, do.
	if seen.Clock.Known && !seen.Clock.Synchronized {
		return []Problem{warning("ClockSync", "start a time service, such as systemd-timesyncd or chrony",
			"the kernel says that nothing keeps this machine's clock synchronized")}
	}
	return nil
}
