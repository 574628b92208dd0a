package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slipway-k8s/slipway/phases/config"
	"golang.org/x/sys/unix"
)

// inspector looks at the machine for preflight. It changes nothing.
type inspector struct {
	root       string // prefix of /proc, /sys, /etc; "" for the machine's own
	paths      config.Paths
	ledger     Ledger
	interfaces func() ([]Interface, error)
}

// Inspect takes a few milliseconds, save for images that are nowhere on the machine: their registry is then asked,
// for up to registryTimeout.
func (l *Live) Inspect(ctx context.Context, q Query) (*Inspection, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	asked := make(chan answers, 1)
	go func() { asked <- l.inspect.ask(ctx, q) }() // ended by ctx or its own bounds, waited for below unless there is an error
	seen, err := l.inspect.look(q)
	if err != nil {
		return nil, fmt.Errorf("inspecting the host: %w", err)
	}
	if q.Socket != "" {
		seen.Runtime = l.runtimeState(ctx, q.Socket)
	}
	seen.MissingImages, seen.RegistryErr, err = l.missingImages(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("inspecting the host: %w", err)
	}
	others := <-asked
	seen.Lookup, seen.EtcdVersions, seen.KubeletVersion = others.lookup, others.etcd, others.kubelet
	return seen, nil
}

func (l *Live) runtimeState(ctx context.Context, socket string) RuntimeState {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := knock(ctx, socket); err != nil {
		return RuntimeState{Err: err.Error()}
	}
	name, version, err := l.images.Version(ctx, socket)
	if err != nil {
		return RuntimeState{Err: err.Error()}
	}
	driver, err := l.images.CgroupDriver(ctx, socket)
	if err != nil {
		driver = "" // older runtimes do not know the question
	}
	return RuntimeState{Name: name, Version: version, CgroupDriver: driver}
}

// missingImages returns which of the references are neither in the store, nor in an archive, nor behind a registry that
// answers. A store that does not run yet is known by the record of what went into it.
func (l *Live) missingImages(ctx context.Context, q Query) ([]string, string, error) {
	if len(q.Images) == 0 {
		return nil, "", nil
	}
	socket := q.Socket
	if socket == "" {
		socket = l.paths.ContainerdSocket
	}
	var stored []string
	if goes := q.Emptied && q.Socket == ""; !goes && knock(ctx, socket) == nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		stored, _ = l.images.List(ctx, socket) // a runtime that does not answer is a problem of its own
		cancel()
	}
	missing := without(q.Images, stored)
	if len(missing) == 0 {
		return nil, "", nil
	}
	record, err := readImported(l.files, l.importRecord())
	if err != nil {
		return nil, "", err
	}
	archives, err := listArchives(q.Archives)
	if err != nil {
		return nil, "", err
	}
	for _, a := range archives {
		refs := []string(nil)
		if known, ok := record.unchanged(socket, a); ok {
			refs = known.Refs
		} else if refs, err = l.images.Refs(a.Path); err != nil {
			return nil, "", err
		}
		missing = without(missing, refs)
	}
	if len(missing) == 0 {
		return nil, "", nil
	}
	if !q.Pull {
		return missing, "the pull policy forbids to ask the registry", nil
	}
	lost, reason := unreachable(ctx, missing, l.registry)
	return lost, reason, nil
}

// answers are those of others than the kernel and the disk.
type answers struct {
	lookup  Lookup
	etcd    []EtcdVersion
	kubelet string
}

// ask puts the questions side by side: each has a bound of its own.
func (i inspector) ask(ctx context.Context, q Query) answers {
	var a answers
	var questions sync.WaitGroup
	if q.Lookup != "" {
		questions.Go(func() { a.lookup = lookUp(ctx, q.Lookup) })
	}
	if len(q.Etcd.Endpoints) > 0 {
		questions.Go(func() { a.etcd = i.etcdVersions(ctx, q.Etcd) })
	}
	questions.Go(func() { a.kubelet = kubeletVersion(ctx) })
	questions.Wait()
	return a
}

func (i inspector) path(p string) string { return filepath.Join(i.root, p) }

func (i inspector) read(p string) string {
	data, _ := os.ReadFile(i.path(p)) // absent on kernels without the feature
	return strings.TrimSpace(string(data))
}

