package reset

import (
	"context"
	"errors"
	"fmt"
)

// System does what an Action says. Doing it again, or when its effect is there already, is no error.
type System interface {
	Do(ctx context.Context, a Action) error
}

// Progress tells of one action: once before it is done, and once after, with its error.
type Progress struct {
	Action Action
	Done   bool
	Err    error
}

// Run does the actions in their order. While anything may still run, a failure ends the reset before a file is
// touched; a pod of our own runtime that does not stop is no failure if the end of the left-overs takes it. Among
// files, one failure does not keep the rest, but it keeps the ledger, so that the next reset finds what is left.
// The end of ctx stops it between actions, and inside those that wait.
func Run(ctx context.Context, plan []Action, system System, report func(Progress)) error {
	var tolerated, failed []error
	for i, a := range plan {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("interrupted before: %s: %w", a, context.Cause(ctx))
		}
		if i > 0 && plan[i-1].stage != files && plan[i-1].stage != a.stage && len(failed) > 0 {
			return fmt.Errorf("no file was removed, because not all that ran has ended: %w", errors.Join(failed...))
		}
		if a.Op == RemoveLedger && len(failed) > 0 {
			return fmt.Errorf("some of it is left; the ledger stays, run reset again once the cause is gone: %w", errors.Join(failed...))
		}
		report(Progress{Action: a})
		err := system.Do(ctx, a)
		if err != nil {
			err = fmt.Errorf("%s: %w", a, err)
		}
		report(Progress{Action: a, Done: true, Err: err})
		switch {
		case err == nil && a.Op == EndLeftovers:
			tolerated = nil
		case err != nil && takenLater(plan[i+1:], a):
			tolerated = append(tolerated, err)
		case err != nil:
			failed = append(failed, err)
		}
	}
	return errors.Join(append(tolerated, failed...)...)
}

// takenLater reports whether what a failed to stop will be ended by a later action.
func takenLater(rest []Action, a Action) bool {
	if a.Op != StopPod && a.Op != StopContainer {
		return false
	}
	for _, r := range rest {
		if r.Op == EndLeftovers && (a.Op == StopContainer || r.Socket == a.Socket) {
			return true
		}
	}
	return false
}
