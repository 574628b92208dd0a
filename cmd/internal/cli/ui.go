package cli

// What slipway says, and where:
//   - Results go to stdout: manifests, lists, JSON. Nothing else does, so that it can be piped.
//   - Progress, warnings and errors go to stderr. An error starts with "slipway: ", has no capital and no final period;
//     what to do about it follows on lines of its own.
//   - One line per phase, with its time. On a terminal long work shows a bar or spinner that leaves nothing behind.
//   - Secrets are never printed; a secret file is named with its size and SHA-256 at most.
// This file is the only one that turns events into text.

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/slipway-k8s/slipway/phases"
	"github.com/slipway-k8s/slipway/phases/artifact"
)

// ui renders the events of one run. It may be used from several goroutines.
type ui struct {
	out   io.Writer // stderr
	tty   bool
	would bool // the run only tells what it would do

	mu      sync.Mutex
	bar     *progressbar.ProgressBar
	barText string
	changes []artifact.Change
	trace   *trace // nil without --trace
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
		u.spin(e)
	case phases.Progress:
		u.progress(e)
	case phases.Changed:
		if e.Change.Op != artifact.Unchanged {
			u.changes = append(u.changes, e.Change)
			u.line("  %s", describe(e.Change, u.would))
		}
	case phases.Note:
		u.line("  %s", e.Text)
	case phases.Warning:
		u.line("warning: %s", e.Text)
	case phases.PhaseDone:
		u.clear()
		if !u.would {
			u.line("%-40s %8s", e.Phase, elapsed(e.Elapsed))
		}
	case phases.PhaseFailed:
		u.clear()
		u.line("%-40s %8s  failed", e.Phase, elapsed(e.Elapsed))
	}
}

// line prints one line and puts a running bar back below it at its next step.
func (u *ui) line(format string, args ...any) {
	if u.bar != nil {
		u.bar.Clear()
	}
	fmt.Fprintf(u.out, format+"\n", args...)
}

// spin shows, on a terminal, which phase is at work.
func (u *ui) spin(e phases.Event) {
	if !u.tty || u.would {
		return
	}
	u.clear()
	u.bar, u.barText = newBar(u.out, -1, "", e.Phase), e.Phase
}

// progress moves the bar of long work; off a terminal it prints a line for every step that has a text of its own.
func (u *ui) progress(e phases.Event) {
	if !u.tty {
		if e.Text != "" && (e.Unit != "B" || e.Done == 0 || e.Done == e.Total) {
			u.line("  %s", e.Text)
		}
		return
	}
	if u.bar == nil || u.barText != e.Text || int64(u.bar.GetMax64()) != e.Total {
		u.clear()
		u.bar, u.barText = newBar(u.out, max(e.Total, -1), e.Unit, e.Text), e.Text
	}
	u.bar.Set64(e.Done)
}

func newBar(out io.Writer, total int64, unit, text string) *progressbar.ProgressBar {
	if total == 0 {
		total = -1
	}
	return progressbar.NewOptions64(total, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(text),
		progressbar.OptionShowBytes(unit == "B"), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSpinnerType(14), progressbar.OptionSetElapsedTime(true))
}

func (u *ui) clear() {
	if u.bar != nil {
		u.bar.Clear()
		u.bar = nil
	}
}

// describe is the line for one change, in the same words for a run and for its preview.
func describe(c artifact.Change, would bool) string {
	verb := map[artifact.Op]string{artifact.Create: "create", artifact.Update: "update", artifact.Chmod: "chmod", artifact.Remove: "remove"}[c.Op]
	if would {
		verb = "would " + verb
	}
	f := c.After
	if f == nil {
		f = c.Before
	}
	kind := ""
	if f.Mode.IsDir() {
		kind = "/"
	}
	return fmt.Sprintf("%s %s%s %04o", verb, f.Path, kind, f.Mode.Perm())
}

// fingerprint is all that is ever shown of a secret's content.
func fingerprint(f artifact.File) string {
	return fmt.Sprintf("%d bytes, SHA-256 %x", len(f.Data), sha256.Sum256(f.Data))
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
