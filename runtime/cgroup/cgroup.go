// Package cgroup makes the cgroups that stand above a pod's containers.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// ErrBusy is wrapped by Remove's error while processes are left in the cgroup.
var ErrBusy = errors.New("processes are left in it")

// Tree is a host's cgroup hierarchy. Several goroutines may use it at the same time for different cgroups.
type Tree struct {
	root string
	// hierarchies are the mounts to work in: one for v2, for v1 one per controller or set of controllers.
	hierarchies []string
	// unified is the v2 hierarchy of a hybrid host. The kubelet leaves it alone, but runc makes its cgroups there too,
	// with their parents: so they are removed there and never made. "" where there is none.
	unified string
	v2      bool
}

// Open looks at the hierarchy mounted at root, usually /sys/fs/cgroup.
func Open(root string) (*Tree, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return &Tree{root: root, hierarchies: []string{root}, v2: true}, nil
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	t := &Tree{root: root}
	for _, e := range entries {
		// Joint controllers are one directory (cpu,cpuacct) with symlinks of each name: only the directory counts. The
		// v2 hierarchy of a hybrid host is told by its cgroup.controllers.
		dir := filepath.Join(root, e.Name())
		switch {
		case !e.IsDir() || !has(dir, "cgroup.procs"):
		case has(dir, "cgroup.controllers"):
			t.unified = dir
		default:
			t.hierarchies = append(t.hierarchies, dir)
		}
	}
	if len(t.hierarchies) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s; mount cgroup2 there", root)
	}
	return t, nil
}

// V2 says that the host has the unified hierarchy.
func (t *Tree) V2() bool { return t.v2 }

// Ensure makes the cgroup with its parents in every hierarchy and gives it the resources. It may be called again:
// what is there is kept, and the resources are set anew. A slice, which is what the systemd driver's paths end in, is
// left to systemd: it makes one when the runtime asks for a scope in it, and would fight over any other.
func (t *Tree) Ensure(parent string, r podspec.CgroupResources) error {
	if err := check(parent); err != nil {
		return err
	}
	if strings.HasSuffix(parent, ".slice") {
		return nil
	}
	for _, h := range t.hierarchies {
		if err := t.makeBelow(h, parent); err != nil {
			return fmt.Errorf("making cgroup %s: %w", parent, err)
		}
	}
	for _, s := range t.settings(r) {
		for _, h := range t.hierarchies {
			file := filepath.Join(h, parent, s.file)
			if _, err := os.Stat(file); err != nil {
				continue // another controller's hierarchy, or a controller that this kernel lacks
			}
			if err := os.WriteFile(file, []byte(s.value), 0); err != nil {
				return fmt.Errorf("setting %s of cgroup %s to %q: %w", s.file, parent, s.value, err)
			}
		}
	}
	return nil
}

// Remove removes the cgroup with what is below it, which it expects to be empty. A cgroup that is not there is
// removed already; one with processes gives ErrBusy, for as long as the last of them is ending: try again.
func (t *Tree) Remove(parent string) error {
	if err := check(parent); err != nil {
		return err
	}
	var errs []error
	for _, h := range t.all() {
		if err := removeTree(filepath.Join(h, parent)); err != nil {
			errs = append(errs, fmt.Errorf("removing cgroup %s: %w", parent, err))
			if errors.Is(err, ErrBusy) {
				break // every hierarchy would say the same
			}
		}
	}
	return errors.Join(errs...)
}

// Prune removes each of the cgroups that has neither processes nor cgroups below it, and leaves the others.
func (t *Tree) Prune(parents ...string) error {
	for _, parent := range parents {
		if err := check(parent); err != nil {
			return err
		}
		for _, h := range t.all() {
			_ = os.Remove(filepath.Join(h, parent)) // rmdir refuses what is in use: exactly the rule
		}
	}
	return nil
}

// all are the hierarchies in which something may be left.
func (t *Tree) all() []string {
	if t.unified == "" {
		return t.hierarchies
	}
	return append(slices.Clone(t.hierarchies), t.unified)
}

