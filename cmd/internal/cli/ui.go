package cli

// What slipway says, and where:
//   - Results go to stdout: manifests, lists, JSON. Nothing else does, so that it can be piped.
//   - Progress, warnings and errors go to stderr. An error starts with "slipway: ", has no capital and no final period;
//     what to do about it follows on lines of its own.
//   - One line per phase, with its time, and below it what the phase changed and has to tell. What only shows that long
//     work moves on is for terminals, where it stands on a last line that leaves nothing behind; elsewhere it is
//     printed when nothing else was for a while.
//   - Secrets are never printed; a secret file is named with its size and SHA-256 at most.
// This file is the only one that turns events into text.

import (
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
)

// patience is how long a log may stand still before it shows what is waited for. A phase takes milliseconds, all of
// init some seconds: who reads a log of ten quiet seconds wonders.
const patience = 10 * time.Second

// ui renders the events of one run. It may be used from several goroutines. Use newUI, and close it.
type ui struct {
	out   io.Writer // stderr
	would bool      // the run only tells what it would do
	trace *trace    // nil without --trace

	mu      sync.Mutex
	live    *activity // nil off a terminal
	details []string  // of the phase at work: its own line comes first
	spoke   time.Time // when the last line was printed
	changes []artifact.Change
	written []string // paths of all files that phases put, the unchanged ones too
}

func newUI(std Streams, would bool, t *trace) *ui {
	u := &ui{out: std.Err, would: would, trace: t}
	if terminal, ok := terminalOf(std.Err, std.Environ); ok && !would {
		u.live = newActivity(&u.mu, terminal)
	}
	return u
}

// close ends what moves on the terminal.
func (u *ui) close() {
	if u.live != nil {
		u.live.close()
	}
}

// report is the Env.Report of a run.
func (u *ui) report(e phases.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.trace != nil {
		u.trace.event(e)
	}
	switch e.Kind {
	case phases.PhaseStarted:
		if u.spoke.IsZero() {
			u.spoke = e.Time
		}
		if u.live != nil {
			u.live.begin(e.Phase)
		}
	case phases.Changed:
		if e.Change.Op != artifact.Remove {
			u.written = append(u.written, e.Change.After.Path)
		}
		if e.Change.Op != artifact.Unchanged {
			u.changes = append(u.changes, e.Change)
			u.detail(e, describe(e.Change, u.would))
		}
	case phases.Note:
		u.detail(e, e.Text)
	case phases.Warning:
		u.line(e, "warning: "+e.Text)
	case phases.Progress:
		u.progress(e)
	case phases.PhaseDone:
		u.end(e, "")
	case phases.PhaseFailed:
		u.end(e, "  failed")
	}
}

// detail keeps a line back until its phase's own, save for a preview, which has none.
func (u *ui) detail(e phases.Event, text string) {
	if u.would {
		u.line(e, "  "+text)
		return
	}
	u.details = append(u.details, text)
}

func (u *ui) progress(e phases.Event) {
	switch {
	case u.live != nil:
		u.live.progress(e)
	case u.would && e.Text != "":
		u.line(e, "  "+e.Text)
	case e.Text != "" && e.Time.Sub(u.spoke) >= patience:
		u.line(e, "  "+e.Phase+": "+e.Text)
	}
}

// end prints a phase's line and what belongs below it.
func (u *ui) end(e phases.Event, how string) {
	if u.live != nil {
		u.live.end()
	}
	if !u.would || how != "" {
		u.line(e, fmt.Sprintf("%-40s %8s%s", e.Phase, elapsed(e.Elapsed), how))
	}
	for _, text := range u.details {
		u.line(e, "  "+text)
	}
	u.details = nil
}

// line prints one line, above the moving one where there is one.
func (u *ui) line(e phases.Event, text string) {
	if u.live != nil {
		u.live.hide()
	}
	fmt.Fprintln(u.out, text)
	u.spoke = e.Time
}

// describe is the line for one change, in the same words for a run and for its preview.
func describe(c artifact.Change, would bool) string {
	verb := c.Op.String()
	if would {
		verb = "would " + verb
	}
	f := c.File()
	kind := ""
	if f.Mode.IsDir() {
		kind = "/"
	}
	return fmt.Sprintf("%s %s%s %s", verb, f.Path, kind, permission(f.Mode))
}

// elapsed rounds a duration to what a reader cares for: milliseconds below a second, tenths above.
func elapsed(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// permission is a mode in the octal form that JSON consumers and humans both read.
func permission(m fs.FileMode) string { return fmt.Sprintf("%04o", m.Perm()) }
