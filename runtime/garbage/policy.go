package garbage

import (
	"errors"
	"fmt"
	"time"
)

// The kubelet's defaults. Kubernetes v1.36.3 pkg/kubelet/apis/config/v1beta1/defaults.go:154.
const (
	defaultHigh   = 85 // percent
	defaultLow    = 80 // percent
	defaultMinAge = 2 * time.Minute
)

// Policy says when images are removed.
type Policy struct {
	// High is the share of the image file system, in percent, from which on unused images are removed, until it is down
	// to Low. 100 is never.
	High, Low int
	// MinAge is how long an image is known before it may be removed for the space: it may have been pulled for a
	// container that is about to be made.
	MinAge time.Duration
	// MaxAge is how long an image may be unused, whatever the space; 0 is for ever.
	MaxAge time.Duration
}

// ParsePolicy takes the fields imageGCHighThresholdPercent, imageGCLowThresholdPercent, imageMinimumGCAge and
// imageMaximumGCAge of a KubeletConfiguration; nil and 0 are the kubelet's defaults.
func ParsePolicy(high, low *int32, minAge, maxAge time.Duration) (Policy, error) {
	p := Policy{High: defaultHigh, Low: defaultLow, MinAge: defaultMinAge, MaxAge: maxAge}
	if high != nil {
		p.High = int(*high)
	}
	if low != nil {
		p.Low = int(*low)
	}
	if minAge != 0 {
		p.MinAge = minAge
	}
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	wrong(p.High < 0 || p.High > 100, "imageGCHighThresholdPercent %d: must be from 0 to 100", p.High)
	wrong(p.Low < 0 || p.Low > 100, "imageGCLowThresholdPercent %d: must be from 0 to 100", p.Low)
	wrong(p.Low >= p.High, "imageGCLowThresholdPercent %d: must be below imageGCHighThresholdPercent, %d", p.Low, p.High)
	wrong(p.MinAge < 0, "imageMinimumGCAge %s: must not be negative", p.MinAge)
	wrong(p.MaxAge < 0, "imageMaximumGCAge %s: must not be negative", p.MaxAge)
	wrong(p.MaxAge > 0 && p.MaxAge <= p.MinAge, "imageMaximumGCAge %s: must be longer than imageMinimumGCAge, %s", p.MaxAge, p.MinAge)
	return p, errors.Join(errs...)
}

// off tells whether no image is ever removed.
func (p Policy) off() bool { return p.High == 100 && p.MaxAge == 0 }
