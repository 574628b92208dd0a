// Package reset undoes what the ledger records.
package reset

import (
	"fmt"
	"strings"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/host"
)

// Op is what an Action does.
type Op int

const (
	StopUnit       Op = iota // Name
	StopProcess              // Name, Process
	StopPod                  // Pod, Socket
	StopContainer            // Container; its runtime does not answer
	EndLeftovers             // Socket, Path (the runtime's state): shims, and containers without a pod
	Unmount                  // all that is mounted below Path
	RemoveCgroups            // Path and below, where empty
	DisableUnit              // Name
	RemoveFile               // Path
	RestoreFile              // File
	RemoveDir                // Path, which is empty by then
	RemoveTree               // Path and all below it but Except
	RemoveContents           // all below Path but Except
	ReloadUnits              //
	RemoveLedger             // Path, and the lock beside it: Lock
	Keep                     // nothing is done: Path, Why
)

// Action is one step of a reset. It carries all that is needed to do it.
type Action struct {
	Op        Op
	Path      string
	Name      string
	Process   host.ProcessID
	Socket    string
	Pod       Pod
	Container Container
	File      artifact.File
	Except    []string // mount points that are not ours
	Lock      string
	Why       string

	stage stage
}

// Pod is a pod that we run, as its runtime tells.
type Pod struct {
	ID        string // of the sandbox
	Namespace string
	Name      string
	UID       string
}

// Container is what a runtime that does not answer has left of a container.
type Container struct {
	ID      string
	Pod     string // name; "" if unknown
	Name    string // "" for the sandbox itself
	Process host.ProcessID
}

// String returns the line that both the preview and the run print.
func (a Action) String() string {
	switch a.Op {
	case StopUnit:
		return "stop unit " + a.Name
	case StopProcess:
		return fmt.Sprintf("stop process %s (pid %d)", a.Name, a.Process.PID)
	case StopPod:
		return fmt.Sprintf("stop pod %s/%s", a.Pod.Namespace, a.Pod.Name)
	case StopContainer:
		return fmt.Sprintf("stop %s (pid %d)", a.Container, a.Container.Process.PID)
	case EndLeftovers:
		return "end shims and containers left of " + a.Socket
	case Unmount:
		return "unmount what is below " + a.Path
	case RemoveCgroups:
		return "remove cgroups below " + a.Path + " that are empty"
	case DisableUnit:
		return "disable unit " + a.Name
	case RemoveFile:
		return "remove file " + a.Path
	case RestoreFile:
		if a.File.Mode.IsDir() {
			return "restore directory " + a.File.Path
		}
		return "restore file " + a.File.Path
	case RemoveDir:
		return "remove directory " + a.Path
	case RemoveTree:
		return "remove " + a.Path + " and all that is in it" + a.except()
	case RemoveContents:
		return "remove all that is in " + a.Path + a.except()
	case ReloadUnits:
		return "reload systemd's units"
	case RemoveLedger:
		return "remove ledger " + a.Path
	case Keep:
		return "keep " + a.Path + ": " + a.Why
	}
	return fmt.Sprintf("op %d", int(a.Op))
}

func (a Action) except() string {
	if len(a.Except) == 0 {
		return ""
	}
	return ", but not " + strings.Join(a.Except, ", ")
}

// String returns "container etcd of etcd-node1", or what is known of that.
func (c Container) String() string {
	switch {
	case c.Pod == "":
		return "container " + c.ID
	case c.Name == "":
		return "sandbox of " + c.Pod
	}
	return "container " + c.Name + " of " + c.Pod
}

// stage groups actions that must all have succeeded before those of the next stage are safe. The zero stage is that
// of files: by then nothing runs any more, so one failure need not keep the rest.
type stage int

const (
	files stage = iota
	supervisors
	pods
	runtimes
)
