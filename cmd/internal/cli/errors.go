package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// hinted is an error with what to do about it, printed on lines of its own.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// withHint adds the next step to an error.
func withHint(err error, hint string) error { return &hinted{err, hint} }

// exit is an error that carries its own exit code and, where err is nil, prints nothing.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}
func (e *exit) Unwrap() error { return e.err }

// fail prints an error and returns the exit code: 1, or the one that the error carries. Of several problems each has a
// line that names slipway, so that they are found in a log.
func fail(out io.Writer, err error) int {
	code := 1
	var e *exit
	if errors.As(err, &e) {
		code = e.code
		if e.err == nil {
			return code
		}
	}
	for line := range strings.Lines(strings.TrimSpace(err.Error())) {
		if line = strings.TrimRight(line, "\n"); strings.HasPrefix(line, " ") { // it goes with the one above
			fmt.Fprintln(out, line)
		} else {
			fmt.Fprintf(out, "slipway: %s\n", line)
		}
	}
	var h *hinted
	if errors.As(err, &h) {
		for line := range strings.Lines(h.hint) {
			fmt.Fprintf(out, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	return code
}

// reason strips the operation and path that os puts before the cause, where our message has named them.
func reason(err error) error {
	if failed := (*fs.PathError)(nil); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
