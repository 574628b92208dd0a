//go:build e2e || bench

package podtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/runtime/cri"
)

const (
	// prefix begins the names of all nodes, followed by the pid of their test process, a dash and a number.
	prefix = "pt-"
	// instanceFile of a node's directory has the name of its instance.
	instanceFile = "instance"
	// containerLogs is where the supervisor makes links to logs. There is one on a host.
	containerLogs = "/var/log/containers"
)

// sharedDirs are made by whoever needs them first, the inner ones named first. The last node of all removes those that
// are empty.
var sharedDirs = []string{"/run/containerd/s", "/run/containerd", containerLogs}

// enter holds the machine's shared directories for this node. It waits while another process removes them.
func (n *Node) enter() {
	n.t.Helper()
	n.lock = n.lockMachine(unix.LOCK_SH)
}

// lockMachine takes a lock on a directory that all nodes use, which leaves no file behind.
func (n *Node) lockMachine(how int) *os.File {
	n.t.Helper()
	dir, err := os.Open(filepath.Join(n.Repository, "bin/k8s"))
	if err != nil {
		n.t.Fatalf("podtest: %v; run make build programs", err)
	}
	n.must(unix.Flock(int(dir.Fd()), how))
	return dir
}

// leave gives up the lock; who is the last removes the directories that nobody uses.
func (n *Node) leave() {
	if unix.Flock(int(n.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		for _, dir := range sharedDirs {
			os.Remove(dir) //nolint:errcheck // it is not empty, or there is none
		}
	}
	n.lock.Close()
}

// close ends and removes everything of the node and fails the test for what then is left.
func (n *Node) close() {
	defer n.leave()
	if n.t.Failed() {
		n.t.Logf("the supervisor's log ends:\n%s\ncontainerd's log ends:\n%s", tail(n.SupervisorLog(), 60), tail(n.ContainerdLog(), 30))
	}
	n.supervisor.Stop(20 * time.Second)
	for _, p := range n.others {
		p.Stop(20 * time.Second)
	}
	n.ResumeContainerd()
	if n.containerd.Running() {
		if err := removePods(n.Socket); err != nil {
			n.t.Logf("podtest: %v", err) // after a failure, or where the test has left ruins: what follows is enough
		}
	}
	n.containerd.Stop(20 * time.Second)
	if err := n.removeNetwork(); err != nil {
		n.t.Errorf("podtest: %v", err)
	}
	if err := remove(n.Dir, n.Instance); err != nil {
		n.t.Errorf("podtest: %v", err)
	}
}

// Clear removes every pod with all that it has on the machine, and every manifest. Nobody may watch over the pods
// meanwhile.
func (n *Node) Clear() {
	n.t.Helper()
	manifests, err := filepath.Glob(filepath.Join(n.Manifests, "*"))
	n.must(err)
	for _, path := range manifests {
		n.must(os.Remove(path))
	}
	n.must(removePods(n.Socket))
	n.must(errors.Join(removeLinks(n.Dir), unmountBelow(n.Paths.Kubelet), os.RemoveAll(filepath.Join(n.Paths.Kubelet, "pods")), os.RemoveAll(n.PodLogs)))
	n.WaitFor("the pods' cgroups to go", commandTimeout, func() (bool, string) {
		err := removeCgroups(filepath.Base(n.Dir))
		return err == nil, fmt.Sprint(err)
	})
}

// removePods removes every sandbox with its containers. It tries again what fails: containerd 1.6 and a shim that is
// just ending now and then talk past each other.
func removePods(socket string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client, err := cri.Dial(ctx, socket)
	if err != nil {
		return fmt.Errorf("removing the pods: %w", err)
	}
	defer client.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 20 {
		if err = removeSandboxes(ctx, client); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("removing the pods: %w", err)
}

func removeSandboxes(ctx context.Context, client *cri.Client) error {
	sandboxes, err := client.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(8)
	for _, s := range sandboxes {
		group.Go(func() error {
			return errors.Join(client.StopPodSandbox(ctx, s.GetId()), client.RemovePodSandbox(ctx, s.GetId()))
		})
	}
	return group.Wait()
}

// remove takes away what a node has on the machine, whatever state it is in: processes, mounts, cgroups, files. The
// error says what could not be removed.
func remove(dir, instance string) error {
	paths := config.NewPaths(instance)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		killProcesses(dir)
		failed := errors.Join(unmountBelow(dir), unmountBelow(paths.Kubelet), removeCgroups(filepath.Base(dir)), removeLinks(dir),
			os.RemoveAll(paths.Kubelet), os.RemoveAll(paths.Run), os.RemoveAll(paths.State), os.RemoveAll(dir))
		if failed == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("removing what the node %s has left: %w", dir, failed)
		case <-tick.C: // processes that were killed take a moment to end
		}
	}
}

