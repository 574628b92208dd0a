// Package phases orders, selects and runs the steps of a workflow.
package phases

import (
	"context"
	"fmt"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/kubeapi"
)

// Phase is one named step, or a group of them. A group has Phases and no Run. Its full name is the path to it in the
// tree, such as "control-plane/apiserver"; Name is the last element of that path, or all of it.
type Phase struct {
	Name   string
	Short  string
	Long   string
	After  []string // full names that must have run before; checked by Plan, before any effect
	Phases []Phase
	Run    func(context.Context, *Env) error

	// Begin, if set, is work of the phase that may start early: it runs beside other phases once those of BeginAfter
	// are done (at once if there are none, or none of them is in the plan). The phase's turn waits for it, and then
	// calls Run, if there is one. What Begin reports is held until that turn, and its error is the phase's error.
	//
	//	certs ──────────────► etcd ─► supervisor
	//	└─ Begin of supervisor ─────►│wait│ Run
	//
	// Begin writes no files: its Env refuses Put and Remove, because what is flushed after another phase would be half
	// of this one. It may act through Host.
	Begin      func(context.Context, *Env) error
	BeginAfter []string // full names; each comes before this phase
}

// Env is everything a phase may use. Files, Host and API decide whether effects are real. Report may be called from any
// goroutine; a run fills in the event's Phase and Time.
type Env struct {
	Config *config.Cluster
	Files  artifact.Store
	Host   host.Host
	API    kubeapi.API
	Now    func() time.Time
	Report func(Event)
	Join   *Join // filled in by phases, for whoever made the Env to show; the same one for all phases of a run
}

// Join is what another machine needs to join the cluster. It holds secrets, so it is in no Event.
type Join struct {
	Tokens         []string // that a worker may use
	CertificateKey string   // of the certificates that were uploaded; "" if none were
	Commands       []JoinCommand
}

// JoinCommand is a command line to be run on the other machine.
type JoinCommand struct {
	ControlPlane bool // joins a further control-plane node
	Token        string
	Line         string
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
	Begun    // the early part of a phase (Phase.Begin) has started; Time says when, which is before PhaseStarted
	Joined   // the early part has ended, after Elapsed; Err is set if it failed
)

// String returns the kind's name in JSON output.
func (k EventKind) String() string {
	switch k {
	case PhaseStarted:
		return "phase-started"
	case PhaseDone:
		return "phase-done"
	case PhaseFailed:
		return "phase-failed"
	case Changed:
		return "changed"
	case Progress:
		return "progress"
	case Note:
		return "note"
	case Warning:
		return "warning"
	case Begun:
		return "begun"
	case Joined:
		return "joined"
	}
	return fmt.Sprintf("event %d", int(k))
}

// Event is what a run reports as it goes. It is data: only the command line turns it into text.
type Event struct {
	Kind    EventKind
	Phase   string // full name
	Time    time.Time
	Elapsed time.Duration // PhaseDone and PhaseFailed (since the phase's turn came) and Joined
	Text    string
	Change  artifact.Change
	Err     error
	Done    int64 // Progress
	Total   int64 // Progress; 0 when unknown
	Unit    string
}
