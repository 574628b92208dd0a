package probe

import "time"

const (
	// An eager probe waits at least eagerPause between two tries, longer by a 40th of the time it has been eager
	// (250 ms after 10 s), so that what it adds to a start of any length stays below 3 %.
	eagerPause = 50 * time.Millisecond
	eagerShare = 40
	// busyShare keeps tries that run a command from using more than a tenth of the time.
	busyShare = 10
	// eagerTimeout bounds a try outside the kubelet's schedule: a server that accepts and does not answer yet must not
	// hide for the whole timeoutSeconds that it is up by now.
	eagerTimeout = time.Second
)

// schedule says when a probe is tried. The ticks are the kubelet's: every period from base on, those before first left
// out; only they count as failures. In between, as long as it is eager, there are tries that only count if they succeed.
type schedule struct {
	base   time.Time
	first  time.Time
	period time.Duration
	tick   int64 // the last one that was used; -1: none
	eager  bool
	since  time.Time // when eagerness began
	tried  bool
}

// next returns when the next try is due, and whether it is a tick. now is when the last try ended, busy how long it kept
// the host busy.
// A tick may be past: when a try took longer than the period, the ticks that it missed are made up for by one, at once.
func (s *schedule) next(now time.Time, busy time.Duration) (due time.Time, isTick bool) {
	due = s.base.Add(time.Duration(s.nextTick()) * s.period)
	if s.eager {
		early := now
		if s.tried {
			early = now.Add(max(eagerPause, now.Sub(s.since)/eagerShare, busyShare*busy))
		}
		if early.Before(due) {
			return early, false
		}
	}
	return due, true
}

// nextTick is the first tick that is neither used nor before first.
func (s *schedule) nextTick() int64 {
	n := s.tick + 1
	if d := s.first.Sub(s.base); d > 0 {
		n = max(n, int64((d+s.period-1)/s.period))
	}
	return n
}

// use records that a try begins at now.
func (s *schedule) use(now time.Time, isTick bool) {
	s.tried = true
	if isTick {
		s.tick = max(s.nextTick(), int64(now.Sub(s.base)/s.period))
	}
}

// settle ends eagerness: from now on there is a tick every period.
func (s *schedule) settle(now time.Time) {
	s.eager = false
	s.base, s.tick = now, 0
}
