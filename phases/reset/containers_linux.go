package reset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-k8s/slipway/phases/host"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

// bundle is a container as containerd's state directory describes it, whether or not containerd runs.
type bundle struct {
	Container        // with a zero Process if it has ended
	cgroup    string // relative to the hierarchies; "" if unknown
	socket    string // of its shim; "" if unknown
}

// bundles reads <state>/io.containerd.runtime.v2.task/<namespace>/<id>. What cannot be read is left out: it may be
// half made or half removed.
func bundles(state string) []bundle {
	dirs, _ := filepath.Glob(filepath.Join(escape(state), "io.containerd.runtime.v2.task", "*", "*"))
	var list []bundle
	for _, dir := range dirs {
		b := bundle{Container: Container{ID: filepath.Base(dir)}, socket: shimSocket(dir)}
		b.describe(filepath.Join(dir, "config.json"))
		b.Process = initProcess(dir, b.ID)
		list = append(list, b)
	}
	return list
}

// describe fills in what the runtime's specification says of the container.
func (b *bundle) describe(path string) {
	var spec struct {
		Annotations map[string]string `json:"annotations"`
		Linux       struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	data, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(data, &spec) != nil {
		return
	}
	b.Pod = spec.Annotations["io.kubernetes.cri.sandbox-name"]
	b.Name = spec.Annotations["io.kubernetes.cri.container-name"]
	b.cgroup = cgroupPath(spec.Linux.CgroupsPath)
}

// initProcess returns the container's first process, if it runs. A pid alone could have passed to a stranger since:
// only a process in the container's own cgroup is the container's.
func initProcess(dir, id string) host.ProcessID {
	data, err := os.ReadFile(filepath.Join(dir, "init.pid"))
	if err != nil {
		return host.ProcessID{}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return host.ProcessID{}
	}
	process, err := host.IdentifyProcess(pid)
	if err != nil || !inCgroup(pid, id) {
		return host.ProcessID{}
	}
	return process
}

// inCgroup reports whether the process is in a cgroup named for the container: its id (cgroupfs), or
// "cri-containerd-<id>.scope" (systemd).
func inCgroup(pid int, id string) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return err == nil && len(id) >= 8 && bytes.Contains(data, []byte(id))
}

// shimSocket returns the socket that the bundle's shim serves, which a killed shim leaves behind: containerd 1.x
// writes it to "address", 2.x to "bootstrap.json".
func shimSocket(dir string) string {
	address, err := os.ReadFile(filepath.Join(dir, "address"))
	if err != nil {
		var bootstrap struct {
			Address string `json:"address"`
		}
		data, err := os.ReadFile(filepath.Join(dir, "bootstrap.json"))
		if err != nil || json.Unmarshal(data, &bootstrap) != nil {
			return ""
		}
		address = []byte(bootstrap.Address)
	}
	path, isUnix := strings.CutPrefix(strings.TrimSpace(string(address)), "unix://")
	if !isUnix || !filepath.IsAbs(path) {
		return ""
	}
	return filepath.Clean(path)
}

// cgroupPath returns where the specification's cgroupsPath lies in a hierarchy: itself, or, in the form
// "slice:prefix:name" of the systemd driver, the scope below its slices ("a-b.slice" lies in "a.slice").
func cgroupPath(spec string) string {
	parts := strings.Split(spec, ":")
	if len(parts) != 3 {
		return spec
	}
	path, prefix := "/", ""
	for _, part := range strings.Split(strings.TrimSuffix(parts[0], ".slice"), "-") {
		prefix += part
		path = filepath.Join(path, prefix+".slice")
		prefix += "-"
	}
	return filepath.Join(path, parts[1]+"-"+parts[2]+".scope")
}

// endLeftovers ends what is left of a runtime's containers: their first processes in the order of their pods, then
// whatever else is in their cgroups, then the shims. After that it removes the shims' sockets and the cgroups.
func (l *Live) endLeftovers(ctx context.Context, socket, state string) error {
	left := bundles(state)
	var containers []Container
	for _, b := range left {
		if b.Process.PID != 0 {
			containers = append(containers, b.Container)
		}
	}
	var errs []error
	for _, c := range inStopOrder(containers) {
		errs = append(errs, host.StopProcess(ctx, c.Process, leftoverGrace))
	}
	running, err := processes()
	if err != nil {
		return err
	}
	for _, p := range append(inContainers(left), shims(running, socket)...) {
		errs = append(errs, host.StopProcess(ctx, p.ProcessID, leftoverGrace))
	}
	for _, b := range left {
		if b.socket != "" {
			_, err := ledger.RemoveTree(b.socket, nil)
			errs = append(errs, err)
		}
		if b.cgroup != "" {
			errs = append(errs, l.removeCgroups(b.cgroup))
			// The pod's own cgroup lies around it. Anything else there may be the whole machine's.
			if pod := filepath.Dir(b.cgroup); isPodCgroup(filepath.Base(pod)) {
				errs = append(errs, l.removeCgroups(pod))
			}
		}
	}
	return errors.Join(errs...)
}

// isPodCgroup knows the names that the kubelet's drivers use: "pod<uid>" and "kubepods-burstable-pod<uid>.slice".
func isPodCgroup(name string) bool {
	return strings.HasPrefix(name, "pod") || strings.Contains(name, "-pod")
}

// inContainers returns the processes in the containers' cgroups, of any pid namespace.
func inContainers(list []bundle) []Process {
	var found []Process
	for _, pid := range pids() {
		if !slices.ContainsFunc(list, func(b bundle) bool { return inCgroup(pid, b.ID) }) {
			continue
		}
		if id, err := host.IdentifyProcess(pid); err == nil {
			found = append(found, Process{ProcessID: id})
		}
	}
	return found
}

// processes returns the processes of our pid namespace but this one: a container or a nested host with a slipway of
// its own is not ours, although its processes show here.
func processes() ([]Process, error) {
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("reading the pid namespace: %w", err)
	}
	var list []Process
	for _, pid := range pids() {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmdline) == 0 || pid == os.Getpid() { // ended meanwhile, or the kernel's
			continue
		}
		if ns, err := os.Readlink(filepath.Join(dir, "ns/pid")); err != nil || ns != own {
			continue
		}
		if id, err := host.IdentifyProcess(pid); err == nil {
			list = append(list, Process{ProcessID: id, Argv: strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")})
		}
	}
	return list, nil
}

func pids() []int {
	entries, _ := os.ReadDir("/proc")
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	slices.Sort(list)
	return list
}

// escape keeps filepath.Glob from reading a directory's own name as a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
