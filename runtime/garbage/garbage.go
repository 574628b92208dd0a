// Package garbage removes what nobody needs any more: images when they fill the disk, and what pods have left behind.
//
// Dead containers and sandboxes are not its business: the worker of a pod removes them as it goes along, and keeps the
// last dead one of each name.
package garbage

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// ErrUnknown is returned by what a Collector asks when the answer is not complete yet. It is no failure: the round is
// left out.
var ErrUnknown = errors.New("not all pods are known yet")

// Collector collects garbage: at once, when every pod should be known, and then again and again. Nobody changes a field
// after Run.
type Collector struct {
	Images  *Images  // nil leaves images alone
	Orphans *Orphans // nil leaves the disk alone
	Log     *slog.Logger
	Now     func() time.Time
}

// Run collects until ctx ends, then returns nil. It may run once.
func (c *Collector) Run(ctx context.Context) error {
	var group sync.WaitGroup
	if c.Images != nil && !c.Images.Policy.off() {
		group.Go(func() { c.rounds(ctx, "removing images", imagePeriod, c.Images.collect) })
	}
	if c.Orphans != nil {
		group.Go(func() { c.rounds(ctx, "removing what pods have left", orphanPeriod, c.Orphans.collect) })
	}
	<-ctx.Done()
	group.Wait()
	return nil
}

// unknownPause is how soon a round is tried again that was left out.
const unknownPause = time.Minute

// rounds collects at once and then again and again. A failure is logged once for as long as it stays the same.
func (c *Collector) rounds(ctx context.Context, what string, period time.Duration, collect func(context.Context, time.Time, *slog.Logger) error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	failure := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		pause := period
		err := collect(ctx, c.Now(), c.Log)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failure = ""
		case errors.Is(err, ErrUnknown):
			pause, failure = min(period, unknownPause), ""
		case failure != err.Error():
			failure = err.Error()
			c.Log.Warn(what, "reason", failure)
		}
		timer.Reset(pause)
	}
}
