package lifecycle

import (
	"fmt"
	"time"
)

var (
	containerStates = [...]string{"created", "running", "exited", "unknown"}
	actionKinds     = [...]string{
		"ensure image", "run sandbox", "start container", "stop container", "stop sandbox", "remove container", "remove sandbox", "clean up",
	}
	states = [...]string{"Absent", "Held", "Pulling", "Starting", "Running", "BackOff", "Completed", "Terminating"}
)

func (s ContainerState) String() string { return nameOf(containerStates[:], int(s)) }
func (k ActionKind) String() string     { return nameOf(actionKinds[:], int(k)) }
func (s State) String() string          { return nameOf(states[:], int(s)) }

func nameOf(names []string, i int) string {
	if i < 0 || i >= len(names) {
		return fmt.Sprintf("%d", i)
	}
	return names[i]
}

// String prints an action as it stands in logs and errors: "start container etcd (attempt 3): back-off 20s over".
func (a Action) String() string {
	s := a.Kind.String()
	switch a.Kind {
	case EnsureImage:
		s += " " + a.Image
	case RunSandbox:
		s += fmt.Sprintf(" (attempt %d)", a.Attempt)
	case StartContainer, RemoveContainer:
		s += fmt.Sprintf(" %s (attempt %d)", a.Name, a.Attempt)
	case StopContainer:
		s += fmt.Sprintf(" %s (attempt %d, grace %s)", a.Name, a.Attempt, a.Grace.Round(time.Millisecond))
	case StopSandbox, RemoveSandbox:
		s += " " + a.ID
	case CleanUp:
		s += " " + a.UID
	}
	if a.Why != "" {
		s += ": " + a.Why
	}
	return s
}
