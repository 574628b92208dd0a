package host

import "golang.org/x/sys/unix"

// Clock is what the kernel tells of the machine's clock.
type Clock struct {
	Known        bool // whether the kernel told
	Synchronized bool // whether a time service disciplines it
}

// staUnsync and timeError are STA_UNSYNC and TIME_ERROR of linux/timex.h. A time service clears the one; the kernel
// sets it again when it has heard nothing for a quarter of an hour or so.
const (
	staUnsync = 0x0040
	timeError = 5
)

// askClock reads the state of the clock, which takes no rights.
func askClock() Clock {
	var t unix.Timex // no modes: nothing is set
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}
	}
	return Clock{Known: true, Synchronized: state != timeError && t.Status&staUnsync == 0}
}
