package host

import "errors"

// ErrNotInspected is returned by a host that does not look at the machine.
var ErrNotInspected = errors.New("the host is not inspected")
