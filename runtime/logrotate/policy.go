// Package logrotate keeps the logs of running containers from filling the disk.
//
// A log NAME.log that has grown too large is moved to NAME.log.YYYYMMDD-HHMMSS, and the runtime is told to begin a new
// one. Of the parts that were moved all but the newest are compressed to NAME.log.YYYYMMDD-HHMMSS.gz, and the oldest are
// removed. The names are the kubelet's, so that either of the two goes on where the other has ended.
package logrotate

import (
	"fmt"

	"k8s.io/apimachinery/pkg/api/resource"
)

// The kubelet's defaults. Kubernetes v1.36.3 pkg/kubelet/apis/config/v1beta1/defaults.go:258.
const (
	defaultMaxSize  = "10Mi"
	defaultMaxFiles = 5
	defaultWorkers  = 1
)

// Policy says how much of a container's output is kept.
type Policy struct {
	// MaxSize is the size in bytes at which a log is rotated; below 0 none ever is.
	MaxSize int64
	// MaxFiles is how many files one log may have, the one that is written to among them; at least 2. Together they have
	// at most MaxFiles times MaxSize bytes, or fewer files are kept: after a flood each may be larger than MaxSize.
	MaxFiles int
	// Workers is how many files are compressed at the same time.
	Workers int
}

// ParsePolicy takes the fields containerLogMaxSize, containerLogMaxFiles and containerLogMaxWorkers of a
// KubeletConfiguration; "" and nil are the kubelet's defaults.
func ParsePolicy(maxSize string, maxFiles, workers *int32) (Policy, error) {
	p := Policy{MaxFiles: defaultMaxFiles, Workers: defaultWorkers}
	if maxSize == "" {
		maxSize = defaultMaxSize
	}
	size, err := resource.ParseQuantity(maxSize)
	if err != nil {
		return Policy{}, fmt.Errorf("containerLogMaxSize %q: %w", maxSize, err)
	}
	p.MaxSize = size.Value()
	if maxFiles != nil {
		p.MaxFiles = int(*maxFiles)
	}
	if workers != nil {
		p.Workers = int(*workers)
	}
	switch {
	case p.MaxSize == 0:
		return Policy{}, fmt.Errorf("containerLogMaxSize %q: must not be 0; a negative size switches rotation off", maxSize)
	case p.MaxFiles < 2:
		return Policy{}, fmt.Errorf("containerLogMaxFiles %d: must be at least 2", p.MaxFiles)
	case p.Workers < 1:
		return Policy{}, fmt.Errorf("containerLogMaxWorkers %d: must be at least 1", p.Workers)
	}
	return p, nil
}
