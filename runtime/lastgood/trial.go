package lastgood

import (
	"maps"
	"time"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

// Trial is what must be remembered of a version between two calls. The zero value has seen nothing. A Trial that was
// passed in is never changed.
type Trial struct {
	Version string
	Outcome Outcome
	Reason  string // as the verdict's
	Blame   string // as Verdict.Container

	at      time.Time     // of the last call
	counts  bool          // the time since then counts against the version
	waited  time.Duration // how much has
	ready   string        // ids of what ran at the last call, if it was ready then
	steady  time.Duration // how long it has been
	exits   map[string]exits
	pulls   map[string]tries // by image
	creates tries
	failing time.Duration // how long creates has gone on
}

// exits are those of the containers of one name.
type exits struct {
	count   int
	id      string // the last one looked at
	why     string // how it ended
	running string // id of the one that runs
	excused bool   // it was, or is to be, stopped for something that is not its fault
	doom    string // why it is to be stopped; "" when it is not
}

// tries are failures of one thing.
type tries struct {
	count int
	at    time.Time // of the last one
}

// Passed is the trial of a version that is known to be good, such as a stored one.
func Passed(version string) Trial { return Trial{Version: version, Outcome: GoodVersion} }

// Version names one version of a pod, "" for none.
func Version(p *manifest.StaticPod) string {
	if p == nil {
		return ""
	}
	return p.UID + "/" + p.SpecHash
}

func (t Trial) clone() Trial {
	t.exits = maps.Clone(t.exits) // pulls is replaced, not changed
	return t
}
