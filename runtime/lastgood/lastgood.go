// Package lastgood judges new versions of a manifest, and keeps the last one that was ready.
package lastgood

import "time"

const (
	// AnnotationRollback "true" makes the supervisor return to the last version that was ready when a newer one crash-loops,
	// does not become ready or cannot be created in time. Without it the supervisor only says why.
	AnnotationRollback = "slipway.dev/rollback"
	// AnnotationReadyWithin is how long a new version may take to become ready, as a Go duration; see Deadline for the
	// default.
	AnnotationReadyWithin = "slipway.dev/ready-within"
)

// Rejection is a version of a manifest that was given up. It is kept on disk, so that a restart of the supervisor or of
// the host does not try the version again; another edit of the manifest ends it.
type Rejection struct {
	Pod     string    `json:"pod"`     // full name
	Version string    `json:"version"` // UID/SpecHash of the rejected version
	UID     string    `json:"uid"`
	Source  string    `json:"source"`        // its file or URL
	At      time.Time `json:"at"`            // when it was given up
	Reason  string    `json:"reason"`        // one line: which container, what it did, how often, or what never came
	Log     []string  `json:"log,omitempty"` // the last lines of the container to blame, decoded
	Good    string    `json:"good"`          // UID/SpecHash of the version that was returned to
}
