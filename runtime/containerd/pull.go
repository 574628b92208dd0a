package containerd

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/slipway-k8s/slipway/runtime/cri"
)

// The reasons why a pull fails that a user can do something about.
var (
	ErrUnreachable = errors.New("the registry cannot be reached")
	ErrNotFound    = errors.New("the registry does not have the image")
	ErrDenied      = errors.New("the registry denies access")
	ErrStalled     = errors.New("the registry sends nothing any more")
)

const (
	pullPoll = 200 * time.Millisecond // how often progress is reported
	// pullStall ends a pull that does not advance. It is containerd's own image_pull_progress_timeout, which 1.6 lacks.
	pullStall = 5 * time.Minute
)

// Pull has the runtime get the image from its registry and returns once it is there. The runtime does it, not this
// process, so that its mirrors, certificates and credentials count, as they do for a kubelet. The error wraps one of
// ErrUnreachable, ErrNotFound, ErrDenied and ErrStalled where the reason is known.
func (s *Store) Pull(ctx context.Context, ref string, progress Progress) error {
	progress = quietly(progress)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan error, 1)
	go func() { // ends with the call, which ends with ctx
		_, err := s.cri.PullImage(ctx, ref, nil)
		result <- err
	}()
	tick := time.NewTicker(pullPoll)
	defer tick.Stop()
	var transfer transfers
	moved := time.Now()
	for {
		select {
		case err := <-result:
			if err != nil && errors.Is(context.Cause(ctx), ErrStalled) {
				return fmt.Errorf("pulling image %q: %w for %s", ref, ErrStalled, pullStall)
			}
			return explainPull(err)
		case <-tick.C:
			done, total, changed := transfer.look(s.ingests(ctx))
			if changed {
				moved = time.Now()
				progress(done, total, "pulling "+ref)
			}
			if time.Since(moved) > pullStall {
				cancel(ErrStalled)
			}
		}
	}
}

// ingests returns what containerd is writing to its content store now. Progress is all it is for: no error is worth
// ending a pull.
func (s *Store) ingests(ctx context.Context) []content.Status {
	c, err := s.native()
	if err != nil {
		return nil
	}
	statuses, err := c.ContentStore().ListStatuses(namespaces.WithNamespace(ctx, namespace))
	if err != nil {
		return nil
	}
	return statuses
}

// transfers adds up the layers of a pull, whose statuses are gone once they are complete. A load or another pull at
// the same time is counted too: containerd does not tell them apart.
type transfers struct{ seen map[string]content.Status }

// look takes the statuses of an instant and returns the sums over all that were seen so far, and whether they differ
// from those of the last look.
func (t *transfers) look(now []content.Status) (done, total int64, changed bool) {
	if t.seen == nil {
		t.seen = map[string]content.Status{}
	}
	current := map[string]bool{}
	for _, s := range now {
		current[s.Ref] = true
		changed = changed || t.seen[s.Ref].Offset != s.Offset
		t.seen[s.Ref] = s
	}
	for ref, s := range t.seen {
		if !current[ref] && s.Offset != s.Total {
			s.Offset, changed = s.Total, true
			t.seen[ref] = s
		}
		done, total = done+s.Offset, total+s.Total
	}
	return done, total, changed
}

// The runtime says why a pull failed in words only, those of its registry client and of Go's network code; only "not
// found" has a code as well.
var (
	unreachable = regexp.MustCompile(`(?i)dial tcp|no such host|connection refused|i/o timeout|TLS handshake timeout|network is unreachable|no route to host|server misbehaving|connection reset`)
	denied      = regexp.MustCompile(`(?i)\b401\b|\b403\b|unauthorized|forbidden|denied|authorization failed|no basic auth`)
	absent      = regexp.MustCompile(`(?i)not found|manifest unknown|name unknown`)
)

// explainPull puts the reason before the runtime's words. Denied comes before not found: registries answer "does not
// exist or may require authorization".
func explainPull(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	var reason error
	switch {
	case unreachable.MatchString(text):
		reason = ErrUnreachable
	case denied.MatchString(text):
		reason = ErrDenied
	case cri.IsNotFound(err), absent.MatchString(text):
		reason = ErrNotFound
	default:
		return err
	}
	return fmt.Errorf("%w: %w", reason, err)
}
