package reset

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// Plan returns what undoes the entries, in order:
//
//	supervisor ► pods (API server before etcd) ► containerd ► what is left of containers ► mounts ► cgroups ► units ► files ► ledger
//
// It is what a preview prints and what Run does, action by action. What is gone already has no action. What slipway
// did not make is never touched; where it is in the way, there is a Keep that says so.
//
// It returns an error if a runtime that the user brought does not answer while containers of it run: without it our
// pods cannot be told from others, and their files must not go while they run.
func Plan(entries []ledger.Entry, seen Seen) ([]Action, error) {
	p := planner{entries: entries, seen: seen, gone: map[string]bool{}}
	p.services(ledger.Supervisor, supervisors)
	if err := p.pods(); err != nil {
		return nil, err
	}
	p.services(ledger.PodRuntime, runtimes)
	p.leftovers()
	p.mounts()
	p.cgroups()
	p.disable()
	p.files()
	p.reload()
	p.ledger()
	return p.actions, nil
}

type planner struct {
	entries []ledger.Entry
	seen    Seen
	actions []Action
	gone    map[string]bool // what will have been removed by then
	kept    map[string]bool
}

func (p *planner) add(a Action) { p.actions = append(p.actions, a) }

// of returns the entries of the kinds, oldest first.
func (p *planner) of(kinds ...ledger.Kind) []ledger.Entry {
	var found []ledger.Entry
	for _, e := range p.entries {
		if slices.Contains(kinds, e.Kind) {
			found = append(found, e)
		}
	}
	return found
}

func (p *planner) services(role ledger.Role, s stage) {
	stopped := map[int]bool{} // a process is recorded without and with its pid
	for _, e := range p.of(ledger.Unit, ledger.Process) {
		if e.Role != role {
			continue
		}
		if e.Kind == ledger.Unit {
			if p.seen.Units[e.Name] {
				p.add(Action{Op: StopUnit, Name: e.Name, stage: s})
			}
			continue
		}
		for _, found := range p.seen.find(e) {
			if !stopped[found.PID] {
				stopped[found.PID] = true
				p.add(Action{Op: StopProcess, Name: e.Name, Process: found.ProcessID, stage: s})
			}
		}
	}
}

