package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// Units is what reset needs of systemd. Stopping or disabling a unit that is stopped or disabled is no error.
type Units interface {
	Known(ctx context.Context, name string) (bool, error)
	Stop(ctx context.Context, name string) error
	Disable(ctx context.Context, name string) error
	Reload(ctx context.Context) error
}

// Pods is what reset needs of a container runtime. Sockets are paths.
type Pods interface {
	// List returns the pods that slipway's supervisor made there, and no others.
	List(ctx context.Context, socket string) ([]Pod, error)
	// Stop stops the pod's containers with their grace periods and removes it. One that is gone is no error.
	Stop(ctx context.Context, socket string, pod Pod) error
}

// Live is the System of this machine or, with a Root, of a tree of files in which nothing runs.
type Live struct {
	Root         string
	Ledger, Lock string // as in config.Paths
	Units        Units  // nil without systemd
	Pods         Pods   // nil: no runtime answers
	Cgroups      string // "/sys/fs/cgroup"
}

const (
	// serviceGrace is what containerd and the supervisor get between SIGTERM and SIGKILL. Neither waits for pods.
	serviceGrace = 10 * time.Second
	// containerGrace is the default grace period of a pod: the API server uses some of it to end its requests.
	containerGrace = 30 * time.Second
	// leftoverGrace is for what nobody looks after any more.
	leftoverGrace = 2 * time.Second
	// listTimeout bounds the question which pods there are: a hanging runtime must not hang the reset.
	listTimeout = 10 * time.Second
	listPause   = 200 * time.Millisecond
)

// Look returns what the machine shows of the entries. It changes nothing.
func (l *Live) Look(ctx context.Context, entries []ledger.Entry) (Seen, error) {
	seen := Seen{
		Ledger: l.Ledger, Lock: l.Lock, Paths: map[string]Path{}, Globs: map[string][]string{},
		Units: map[string]bool{}, Cgroups: map[string]bool{}, Runtimes: map[string]PodsState{},
	}
	if err := l.lookAtFiles(entries, &seen); err != nil {
		return Seen{}, err
	}
	mounts, err := l.mounts()
	if err != nil {
		return Seen{}, err
	}
	for _, m := range mounts {
		if ledger.Within(m, filepath.Clean("/"+l.Root)) {
			seen.Mounts = append(seen.Mounts, filepath.Clean("/"+m[len(filepath.Clean("/"+l.Root)):]))
		}
	}
	if l.Root != "" {
		return seen, nil
	}
	if seen.Processes, err = processes(); err != nil {
		return Seen{}, err
	}
	for _, e := range entries {
		switch {
		case e.Kind == ledger.Unit && l.Units != nil:
			if seen.Units[e.Name], err = l.Units.Known(ctx, e.Name); err != nil {
				return Seen{}, fmt.Errorf("looking for unit %s: %w", e.Name, err)
			}
		case e.Kind == ledger.Runtime:
			seen.Runtimes[e.Socket] = l.podsIn(ctx, e)
		case e.Kind == ledger.Cgroup:
			seen.Cgroups[e.Path] = slices.ContainsFunc(l.hierarchies(), func(h string) bool { return exists(filepath.Join(h, e.Path)) })
		}
	}
	return seen, nil
}

func (l *Live) lookAtFiles(entries []ledger.Entry, seen *Seen) error {
	paths := []string{l.Ledger, l.Lock, filepath.Dir(l.Ledger)}
	for _, e := range entries {
		switch e.Kind {
		case ledger.Dir, ledger.Tree, ledger.Contents:
			paths = append(paths, e.Path)
		case ledger.File, ledger.Saved:
			paths = append(paths, e.Path, artifactTemp(e.Path))
		case ledger.Glob:
			matches, err := l.glob(e.Path)
			if err != nil {
				return err
			}
			seen.Globs[e.Path] = matches
			paths = append(paths, matches...)
		}
	}
	for _, p := range paths {
		at, ok, err := lookAt(l.real(p))
		if err != nil {
			return err
		}
		if ok {
			seen.Paths[p] = at
		}
	}
	return nil
}

// lookAt returns what is at a path; false if nothing is.
func lookAt(real string) (Path, bool, error) {
	info, err := os.Lstat(real)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
		return Path{}, false, nil
	case err != nil:
		return Path{}, false, fmt.Errorf("looking at %q: %w", real, err)
	case info.Mode()&fs.ModeSymlink != 0:
		return Path{Kind: Link}, true, nil
	case !info.IsDir():
		return Path{}, true, nil
	}
	list, err := os.ReadDir(real)
	if err != nil {
		return Path{}, false, fmt.Errorf("listing %q: %w", real, err)
	}
	at := Path{Kind: Directory}
	for _, e := range list {
		at.Names = append(at.Names, e.Name())
	}
	return at, true, nil
}

// glob returns the paths whose last element matches that of the pattern, sorted.
func (l *Live) glob(pattern string) ([]string, error) {
	dir, base := filepath.Split(pattern)
	at, _, err := lookAt(l.real(filepath.Clean(dir)))
	if err != nil {
		return nil, err
	}
	var matches []string
	for _, name := range at.Names {
		ok, err := filepath.Match(base, name)
		if err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		if ok {
			matches = append(matches, filepath.Join(dir, name))
		}
	}
	return matches, nil
}

