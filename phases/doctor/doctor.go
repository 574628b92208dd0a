// Package doctor decides from what was seen of a node what is wrong with it, and what to do.
package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/pki"
	"github.com/slipway-k8s/slipway/phases/preflight"
)

// Severity orders findings.
type Severity int

const (
	Error   Severity = iota // the control plane does not work, or will not for long
	Warning                 // it works, and somebody should act
	Note                    // of no consequence before this node gets a kubelet, or pods with a network of their own
)

// String is the severity's name in every output.
func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	case Note:
		return "note"
	}
	return fmt.Sprintf("severity %d", int(s))
}

// MarshalText makes it a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Check    string   `json:"check"` // "Component", "Certificate", or the name of a preflight check
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"` // what to do
}

// Seen is what was seen of the node, as plain data.
type Seen struct {
	Config      *config.Cluster // what runs, or what would be made
	Initialized bool            // whether there is a control plane here
	Unread      bool            // its files did not answer: what they would say, Initialized too, is not known for sure
	Systemd     bool
	Suffix      string // what commands need to mean the same instance: " --instance NAME" or ""
	Now         time.Time
	Unanswered  []string // what did not answer in time, as nouns
	Unfinished  *Unfinished

	Machine []preflight.Problem // of its inspection
	Files   []preflight.Problem // of certificates and kubeconfigs on disk

	Supervisor   Supervisor
	Components   []Component
	Refused      []Refusal // manifests that the supervisor does not take and that no component is told for
	API          API
	Certificates []pki.Expiry
	Runtime      Runtime
	Etcd         *Etcd         // nil where it was not asked
	Disk         *host.Latency // nil where it was not measured
}

// Unfinished is a change of the control plane that was interrupted; nil for none.
type Unfinished struct{ What, Next string }

// Supervisor is whether it answers.
type Supervisor struct {
	Err string // why it does not, "" when it does
}

// Component is a static pod as the supervisor knows it.
type Component struct {
	Name     string // of the manifest: "etcd"
	Ready    bool
	Ended    bool // well, as its restart policy lets it
	State    string
	Why      string
	Restarts int
	Since    time.Time // of its state
	LastExit string    // "Error, exit code 1"
	Manifest string    // path
	Problem  string    // why a newer manifest is not taken
	Rejected string    // why a newer version was given up
	NotShown string    // why the Kubernetes API does not show it
	Version  string    // tag of its image
}

// Refusal is a manifest that is not taken.
type Refusal struct{ Source, Reason string }

// API is what the API server answered.
type API struct {
	Asked   bool
	URL     string
	Err     string   // why it did not answer
	Live    bool     // /livez
	Failing []string // checks of /readyz that fail, or all that it said
	Stale   bool     // it serves another certificate than the one on disk
}

// Runtime is the container runtime.
type Runtime struct {
	Own           bool // slipway's own containerd
	Socket        string
	Name, Version string
	Err           string // why it does not answer
}

// Etcd is what etcd says of itself, in bytes.
type Etcd struct {
	Err                string
	Size, InUse, Quota int64
	HasLeader          bool
}

// Diagnose returns the findings, worst first, and of one severity in the order of what depends on what.
func Diagnose(s Seen) []Finding {
	found := []Finding{}
	for _, check := range []func(Seen) []Finding{
		unanswered, unfinished, files, runtime, supervisor, components, api, etcd, certificates, machine, disk, versions,
	} {
		found = append(found, check(s)...)
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return found
}

// Worst returns the worst severity of sorted findings; false where nothing is to be done. A note is nothing to do.
func Worst(found []Finding) (Severity, bool) {
	if len(found) == 0 || found[0].Severity == Note {
		return Note, false
	}
	return found[0].Severity, true
}

func failure(check, fix, message string, args ...any) Finding {
	return Finding{Error, check, fmt.Sprintf(message, args...), fix}
}

func warning(check, fix, message string, args ...any) Finding {
	return Finding{Warning, check, fmt.Sprintf(message, args...), fix}
}

func unanswered(s Seen) []Finding {
	var found []Finding
	if s.Unread {
		found = append(found, failure("Files", "look at dmesg for a disk or file system that hangs: "+s.Config.Paths.Kubernetes+", "+s.Config.Paths.State,
			"the files of the control plane cannot be read in time: what they would say is not known, and what needs them was not looked at"))
	}
	for _, what := range s.Unanswered {
		found = append(found, warning("Unanswered", "run slipway doctor again; if it is the same, look at dmesg for a disk or file system that hangs",
			"%s could not be looked at in time", what))
	}
	return found
}

// unfinished comes early: what else is wrong may follow from it.
func unfinished(s Seen) []Finding {
	if s.Unfinished == nil {
		return nil
	}
	return []Finding{failure("Unfinished", s.Unfinished.Next, "%s", s.Unfinished.What)}
}

// files and machine take over what preflight finds.
func files(s Seen) []Finding { return problems(s.Files) }

func machine(s Seen) []Finding { return problems(s.Machine) }

func problems(list []preflight.Problem) []Finding {
	var found []Finding
	for _, p := range list {
		f := Finding{Warning, p.Name, p.Message, p.Fix}
		switch {
		case p.Later:
			f.Severity = Note
		case p.Severity == preflight.Fatal:
			f.Severity = Error
		}
		found = append(found, f)
	}
	return found
}