// sweep takes away what test processes that were killed have left.
func sweep() error {
	var failed error
	for _, pattern := range []string{os.TempDir(), "/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(filepath.Join(pattern, prefix+"*-*"))
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			name := filepath.Base(dir)
			text, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
			pid, err := strconv.Atoi(text)
			if err != nil || syscall.Kill(pid, 0) == nil {
				continue
			}
			dir = filepath.Join(os.TempDir(), name)
			instance := name
			if data, err := os.ReadFile(filepath.Join(dir, instanceFile)); err == nil {
				instance = string(data)
			}
			failed = errors.Join(failed, removeNamespace(name), remove(dir, instance))
		}
	}
	return failed
}

// killProcesses kills the programs that were started with a path below dir in their arguments, such as shims, and what
// runs below these: containers.
func killProcesses(dir string) {
	children := map[int][]int{}
	var doomed []int
	procs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, proc := range procs {
		pid, _ := strconv.Atoi(filepath.Base(proc))
		stat, _ := os.ReadFile(filepath.Join(proc, "stat")) // it may have ended: then it has no parent and no arguments
		if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if pid != os.Getpid() && strings.Contains(string(cmdline), dir+"/") {
			doomed = append(doomed, pid)
		}
	}
	for i := 0; i < len(doomed); i++ {
		doomed = append(doomed, children[doomed[i]]...)
	}
	for _, pid := range doomed {
		unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it may have ended
	}
}

// unmountBelow unmounts everything below dir, the last mounted first.
func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	var failed error
	for _, at := range slices.Backward(mounts) {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			failed = errors.Join(failed, fmt.Errorf("unmounting %q: %w", at, err))
		}
	}
	return failed
}

func mountsBelow(dir string) ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	return found, nil
}

// cgroups are a node's in every hierarchy, parents first.
func cgroups(name string) []string {
	var found []string
	roots, _ := filepath.Glob("/sys/fs/cgroup/*/" + name) // the pattern is well-formed
	for _, root := range append(roots, "/sys/fs/cgroup/"+name) {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // they come and go
			if err == nil && d.IsDir() {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}

// removeCgroups kills what is left in a node's cgroups, such as a container without its shim, and removes them.
func removeCgroups(name string) error {
	var failed error
	for _, dir := range slices.Backward(cgroups(name)) {
		if procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
			for _, text := range strings.Fields(string(procs)) {
				if pid, err := strconv.Atoi(text); err == nil {
					unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it may have ended
				}
			}
		}
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// removeLinks removes the links to logs below dir.
func removeLinks(dir string) error {
	var failed error
	for _, link := range linksInto(dir) {
		failed = errors.Join(failed, os.Remove(link))
	}
	return failed
}

func linksInto(dir string) []string {
	links, _ := filepath.Glob(containerLogs + "/*.log") // the pattern is well-formed
	return slices.DeleteFunc(links, func(link string) bool {
		target, err := os.Readlink(link)
		return err != nil || !strings.HasPrefix(target, dir+"/")
	})
}

// Leftovers is what is on the machine for pods, each with its place: sandboxes, containers, pod and log directories,
// links to logs, mounts and cgroups of pods. Once every pod was removed it should become empty.
func (n *Node) Leftovers() []string {
	n.t.Helper()
	var found []string
	for _, s := range n.Sandboxes("") {
		found = append(found, fmt.Sprintf("sandbox %.13s of %s", s.ID, s.Pod))
	}
	for _, c := range n.Containers("") {
		found = append(found, fmt.Sprintf("container %.13s %s of %s", c.ID, c.Name, c.Pod))
	}
	for _, pattern := range []string{filepath.Join(n.Paths.Kubelet, "pods/*"), filepath.Join(n.PodLogs, "*")} {
		paths, err := filepath.Glob(pattern)
		n.must(err)
		found = append(found, paths...)
	}
	found = append(found, linksInto(n.Dir)...)
	for _, dir := range []string{n.Paths.Kubelet, n.state()} {
		mounts, err := mountsBelow(dir)
		n.must(err)
		found = append(found, mounts...)
	}
	for _, dir := range cgroups(filepath.Base(n.Dir)) {
		if strings.HasPrefix(filepath.Base(dir), "pod") {
			found = append(found, dir)
		}
	}
	return found
}