// Exists says whether the cgroup is in every hierarchy, as the kubelet asks before it adopts a pod.
func (t *Tree) Exists(parent string) bool {
	for _, h := range t.hierarchies {
		if !has(filepath.Join(h, parent), "cgroup.procs") {
			return false
		}
	}
	return true
}

// check keeps every effect below a cgroup of our own: never the root, never outside.
func check(parent string) error {
	if !filepath.IsAbs(parent) || filepath.Clean(parent) != parent || parent == "/" {
		return fmt.Errorf("cgroup path %q: expected a clean absolute path below the root", parent)
	}
	return nil
}

func has(dir, file string) bool {
	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
}

func (t *Tree) makeBelow(hierarchy, parent string) error {
	dir := hierarchy
	for _, name := range strings.Split(strings.TrimPrefix(parent, "/"), "/") {
		if t.v2 {
			if err := enableControllers(dir); err != nil {
				return err
			}
		}
		above := dir
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCpuset(above, dir); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers passes what the kubelet demands of a pod's cgroup on to the children of dir: each by itself, since
// one that the kernel refuses (a realtime process holds cpu back) must not cost the others.
func enableControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(available)) {
		if !slices.Contains([]string{"cpu", "cpuset", "memory", "hugetlb", "pids", "io"}, c) || slices.Contains(strings.Fields(string(enabled)), c) {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil && c != "io" {
			return fmt.Errorf("enabling the %s controller below %s: %w", c, dir, err)
		}
	}
	return nil
}

// inheritCpuset fills in what v1 leaves empty in a new cpuset, in which no process could run.
func inheritCpuset(above, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || len(strings.TrimSpace(string(own))) > 0 || has(dir, "cgroup.controllers") {
			continue
		}
		value, err := os.ReadFile(filepath.Join(above, file))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
			return err
		}
	}
	return nil
}

// setting is one file of a cgroup and what to write into it.
type setting struct{ file, value string }

// settings translates the resources for this version of cgroups. A limit of 0 is none.
func (t *Tree) settings(r podspec.CgroupResources) []setting {
	var out []setting
	set := func(file string, value any) { out = append(out, setting{file, fmt.Sprint(value)}) }
	if t.v2 {
		if r.CPUShares != nil {
			set("cpu.weight", weight(*r.CPUShares))
		}
		if r.CPUQuota != nil && r.CPUPeriod != nil {
			quota := "max"
			if *r.CPUQuota > 0 {
				quota = strconv.FormatInt(*r.CPUQuota, 10)
			}
			set("cpu.max", fmt.Sprintf("%s %d", quota, *r.CPUPeriod))
		}
		if r.Memory != nil {
			set("memory.max", orNone(*r.Memory, "max"))
		}
		if r.PIDs != nil {
			set("pids.max", orNone(*r.PIDs, "max"))
		}
		return out
	}
	if r.CPUShares != nil {
		set("cpu.shares", *r.CPUShares)
	}
	if r.CPUPeriod != nil {
		set("cpu.cfs_period_us", *r.CPUPeriod)
	}
	if r.CPUQuota != nil {
		set("cpu.cfs_quota_us", orNone(*r.CPUQuota, "-1"))
	}
	if r.Memory != nil {
		set("memory.limit_in_bytes", orNone(*r.Memory, "-1"))
	}
	if r.PIDs != nil {
		set("pids.max", orNone(*r.PIDs, "max"))
	}
	return out
}

func orNone(limit int64, none string) string {
	if limit <= 0 {
		return none
	}
	return strconv.FormatInt(limit, 10)
}

// weight converts v1 shares (2 to 262144, 1024 by default) to a v2 weight (1 to 10000, 100 by default): the curve
// through those three points that runc and the kubelet have used since 2025. opencontainers/cgroups v0.0.6 utils.go:425.
func weight(shares int64) int64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return int64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// removeTree removes a cgroup from the leaves up. A cgroup's files are the kernel's: only directories are removed.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	err = os.Remove(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if pids, readErr := os.ReadFile(filepath.Join(dir, "cgroup.procs")); readErr == nil && len(pids) > 0 {
		return fmt.Errorf("%w: %s", ErrBusy, strings.Join(strings.Fields(string(pids)), " "))
	}
	return err
}
