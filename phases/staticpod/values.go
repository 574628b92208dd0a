package staticpod

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/templates"
)

// startupPeriod is the period of every startup probe. The templates spell it as 10 s.
const startupPeriod = 10 * time.Second

// StartupFailures returns how many startup probes may fail until a component has had the configured time to come
// up: rounded up, and at least one.
func StartupFailures(cfg *config.Cluster) int32 {
	timeout := cfg.Timeouts.ControlPlaneComponentHealthCheck
	return max(1, int32((timeout+startupPeriod-1)/startupPeriod))
}

// Args returns the user's flags in the form that templates take.
func Args(args []config.Arg) templates.Args {
	var out templates.Args
	for _, a := range args {
		out = append(out, templates.Arg(a))
	}
	return out
}

// HTTPSProbe returns where a component answers that listens on host and port, unless extra flags move it. An
// unspecified address becomes "", the node's address, for nothing can be asked at 0.0.0.0.
func HTTPSProbe(cfg *config.Cluster, host string, port uint16, extra templates.Args) (templates.Probe, error) {
	if value, ok := extra.Last("secure-port"); ok {
		number, err := strconv.ParseUint(value, 10, 16)
		if err != nil || number == 0 {
			return templates.Probe{}, fmt.Errorf("extraArgs \"secure-port\": %q is not a port from 1 to 65535: the probes need one", value)
		}
		port = uint16(number)
	}
	if host == "0.0.0.0" || host == "::" {
		host = ""
	}
	return templates.Probe{Host: host, Port: int32(port), Scheme: corev1.URISchemeHTTPS, StartupFailures: StartupFailures(cfg)}, nil
}