func (p *planner) pods() error {
	for _, e := range p.of(ledger.Runtime) {
		state := p.seen.Runtimes[e.Socket]
		if state.Err == nil {
			slices.SortStableFunc(state.Pods, func(a, b Pod) int {
				return cmp.Or(cmp.Compare(stopRank(a.Name), stopRank(b.Name)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
			})
			for _, pod := range state.Pods {
				p.add(Action{Op: StopPod, Pod: pod, Socket: e.Socket, stage: pods})
			}
			continue
		}
		if !e.Own {
			if n := len(p.seen.shims(e.Socket)); n > 0 {
				return fmt.Errorf("the container runtime at %s does not answer (%w) while %d of its pods run, perhaps ours: start it, then run reset again", e.Socket, state.Err, n)
			}
			continue
		}
		for _, c := range inStopOrder(state.Containers) {
			p.add(Action{Op: StopContainer, Container: c, stage: pods})
		}
	}
	return nil
}

// inStopOrder sorts containers as their pods are stopped, all sandboxes after all that runs in them.
func inStopOrder(list []Container) []Container {
	sorted := slices.Clone(list)
	slices.SortStableFunc(sorted, func(a, b Container) int {
		sandbox := func(c Container) int {
			if c.Name == "" {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(sandbox(a), sandbox(b)), cmp.Compare(stopRank(a.Pod), stopRank(b.Pod)), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Name, b.Name))
	})
	return sorted
}

// stopRank orders pods by name. Each rank needs the ones after it: an API server whose etcd is gone hangs at SIGTERM
// for a minute.
func stopRank(pod string) int {
	order := []string{"kube-scheduler", "kube-controller-manager", "kube-apiserver", "", "etcd"}
	for rank, name := range order {
		if name != "" && (pod == name || strings.HasPrefix(pod, name+"-")) {
			return rank
		}
	}
	return slices.Index(order, "")
}

func (p *planner) leftovers() {
	for _, e := range p.of(ledger.Runtime) {
		state := p.seen.Runtimes[e.Socket]
		for _, socket := range state.Sockets {
			p.gone[socket] = true // with its shim; the directory that all shims of the machine share goes if it is empty then
		}
		if e.Own && len(state.Pods)+len(state.Containers)+len(p.seen.shims(e.Socket)) > 0 {
			p.add(Action{Op: EndLeftovers, Socket: e.Socket, Path: e.State, stage: runtimes})
		}
	}
}

// ownMounts returns the directories below which all mounts are ours.
func (p *planner) ownMounts() []string {
	var dirs []string
	for _, e := range p.of(ledger.Mounts, ledger.Runtime) {
		switch {
		case e.Kind == ledger.Mounts:
			dirs = append(dirs, e.Path)
		case e.Own:
			dirs = append(dirs, e.State, e.Root)
		}
	}
	return dirs
}

func (p *planner) mounts() {
	for _, dir := range p.ownMounts() {
		if slices.ContainsFunc(p.seen.Mounts, func(m string) bool { return ledger.Below(m, dir) }) {
			p.add(Action{Op: Unmount, Path: dir})
		}
	}
}

// foreignMounts returns the mount points at path and below it that are not ours.
func (p *planner) foreignMounts(path string) []string {
	own := p.ownMounts()
	return slices.DeleteFunc(p.seen.mountsWithin(path), func(m string) bool {
		return slices.ContainsFunc(own, func(dir string) bool { return ledger.Below(m, dir) })
	})
}

func (p *planner) cgroups() {
	for _, e := range p.of(ledger.Cgroup) {
		if p.seen.Cgroups[e.Path] {
			p.add(Action{Op: RemoveCgroups, Path: e.Path})
		}
	}
}

func (p *planner) disable() {
	for _, e := range p.of(ledger.Unit) {
		if p.seen.Units[e.Name] {
			p.add(Action{Op: DisableUnit, Name: e.Name})
		}
	}
}

func (p *planner) reload() {
	if slices.ContainsFunc(p.of(ledger.Unit), func(e ledger.Entry) bool { return p.seen.Units[e.Name] }) {
		p.add(Action{Op: ReloadUnits})
	}
}

// files undoes the entries about files, newest first: what is in a directory was recorded after it.
func (p *planner) files() {
	p.kept = map[string]bool{}
	p.strayLinks()
	for _, e := range slices.Backward(p.entries) {
		if e.Kind == ledger.Glob {
			for _, match := range p.seen.Globs[e.Path] {
				p.removeTree(Action{Op: RemoveTree, Path: match})
			}
			continue
		}
		if p.covered(e) || p.gone[e.Path] {
			continue
		}
		switch e.Kind {
		case ledger.Tree:
			p.removeTree(Action{Op: RemoveTree, Path: e.Path})
		case ledger.Contents:
			p.removeTree(Action{Op: RemoveContents, Path: e.Path})
		case ledger.File:
			p.removeFile(artifactTemp(e.Path))
			p.removeFile(e.Path)
		case ledger.Saved:
			p.removeFile(artifactTemp(e.Path))
			p.add(Action{Op: RestoreFile, File: artifact.File{Path: e.Path, Data: e.Data, Mode: e.Mode}})
		case ledger.Dir:
			if !ledger.Within(p.seen.Ledger, e.Path) { // those go after the ledger
				p.removeDir(e.Path)
			}
		}
	}
}

func artifactTemp(path string) string {
	return filepath.Join(filepath.Dir(path), artifact.TempName(filepath.Base(path)))
}

// strayLinks keeps what was a directory of ours and is a symbolic link now: what is behind it is not.
func (p *planner) strayLinks() {
	for _, e := range p.of(ledger.Dir, ledger.Tree, ledger.Contents) {
		if p.seen.Paths[e.Path].Kind == Link && !p.underLink(filepath.Dir(e.Path)) && !p.kept[e.Path] {
			p.keep(e.Path, "it is a symbolic link now, not the directory that slipway made")
		}
	}
}

func (p *planner) keep(path, why string) {
	p.kept[path] = true
	p.add(Action{Op: Keep, Path: path, Why: why})
}

// underLink reports whether path is, or lies behind, one of the strayLinks.
func (p *planner) underLink(path string) bool {
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if p.kept[path] && p.seen.Paths[path].Kind == Link {
			return true
		}
	}
	return false
}

// covered reports whether another entry takes care of e: a tree around it, or a link that it lies behind.
func (p *planner) covered(e ledger.Entry) bool {
	if e.Path == "" || p.underLink(e.Path) {
		return true
	}
	return slices.ContainsFunc(p.entries, func(o ledger.Entry) bool {
		switch o.Kind {
		case ledger.Tree:
			return ledger.Below(e.Path, o.Path) || o.Path == e.Path && e.Kind != ledger.Tree
		case ledger.Contents:
			return ledger.Below(e.Path, o.Path)
		}
		return false
	})
}

func (p *planner) removeTree(a Action) {
	at, ok := p.seen.Paths[a.Path]
	if !ok || p.gone[a.Path] || a.Op == RemoveContents && len(at.Names) == 0 {
		return
	}
	if at.Kind != Directory {
		p.removeFile(a.Path)
		return
	}
	foreign := p.foreignMounts(a.Path)
	for _, m := range foreign {
		if m != a.Path || a.Op == RemoveTree {
			p.keep(m, "something is mounted there that slipway did not mount")
			a.Except = append(a.Except, m)
		}
	}
	p.gone[a.Path] = a.Op == RemoveTree && len(a.Except) == 0
	if slices.Contains(a.Except, a.Path) {
		return // all of it is behind the mount
	}
	p.add(a)
}

func (p *planner) removeFile(path string) {
	at, ok := p.seen.Paths[path]
	switch {
	case !ok:
	case at.Kind == Directory:
		p.keep(path, "it is a directory now, not the file that slipway wrote")
	case slices.Contains(p.seen.Mounts, path):
		p.keep(path, "something is mounted there that slipway did not mount")
	default:
		p.add(Action{Op: RemoveFile, Path: path})
		p.gone[path] = true
	}
}

func (p *planner) removeDir(path string) {
	at, ok := p.seen.Paths[path]
	switch {
	case !ok:
		return
	case at.Kind != Directory:
		p.keep(path, "it is a file now, not the directory that slipway made")
		return
	case len(p.foreignMounts(path)) > 0 && slices.Contains(p.seen.Mounts, path):
		p.keep(path, "something is mounted there that slipway did not mount")
		return
	}
	empty := true
	for _, name := range at.Names {
		below := filepath.Join(path, name)
		if p.gone[below] {
			continue
		}
		empty = false
		if !p.ours(below) && !p.kept[below] {
			p.keep(below, "slipway did not make it")
		}
	}
	if !empty {
		p.keep(path, "it is not empty")
		return
	}
	p.add(Action{Op: RemoveDir, Path: path})
	p.gone[path] = true
}

// ours reports whether an entry has said already what becomes of path.
func (p *planner) ours(path string) bool {
	return slices.ContainsFunc(p.of(ledger.Dir, ledger.File, ledger.Saved, ledger.Tree, ledger.Contents), func(e ledger.Entry) bool {
		return e.Path == path
	})
}

// ledger removes the record itself, and then the directories that it was made in. A state directory that no entry
// names, and that holds nothing else, is what a run left that was killed at its very start.
func (p *planner) ledger() {
	state := filepath.Dir(p.seen.Ledger)
	at, ok := p.seen.Paths[state]
	if !ok {
		return
	}
	p.gone[p.seen.Ledger], p.gone[p.seen.Lock] = true, true
	others := slices.ContainsFunc(at.Names, func(name string) bool { return !p.gone[filepath.Join(state, name)] })
	_, hasLedger := p.seen.Paths[p.seen.Ledger]
	_, hasLock := p.seen.Paths[p.seen.Lock]
	if others && len(p.entries) == 0 && !hasLedger && !hasLock {
		return
	}
	p.add(Action{Op: RemoveLedger, Path: p.seen.Ledger, Lock: p.seen.Lock})
	if !others && len(p.entries) == 0 {
		p.removeDir(state)
	}
	for _, e := range slices.Backward(p.of(ledger.Dir)) {
		if ledger.Within(p.seen.Ledger, e.Path) && !p.covered(e) {
			p.removeDir(e.Path)
		}
	}
}