func (l *Live) podsIn(ctx context.Context, e ledger.Entry) PodsState {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	state := PodsState{Err: errors.New("its socket does not exist")}
	if exists(e.Socket) && l.Pods != nil {
		state.Pods, state.Err = l.Pods.List(ctx, e.Socket)
	}
	if !e.Own {
		l.askAgain(ctx, e.Socket, &state)
		return state
	}
	for _, b := range bundles(e.State) {
		if b.socket != "" {
			state.Sockets = append(state.Sockets, b.socket)
		}
		if state.Err != nil && b.Process.PID != 0 {
			state.Containers = append(state.Containers, b.Container)
		}
	}
	return state
}

// askAgain gives a runtime that the user brought, and may have just restarted, until the end of ctx to answer: without
// its answer nothing can be reset.
func (l *Live) askAgain(ctx context.Context, socket string, state *PodsState) {
	ticker := time.NewTicker(listPause)
	defer ticker.Stop()
	for state.Err != nil && exists(socket) && l.Pods != nil {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		pods, err := l.Pods.List(ctx, socket)
		if ctx.Err() == nil {
			state.Pods, state.Err = pods, err
		}
	}
}

// Do does the action.
func (l *Live) Do(ctx context.Context, a Action) error {
	switch a.Op {
	case StopUnit:
		return l.Units.Stop(ctx, a.Name)
	case DisableUnit:
		return l.Units.Disable(ctx, a.Name)
	case ReloadUnits:
		return l.Units.Reload(ctx)
	case StopProcess:
		return host.StopProcess(ctx, a.Process, serviceGrace)
	case StopPod:
		return l.Pods.Stop(ctx, a.Socket, a.Pod)
	case StopContainer:
		return host.StopProcess(ctx, a.Container.Process, containerGrace)
	case EndLeftovers:
		return l.endLeftovers(ctx, a.Socket, a.Path)
	case Unmount:
		return l.unmountBelow(l.real(a.Path))
	case RemoveCgroups:
		return l.removeCgroups(a.Path)
	case RestoreFile:
		return artifact.Disk{Root: l.Root}.Put(a.File)
	case RemoveDir:
		if err := unix.Rmdir(l.real(a.Path)); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	case RemoveFile, RemoveTree, RemoveContents:
		return l.remove(a)
	case RemoveLedger:
		return ledger.Discard(l.Root, a.Path, a.Lock)
	case Keep:
		return nil
	}
	return fmt.Errorf("no such action: %s", a)
}

// remove never goes through a mount point, also not through one that came after the plan.
func (l *Live) remove(a Action) error {
	mounts, err := l.mounts()
	if err != nil {
		return err
	}
	remove := ledger.RemoveTree
	if a.Op == RemoveContents {
		remove = ledger.RemoveContents
	}
	kept, err := remove(l.real(a.Path), mounts)
	for _, path := range kept {
		if !slices.ContainsFunc(a.Except, func(e string) bool { return l.real(e) == path }) {
			err = errors.Join(err, fmt.Errorf("something is mounted at %q: unmount it, then run reset again", path))
		}
	}
	return err
}

// mounts returns the mount points of this mount namespace, as the kernel names them, in the order of mounting.
func (l *Live) mounts() ([]string, error) {
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		return nil, fmt.Errorf("reading mount points: %w", err)
	}
	list := make([]string, len(infos))
	for i, info := range infos {
		list[i] = info.Mountpoint
	}
	return list, nil
}

// unmountBelow unmounts what is below dir, last mounted first. What is busy is detached: it is ours, and its users are
// on their way out.
func (l *Live) unmountBelow(dir string) error {
	mounts, err := l.mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range slices.Backward(mounts) {
		if !ledger.Below(m, dir) {
			continue
		}
		err := unix.Unmount(m, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(m, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			errs = append(errs, fmt.Errorf("unmounting %q: %w", m, err))
		}
	}
	return errors.Join(errs...)
}

// hierarchies returns the roots of the cgroup trees: one with cgroup v2, one for each controller with v1.
func (l *Live) hierarchies() []string {
	if exists(filepath.Join(l.Cgroups, "cgroup.controllers")) {
		return []string{l.Cgroups}
	}
	entries, _ := os.ReadDir(l.Cgroups)
	var roots []string
	for _, e := range entries {
		if e.IsDir() { // links such as cpu → cpu,cpuacct name a tree again
			roots = append(roots, filepath.Join(l.Cgroups, e.Name()))
		}
	}
	return roots
}

// removeCgroups removes the cgroup and those below it in every hierarchy. One with processes in it is not ours.
func (l *Live) removeCgroups(path string) error {
	var errs []error
	for _, h := range l.hierarchies() {
		_, err := ledger.RemoveEmpty(filepath.Join(h, path))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (l *Live) real(path string) string { return filepath.Join("/", l.Root, path) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
