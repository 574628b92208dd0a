package ledger

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/slipway-k8s/slipway/phases/host"
)

var _ host.Ledger = (*Ledger)(nil)

// Process records a detached process, before its start and again once its pid is known. What is recorded without a
// pid is found again by its command line.
func (l *Ledger) Process(p host.Process) error {
	return l.Record(Entry{Kind: Process, Name: p.Name, Role: roleOf(p.Name), Argv: p.Argv, PID: p.PID, Start: p.Start})
}

// Unit records a systemd unit, before it is enabled.
func (l *Ledger) Unit(name string) error {
	return l.Record(Entry{Kind: Unit, Name: name, Role: roleOf(strings.TrimSuffix(name, ".service"))})
}

// Tree records that a program is about to fill the directory at path: all of it is ours if it does not exist yet,
// with the directories missing above it, and what comes into it if it is empty. What a stranger has filled stays his.
func (l *Ledger) Tree(path string) error {
	if l.Owns(path) && !l.has(path, Dir) || l.has(path, Contents) {
		return nil
	}
	if l.has(path, Dir) {
		return l.Record(Entry{Kind: Tree, Path: path})
	}
	missing, err := missingDirs(l.root, path)
	if err != nil {
		return err
	}
	for _, dir := range missing {
		kind := Dir
		if dir == path {
			kind = Tree
		}
		if err := l.Record(Entry{Kind: kind, Path: dir}); err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return nil
	}
	if entries, err := os.ReadDir(filepath.Join(l.root, path)); err != nil || len(entries) > 0 {
		return err
	}
	return l.Record(Entry{Kind: Contents, Path: path})
}

// Dirs records that a program is about to make the directory at path, and those missing above it, which others may
// then use too: they go only when they are empty.
func (l *Ledger) Dirs(path string) error {
	missing, err := missingDirs(l.root, path)
	if err != nil {
		return err
	}
	for _, dir := range missing {
		if l.Owns(dir) {
			continue
		}
		if err := l.Record(Entry{Kind: Dir, Path: dir}); err != nil {
			return err
		}
	}
	return nil
}

// roleOf tells containerd from the supervisor by the name that package host gives them.
func roleOf(name string) Role {
	if strings.HasSuffix(name, "containerd") {
		return PodRuntime
	}
	return Supervisor
}
