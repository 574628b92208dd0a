package mirror

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"
)

// localError is a failure before anything was sent.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// outage makes one line of log out of any number of failures: one per kind of failure, that is.
type outage struct {
	since time.Time       // zero while all is well
	up    time.Time       // when all became well; zero while it is not
	said  map[string]bool // kinds, since all was well for more than a brief while
	quiet bool            // nothing was said since the last line that all is well
	once  bool            // it has worked before
}

// failed notes the end of a session, and tells whether that had worked for more than a brief while.
func (o *outage) failed(log *slog.Logger, err error, now time.Time, brief time.Duration) (worked bool) {
	worked = !o.up.IsZero() && now.Sub(o.up) >= brief
	o.up = time.Time{}
	if o.since.IsZero() {
		o.since = now
	}
	if o.said == nil || worked {
		o.said = map[string]bool{}
	}
	kind, text := "unreachable", "API server is not reachable, its view of the pods waits"
	var local *localError
	var refused *statusError
	switch {
	case errors.As(err, &local):
		kind, text = "local", "API server cannot be asked, its view of the pods waits"
	case errors.As(err, &refused):
		kind, text = fmt.Sprint(refused.Code), "API server refuses this node, its view of the pods waits"
		if refused.Code >= http.StatusInternalServerError || refused.Code == http.StatusTooManyRequests {
			kind, text = "unable", "API server cannot answer now, its view of the pods waits"
		}
	}
	o.quiet = o.quiet && o.said[kind]
	switch {
	case o.said[kind]:
	case kind == "unreachable" && !o.once: // it is one of our pods, and takes its time
		log.Info("waiting for the API server", "reason", err.Error())
	default:
		log.Warn(text, "reason", err.Error())
	}
	o.said[kind] = true
	return worked
}

func (o *outage) ended(log *slog.Logger, node string, now time.Time) {
	switch {
	case o.once && o.quiet:
	case o.since.IsZero():
		log.Info("showing the pods in the API", "node", node)
	default:
		log.Info("showing the pods in the API", "node", node, "after", now.Sub(o.since).Round(time.Millisecond))
	}
	o.since, o.up, o.quiet, o.once = time.Time{}, now, true, true
}