func (i inspector) look(q Query) (*Inspection, error) {
	list := i.interfaces
	if list == nil {
		list = systemInterfaces
	}
	interfaces, err := list()
	if err != nil {
		return nil, fmt.Errorf("listing network interfaces: %w", err)
	}
	listeners, err := i.listeners(q.Ports)
	if err != nil {
		return nil, err
	}
	seen := &Inspection{
		EUID:        os.Geteuid(),
		CPUs:        runtime.NumCPU(),
		MemoryMiB:   memoryMiB(i.read("/proc/meminfo")),
		DiskFreeMiB: freeMiB(i.path(q.Disk)),
		Swap:        strings.Count(i.read("/proc/swaps"), "\n") > 0, // a header, then one line each
		Kernel:      i.read("/proc/sys/kernel/osrelease"),
		Now:         time.Now(),
		Listeners:   listeners,
		Programs:    map[string]string{},
		Paths:       map[string]PathState{},
		Sysctls:     map[string]string{},
		Cgroups:     i.cgroupControllers(),
		Owners:      i.owners(),
		HostnameOK:  inHosts(i.read("/etc/hosts"), q.NodeName),
		Clock:       askClock(),
		Routes:      i.routes(),
		Leftovers:   i.leftovers(systemLinks()),
		Units:       map[string]UnitState{},
	}
	seen.KernelLacks, seen.CgroupVersion = kernelLacks(i.kernelConfig(seen.Kernel)), 1
	if i.read("/sys/fs/cgroup/cgroup.controllers") != "" {
		seen.CgroupVersion = 2
	}
	for _, name := range q.Units {
		seen.Units[name] = i.unitState(name)
	}
	for _, each := range interfaces {
		seen.Addresses = append(seen.Addresses, each.Addresses...)
	}
	for _, name := range q.Programs {
		if path, err := exec.LookPath(name); err == nil {
			seen.Programs[name] = path
		}
	}
	for _, path := range q.Paths {
		seen.Paths[path] = i.pathState(path)
	}
	for _, key := range q.Sysctls {
		file := i.path("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
		if data, err := os.ReadFile(file); err == nil {
			seen.Sysctls[key] = strings.TrimSpace(string(data))
		}
	}
	return seen, nil
}

func (i inspector) pathState(path string) PathState {
	info, ok := exists(i.path(path))
	if !ok {
		return PathState{}
	}
	state := PathState{Exists: true, Dir: info.IsDir(), Link: info.Mode()&fs.ModeSymlink != 0, Ours: i.ledger.Owns(path)}
	if dir, err := os.Open(i.path(path)); state.Dir && err == nil {
		defer dir.Close()
		_, err := dir.Readdirnames(1)
		state.Empty = err != nil // io.EOF: no entry
	}
	return state
}

// cgroupControllers lists the controllers of the unified hierarchy, or those that are enabled in version 1.
func (i inspector) cgroupControllers() []string {
	if unified := i.read("/sys/fs/cgroup/cgroup.controllers"); unified != "" {
		// Version 2 keeps devices and freezer in the kernel itself, without a controller of that name.
		return compactSorted(append(strings.Fields(unified), "devices", "freezer"))
	}
	var names []string
	for line := range strings.Lines(i.read("/proc/cgroups")) {
		// subsys_name hierarchy num_cgroups enabled
		if f := strings.Fields(line); len(f) == 4 && f[3] == "1" {
			names = append(names, f[0])
		}
	}
	return compactSorted(names)
}

// memoryMiB is rounded to the nearest, as the sizes of machines are.
func memoryMiB(meminfo string) int {
	for line := range strings.Lines(meminfo) {
		if value, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(value + " 0")[0])
			return kib / 1024
		}
	}
	return 0
}

// freeMiB looks at the nearest parent that exists, and returns -1 when it cannot tell.
func freeMiB(path string) int {
	for ; path != "" && path != "."; path = filepath.Dir(path) {
		var fsinfo unix.Statfs_t
		err := unix.Statfs(path, &fsinfo)
		if err == nil {
			return int(fsinfo.Bavail * uint64(fsinfo.Bsize) >> 20)
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			break
		}
	}
	return -1
}

// inHosts reports whether a hosts file knows the name.
func inHosts(hosts, name string) bool {
	for line := range strings.Lines(hosts) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if _, err := netip.ParseAddr(f[0]); err == nil && slices.Contains(f[1:], name) {
			return true
		}
	}
	return false
}
