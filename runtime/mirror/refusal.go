package mirror

import (
	"context"
	"errors"
	"net/http"
	"time"
)

const (
	// patience is how many refusals in a row are nobody's business: at the first start of a cluster, the API server
	// answers before its namespaces and priority classes are there, and before it has heard of the Node.
	patience = 8
	// longestRefused is the pause of a mirror that is refused again and again. Quotas and webhooks change.
	longestRefused = 30 * time.Second
	// longestAbsent is the pause where a namespace is missing: whoever creates it looks for its pods at once.
	longestAbsent = 2 * time.Second
)

// refusal is what is remembered of a pod whose last request failed.
type refusal struct {
	hash  string // of the version that was refused
	times int    // in a row
	until time.Time
	slow  bool   // the last one was no answer in time
	said  string // the reason that was told, "" for none
}

// again notes one more refusal, and returns the reason when it is one that is to be told now, else "".
func (f *refusal) again(hash string, err error, now time.Time, p pace) string {
	if f.hash != hash {
		f.hash, f.times = hash, 0
	}
	f.times++
	f.slow = errors.Is(err, context.DeadlineExceeded)
	f.until = now.Add(refusedFor(f.times, err, p))
	if reason := err.Error(); f.times >= patience && f.said != reason {
		f.said = reason
		return reason
	}
	return ""
}

// refusedFor is how long a pod is left alone after so many refusals in a row.
func refusedFor(times int, err error, p pace) time.Duration {
	if errors.Is(err, context.DeadlineExceeded) {
		return longestRefused // behind it may be somebody's slow webhook, and the other pods wait with us
	}
	most := longestRefused
	if isCode(err, http.StatusNotFound) {
		most = longestAbsent
	}
	pause := p.eager
	for i := patience; i < times && pause < most; i++ {
		pause *= 2
	}
	return max(min(pause, most), min(retryAfter(err), p.polite))
}

// doubtful tells whether err may mean that this node's Node is gone, which is what owns every mirror.
func doubtful(err error) bool {
	var refused *statusError
	return errors.As(err, &refused) && (refused.Code == http.StatusForbidden || refused.Code == http.StatusNotFound)
}
