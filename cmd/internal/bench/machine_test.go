//go:build bench

package bench

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
	"time"

	"golang.org/x/sys/unix"
)

// nodePaths are the directories of a Kubernetes node. Where one exists before a measurement, nothing is measured; all
// are gone after it. kubeadm and the kubelet have no option for other ones.
var nodePaths = []string{
	"/etc/kubernetes", "/var/lib/kubelet", "/var/lib/etcd", "/var/lib/slipway", "/run/slipway", "/var/log/slipway",
}

// sharedPaths are directories that a measurement may make and others may use: they are removed when they were not
// there before and are empty after it. What is inside comes first.
var sharedPaths = []string{
	"/var/log/pods", "/var/log/containers", "/run/containerd/s", "/run/containerd", "/etc/cni/net.d", "/etc/cni", "/opt/cni/bin", "/opt/cni",
	"/usr/libexec/kubernetes/kubelet-plugins/volume/exec", "/usr/libexec/kubernetes/kubelet-plugins/volume",
	"/usr/libexec/kubernetes/kubelet-plugins", "/usr/libexec/kubernetes",
}

// sysctls are those that a kubelet sets at its start.
var sysctls = []string{
	"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
}

var controlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// claim is the right to run a control plane on this machine, and how the machine was before.
type claim struct {
	lock    *os.File
	absent  []string // of sharedPaths
	cgroups bool     // whether there were pod cgroups
	sysctls kernelSettings
}

// kernelSettings are values of sysctls by path, to put back what a kubelet changes.
type kernelSettings map[string]string

func readSysctls() kernelSettings {
	values := kernelSettings{}
	for _, name := range sysctls {
		path := filepath.Join("/proc/sys", name)
		if value, err := os.ReadFile(path); err == nil {
			values[path] = string(value)
		}
	}
	return values
}

func (k kernelSettings) restore() (err error) {
	for path, value := range k {
		if now, e := os.ReadFile(path); e == nil && string(now) != value {
			err = errors.Join(err, os.WriteFile(path, []byte(value), 0))
		}
	}
	return err
}

// claimMachine waits for the lock and refuses a machine that is a node.
func claimMachine(ctx context.Context, lock string) (*claim, error) {
	file, err := lockFile(ctx, lock)
	if err != nil {
		return nil, err
	}
	c := &claim{lock: file, sysctls: readSysctls()}
	if err := errors.Join(unused(), portsFree(ctx)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	for _, path := range sharedPaths {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			c.absent = append(c.absent, path)
		}
	}
	c.cgroups = len(podCgroups()) > 0
	return c, nil
}

// lockFile takes the lock that every test with a control plane of its own takes, so that two never share the machine.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("taking the lock: %w", err)
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("taking the lock %q: %w", path, err), file.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("waiting for the lock %q: %w", path, context.Cause(ctx)), file.Close())
		case <-ticker.C:
		}
	}
}

func unused() error {
	for _, path := range nodePaths {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists: this machine is, or was, a Kubernetes node, and the benchmark would destroy it; use another machine or remove the node first", path)
		}
	}
	return nil
}

// release puts the machine back and gives up the lock. Leftovers is what was there still and is gone now; the error is
// about what could not be put back.
func (c *claim) release() (leftovers []string, err error) {
	for _, path := range nodePaths {
		if _, e := os.Lstat(path); e == nil {
			leftovers = append(leftovers, path)
		}
		err = errors.Join(err, unmountBelow(path), os.RemoveAll(path))
	}
	for _, name := range controlPlane {
		for _, pattern := range []string{"/var/log/pods/kube-system_" + name + "-*", "/var/log/containers/" + name + "-*_kube-system_*.log"} {
			found, _ := filepath.Glob(pattern) // the patterns are well-formed
			leftovers = append(leftovers, found...)
			for _, path := range found {
				err = errors.Join(err, os.RemoveAll(path))
			}
		}
	}
	for _, path := range c.absent {
		if os.Remove(path) == nil { // others may have put something into it, or it was never made
			leftovers = append(leftovers, path)
		}
	}
	if !c.cgroups {
		groups := podCgroups()
		leftovers = append(leftovers, groups...)
		for _, path := range slices.Backward(groups) {
			os.Remove(path) //nolint:errcheck // busy: others have made theirs meanwhile
		}
	}
	return leftovers, errors.Join(err, c.sysctls.restore(), c.lock.Close())
}

// podCgroups are the cgroups of pods in every hierarchy, parents first.
func podCgroups() []string {
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods*", "/sys/fs/cgroup/*/kubepods*"} {
		roots, _ := filepath.Glob(pattern) // the patterns are well-formed
		for _, root := range roots {
			filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error { //nolint:errcheck // they come and go
				if err == nil && d.IsDir() {
					found = append(found, path)
				}
				return nil
			})
		}
	}
	return found
}

// unmountBelow unmounts everything at and below dir, the last mounted first.
func unmountBelow(dir string) error {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("looking for mounts below %q: %w", dir, err)
	}
	var failed error
	for _, mount := range slices.Backward(strings.Split(strings.TrimSpace(string(data)), "\n")) {
		at := strings.Fields(mount)[4]
		if at == dir || strings.HasPrefix(at, dir+"/") {
			if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
				failed = errors.Join(failed, fmt.Errorf("unmounting %q: %w", at, err))
			}
		}
	}
	return failed
}

// killShims kills the shims of the containerd behind the socket with all that runs below them. It is for failures:
// where all went well, there are none.
func killShims(socket string) {
	children := map[int][]int{}
	var doomed []int
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, _ := os.ReadFile(filepath.Join(dir, "stat")) // it may have ended: no parent, no arguments
		if fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:])); len(fields) > 1 {
			parent, _ := strconv.Atoi(fields[1])
			children[parent] = append(children[parent], pid)
		}
		data, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		argv := strings.Split(string(data), "\x00")
		if strings.Contains(argv[0], "containerd-shim") && slices.Contains(argv, socket) {
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

const (
	// quiet is the idle share of the machine that a run begins at: what else runs takes less than a tenth of a core.
	quiet = 0.95
	// patience is how long a run waits for it. A machine that is not quiet by then is measured as it is.
	patience = 30
)

// settle writes out what earlier runs left for the disk, and waits for a quiet second. It returns how idle the machine
// was in the last second: 1 is wholly.
func settle(ctx context.Context) (idle float64, err error) {
	unix.Sync()
	for range patience {
		before, err := readMachineTime()
		if err != nil {
			return 0, err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return 0, err
		}
		after, err := readMachineTime()
		if err != nil {
			return 0, err
		}
		if idle = after.idleSince(before); idle >= quiet {
			break
		}
	}
	return idle, nil
}

func readMachineTime() (machineTime, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTime{}, fmt.Errorf("reading the machine's load: %w", err)
	}
	return parseMachineTime(string(data))
}
