package ledger

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// Kind says what an Entry is about.
type Kind string

const (
	Dir      Kind = "dir"      // a directory that we made; it goes when it is empty: Path
	File     Kind = "file"     // a file that we made: Path
	Saved    Kind = "saved"    // a file or directory that was there and that we changed: Path, Data, Mode
	Tree     Kind = "tree"     // a directory that we made, and whatever comes to be below it: Path
	Contents Kind = "contents" // a directory that was there, empty; what comes to be below it is ours: Path
	Glob     Kind = "glob"     // names that only our pods' files have, such as their logs: Path, with a pattern as last element
	Mounts   Kind = "mounts"   // what is mounted below this directory is ours: Path
	Cgroup   Kind = "cgroup"   // a cgroup, relative to its hierarchy; it goes where it is empty: Path, "/kubepods"
	Unit     Kind = "unit"     // a systemd unit: Name, Role. Its file has an entry of its own
	Process  Kind = "process"  // a detached process: Name, Role, Argv; PID and Start once they are known
	Runtime  Kind = "runtime"  // a container runtime that runs our pods: Socket; with Own set, also Root and State
)

// Role says at which point of a reset a unit or process ends.
type Role string

const (
	Supervisor Role = "supervisor" // before the pods, or it would start them again
	PodRuntime Role = "runtime"    // after the pods
)

// Entry is one recorded effect. Paths are as the host sees them, without a root.
type Entry struct {
	Kind Kind   `json:"kind"`
	Path string `json:"path,omitempty"`

	Data []byte      `json:"data,omitempty"` // Saved
	Mode fs.FileMode `json:"mode,omitempty"` // Saved: with fs.ModeDir for a directory

	Name  string   `json:"name,omitempty"`
	Role  Role     `json:"role,omitempty"`
	Argv  []string `json:"argv,omitempty"`
	PID   int      `json:"pid,omitempty"`
	Start uint64   `json:"start,omitempty"` // clock ticks after boot, field 22 of /proc/PID/stat

	Own    bool   `json:"own,omitempty"`    // slipway's own containerd, not one that the user brought
	Socket string `json:"socket,omitempty"` // path of the unix socket, without scheme
	Root   string `json:"root,omitempty"`   // what it keeps over a reboot
	State  string `json:"state,omitempty"`  // what it does not
}

// String returns what is recorded, without contents: "file /etc/kubernetes/admin.conf".
func (e Entry) String() string {
	switch e.Kind {
	case Unit, Process:
		return fmt.Sprintf("%s %s", e.Kind, e.Name)
	case Runtime:
		return fmt.Sprintf("%s at %s", e.Kind, e.Socket)
	}
	return fmt.Sprintf("%s %s", e.Kind, e.Path)
}

// key is equal for entries that say the same. Of a saved file the first entry counts: only that one has the contents
// from before slipway.
func (e Entry) key() string {
	return fmt.Sprintf("%s\x00%s\x00%s\x00%q\x00%d\x00%d\x00%s", e.Kind, e.Path, e.Name, e.Argv, e.PID, e.Start, e.Socket)
}

// check refuses entries that reset could not act on safely.
func (e Entry) check() error {
	switch e.Kind {
	case Unit, Process:
		if e.Name == "" || (e.Role != Supervisor && e.Role != PodRuntime) {
			return fmt.Errorf("recording a %s: name %q or role %q is not known", e.Kind, e.Name, e.Role)
		}
	case Runtime:
		if e.Socket == "" || (e.Own && (e.Root == "" || e.State == "")) {
			return fmt.Errorf("recording a runtime: socket, root and state must all be known")
		}
	case Dir, File, Saved, Tree, Contents, Glob, Mounts, Cgroup:
		if !filepath.IsAbs(e.Path) || filepath.Clean(e.Path) != e.Path || e.Path == "/" {
			return fmt.Errorf("recording a %s: path %q is not absolute and clean", e.Kind, e.Path)
		}
	default:
		return fmt.Errorf("recording %q: no such kind", e.Kind)
	}
	return nil
}

func (e Entry) line() ([]byte, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", e, err)
	}
	return append(data, '\n'), nil
}

func parseLine(line string) (Entry, error) {
	var e Entry
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		return Entry{}, err
	}
	return e, e.check()
}

// Below reports whether path lies under dir; dir itself does not.
func Below(path, dir string) bool {
	return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") && path != dir
}

// Within reports whether path is dir or lies under it.
func Within(path, dir string) bool { return path == dir || Below(path, dir) }
