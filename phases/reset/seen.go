package reset

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// Seen is what the machine shows of the recorded things. Paths are as the host sees them, without a root.
type Seen struct {
	Ledger, Lock string               // where they are, whether or not they exist
	Paths        map[string]Path      // what exists of the recorded paths, their temporary siblings, the ledger and its directory
	Globs        map[string][]string  // by pattern: the paths that match, sorted
	Mounts       []string             // all mount points
	Processes    []Process            // all of this pid namespace
	Units        map[string]bool      // which units systemd knows
	Cgroups      map[string]bool      // which of the recorded ones exist
	Runtimes     map[string]PodsState // by socket
}

// PathKind is what a path is, without following a symbolic link.
type PathKind int

const (
	Other PathKind = iota // a file, or anything else that a name can be removed of
	Directory
	Link
)

// Path is what is at a path.
type Path struct {
	Kind  PathKind
	Names []string // sorted; of a Directory
}

// Process is a running process.
type Process struct {
	host.ProcessID
	Argv []string
}

// PodsState is what is known of the pods in one runtime.
type PodsState struct {
	Err        error       // why it does not answer; nil if it does
	Pods       []Pod       // ours, if it answers
	Containers []Container // what its state directory tells; our own runtime only
	Sockets    []string    // of the shims, which end with their pods; our own runtime only
}

// find returns the processes that an entry means: the one with its pid and start time, or those with its command line.
func (s Seen) find(e ledger.Entry) []Process {
	var found []Process
	for _, p := range s.Processes {
		same := e.PID != 0 && p.PID == e.PID && p.Start == e.Start
		if same || len(e.Argv) > 0 && slices.Equal(p.Argv, e.Argv) {
			found = append(found, p)
		}
	}
	return found
}

// shims returns the processes that hold containers of the runtime at socket.
func (s Seen) shims(socket string) []Process { return shims(s.Processes, socket) }

func shims(processes []Process, socket string) []Process {
	var found []Process
	for _, p := range processes {
		if len(p.Argv) == 0 || !strings.HasPrefix(filepath.Base(p.Argv[0]), "containerd-shim") {
			continue
		}
		if i := slices.Index(p.Argv, "-address"); i >= 0 && i+1 < len(p.Argv) && p.Argv[i+1] == socket {
			found = append(found, p)
		}
	}
	return found
}

// mountsWithin returns the mount points at dir and below it, each once, sorted.
func (s Seen) mountsWithin(dir string) []string {
	var found []string
	for _, m := range s.Mounts {
		if ledger.Within(m, dir) {
			found = append(found, m)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}
