// Package phases orders, selects and runs the steps of a workflow.
package phases

import (
	"context"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
)

// Phase is one named step, or a group of them. A group has Phases and no Run. Names are paths in the tree, such as
// "control-plane/apiserver".
type Phase struct {
	Name   string
	Short  string
	Long   string
	After  []string // full names that must have run before; checked by Plan, before any effect
	Phases []Phase
	Run    func(context.Context, *Env) error
}

// Env is everything a phase may use. Files and Host decide whether effects are real.
type Env struct {
	Config *config.Cluster
	Files  artifact.Store
	Host   host.Host
	Now    func() time.Time
	Report func(Event)
}

// EventKind says what an Event is about.
type EventKind int

const (
	PhaseStarted EventKind = iota
	PhaseDone
	PhaseFailed
	Changed  // a file or directory was, or would be, changed
	Progress // long work moved on: Done of Total, in Unit
	Note     // something worth a line
	Warning  // something the user should act on
)

// Event is what a run reports as it goes. It is data: only the command line turns it into text.
type Event struct {
	Kind    EventKind
	Phase   string // full name
	Time    time.Time
	Elapsed time.Duration // PhaseDone and PhaseFailed
	Text    string
	Change  artifact.Change
	Err     error
	Done    int64 // Progress
	Total   int64 // Progress; 0 when unknown
	Unit    string
}
