package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/slipway-k8s/slipway/phases"
)

// terminal is a stream that can move its cursor.
type terminal struct {
	io.Writer
	columns func() int
}

// terminalOf returns the terminal behind a stream, if there is one.
func terminalOf(w io.Writer, environ []string) (terminal, bool) {
	f, ok := w.(*os.File)
	if !ok || lookup(environ, "TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return terminal{}, false
	}
	return terminal{f, func() int {
		columns, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 80
		}
		return columns
	}}, true
}

// frame is how often the moving line is drawn.
const frame = 100 * time.Millisecond

// activity is the last line of a terminal: what is at work now, as a spinner, or as a bar where the end is known. Its
// methods are called with mu held; its own goroutine takes it. Use newActivity, and close it.
type activity struct {
	mu      sync.Locker
	out     terminal
	bar     *progressbar.ProgressBar // nil when nothing is at work
	endless bool                     // bar is a spinner
	text    string                   // of bar
	moving  []phases.Event           // transfers of this phase, each at its latest step

	stop, stopped chan struct{}
}

func newActivity(mu sync.Locker, out terminal) *activity {
	a := &activity{mu: mu, out: out, stop: make(chan struct{}), stopped: make(chan struct{})}
	go a.animate() // ended by close
	return a
}

func (a *activity) animate() {
	defer close(a.stopped)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-a.stop:
			return
		case <-tick.C:
			a.mu.Lock()
			if a.bar != nil {
				a.bar.RenderBlank() //nolint:errcheck // a terminal that is gone shows nothing
			}
			a.mu.Unlock()
		}
	}
}

// close takes the line away. It is called without the lock.
func (a *activity) close() {
	close(a.stop)
	<-a.stopped
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
}

// begin shows that a phase is at work. What takes less than a frame is never seen.
func (a *activity) begin(phase string) {
	a.end()
	a.show(phase, 0, 0)
}

func (a *activity) end() {
	a.hide()
	a.bar, a.moving = nil, nil
}

// hide makes room for a line above; the next frame draws again.
func (a *activity) hide() {
	if a.bar != nil {
		a.bar.Clear() //nolint:errcheck // as above
	}
}

// progress shows a step of the phase at work. Transfers that run side by side are one bar.
func (a *activity) progress(e phases.Event) {
	if e.Unit != "B" {
		a.show(e.Text, e.Done, e.Total)
		return
	}
	if i := slices.IndexFunc(a.moving, func(m phases.Event) bool { return m.Text == e.Text }); i >= 0 {
		a.moving[i] = e
	} else {
		a.moving = append(a.moving, e)
	}
	a.show(sum(a.moving))
}

// sum is all transfers as one: the first that still moves gives its name.
func sum(moving []phases.Event) (text string, done, total int64) {
	others := -1
	for _, m := range moving {
		done, total = done+m.Done, total+m.Total
		if m.Done < m.Total || m.Total == 0 {
			others++
			if text == "" {
				text = m.Text
			}
		}
	}
	if text == "" {
		text = moving[len(moving)-1].Text
	}
	if others > 0 {
		text += fmt.Sprintf(" and %d more", others)
	}
	return text, done, total
}

const (
	// barWidth leaves room for a text on 80 columns.
	barWidth = 16
	// beside is what a bar has around itself and its text: "100%", frames, spaces and the time, "[1m40s]".
	beside = 18
)

func (a *activity) show(text string, done, total int64) {
	endless := total <= 0
	text = shorten(text, max(20, a.out.columns()-barWidth-beside))
	if a.bar == nil || a.endless != endless {
		a.hide()
		a.bar, a.endless, a.text = newBar(a.out, text, total), endless, text
	}
	if text != a.text {
		a.bar.Describe(text)
		a.text = text
	}
	if endless {
		return
	}
	if a.bar.GetMax64() != total {
		a.bar.ChangeMax64(total)
	}
	if done < total { // a full bar would end itself, and there may be more to come
		a.bar.Set64(done) //nolint:errcheck // as above
	}
}

// newBar returns a bar that is drawn by animate, and at steps of a percent; a spinner where the total is not known.
func newBar(out io.Writer, text string, total int64) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(out), progressbar.OptionSetDescription(text), progressbar.OptionUseANSICodes(true),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(true),
	}
	if total <= 0 {
		return progressbar.NewOptions64(-1, append(options, progressbar.OptionSpinnerType(14), progressbar.OptionSetSpinnerChangeInterval(0))...)
	}
	return progressbar.NewOptions64(total, append(options, progressbar.OptionSetWidth(barWidth))...)
}

// shorten cuts a text that does not fit on a line.
func shorten(text string, columns int) string {
	text, _, _ = strings.Cut(text, "\n")
	letters := []rune(text)
	if len(letters) <= columns {
		return text
	}
	return string(letters[:columns-1]) + "…"
}
