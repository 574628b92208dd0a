package host

import (
	"context"
	"fmt"
	"strings"
)

// Narrator tells what Live would do, and does nothing. It needs no machine.
type Narrator struct{}

// NewNarrator returns a Narrator.
func NewNarrator() Narrator { return Narrator{} }

func (Narrator) Inspect(context.Context, Query) (*Inspection, error) { return nil, ErrNotInspected }

func (Narrator) EnsureRuntime(_ context.Context, r Runtime, report func(Progress)) error {
	if r.Own {
		report(Progress{Text: fmt.Sprintf("would start containerd at %s, unless it runs", r.Socket)})
	} else {
		report(Progress{Text: fmt.Sprintf("would use the container runtime at %s", r.Socket)})
	}
	return nil
}

func (Narrator) EnsureImages(_ context.Context, im Images, report func(Progress)) error {
	for _, ref := range im.Refs {
		source := "archives in " + im.Archives
		if im.Pull {
			source += " or the registry"
		}
		report(Progress{Text: fmt.Sprintf("would take %s from the store, %s", ref, source)})
	}
	return nil
}

func (Narrator) EnsureSupervisor(_ context.Context, s Supervisor, report func(Progress)) error {
	report(Progress{Text: "would start the supervisor: " + strings.Join(SuperviseArgv("slipway", s), " ")})
	return nil
}

func (Narrator) WaitReady(_ context.Context, w Wait, report func(Progress)) error {
	report(Progress{Text: fmt.Sprintf("would wait up to %s for %s", w.Deadline, strings.Join(w.Pods, ", "))})
	return nil
}

var (
	_ Host = Narrator{}
	_ Host = (*Live)(nil)
)
