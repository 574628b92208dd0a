package mirror

import (
	"fmt"
	"time"
)

const (
	// flaps repairs of the same mirror within flapsWithin, the first not counted, mean that somebody else insists: a
	// kubelet of the same name, a controller, an admission policy. Nobody deletes that fast by hand.
	flaps       = 8
	flapsWithin = time.Minute
	// A mirror that somebody else insists on is left to them for leastHold, then twice as long each time.
	leastHold = 30 * time.Second
	mostHold  = 10 * time.Minute
)

// contest counts how often one version of a mirror had to be repaired, to tell an accident from a fight.
//
//	calm ── flaps within a minute ──► held ── hold over: repaired once more ─┬─► ruined again: held, twice as long
//	  ▲                                                                      └─► stands for a minute ──┐
//	  └────────────────────────────────────────────────────────────────────────────────────────────────┘
type contest struct {
	hash  string
	since time.Time     // of the first repair that counts
	times int           // repairs since then, that one not counted
	hold  time.Duration // the latest, 0 for none
	until time.Time     // end of the hold
	why   string        // it was to be repaired when it was held
	said  bool          // that it is held
}

// repaired notes that the mirror was made once more, or removed where none is wanted (hash "").
func (c *contest) repaired(hash string, now time.Time) {
	last := c.since
	if c.until.After(last) {
		last = c.until
	}
	if c.hash != hash || now.Sub(last) > flapsWithin {
		*c = contest{hash: hash, since: now, said: c.said}
		return
	}
	if c.times++; c.times < flaps {
		return
	}
	c.hold = min(max(leastHold, 2*c.hold), mostHold)
	c.until = now.Add(c.hold)
}

// left is for how long the mirror is to be left as it is.
func (c *contest) left(hash string, now time.Time) time.Duration {
	if c == nil || c.hash != hash {
		return 0
	}
	return c.until.Sub(now)
}

// idle tells whether there is nothing in it to remember.
func (c *contest) idle(now time.Time) bool {
	return now.Sub(c.since) > flapsWithin && now.Sub(c.until) > flapsWithin
}

// over is in how long the contest is over if the mirror stands as long as that.
func (c *contest) over(now time.Time) time.Duration { return c.until.Add(flapsWithin).Sub(now) }

func (c *contest) String() string {
	return fmt.Sprintf("the mirror pod had to be repaired %d times within %s, last because %s; it is left alone for %s: does a kubelet run under this node's name?",
		flaps+1, flapsWithin, c.why, c.hold)
}
