package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/runtime/podspec"
)

func ptr(v int64) *int64 { return &v }

func resources() podspec.CgroupResources {
	return podspec.CgroupResources{CPUShares: ptr(256), CPUQuota: ptr(50000), CPUPeriod: ptr(100000), Memory: ptr(64 << 20), PIDs: ptr(100)}
}

func TestSettings(t *testing.T) {
	for _, tc := range []struct {
		v2   bool
		r    podspec.CgroupResources
		want []setting
	}{
		{false, resources(), []setting{{"cpu.shares", "256"}, {"cpu.cfs_period_us", "100000"}, {"cpu.cfs_quota_us", "50000"}, {"memory.limit_in_bytes", "67108864"}, {"pids.max", "100"}}},
		{true, resources(), []setting{{"cpu.weight", "35"}, {"cpu.max", "50000 100000"}, {"memory.max", "67108864"}, {"pids.max", "100"}}},
		{true, podspec.CgroupResources{CPUQuota: ptr(0), CPUPeriod: ptr(100000), Memory: ptr(0)}, []setting{{"cpu.max", "max 100000"}, {"memory.max", "max"}}},
		{false, podspec.CgroupResources{}, nil},
	} {
		got := (&Tree{v2: tc.v2}).settings(tc.r)
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(setting{})); diff != "" {
			t.Errorf("v2=%v:\n%s", tc.v2, diff)
		}
	}
	for shares, want := range map[int64]int64{0: 1, 2: 1, 1024: 100, 262144: 10000} {
		if got := weight(shares); got != want {
			t.Errorf("weight(%d) = %d, want %d", shares, got, want)
		}
	}
}

// A directory tree that looks like v2: the files of a new cgroup do not appear by themselves, but what is enabled where
// can be seen.
func TestV2EnablesControllersDownTheTree(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"", "kubepods", "kubepods/burstable"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		must(t, os.WriteFile(filepath.Join(root, dir, "cgroup.controllers"), []byte("cpu misc pids\n"), 0o644))
		must(t, os.WriteFile(filepath.Join(root, dir, "cgroup.subtree_control"), []byte("cpu\n"), 0o644))
	}
	tree, err := Open(root)
	must(t, err)
	if !tree.V2() {
		t.Fatal("not taken for v2")
	}
	must(t, tree.Ensure("/kubepods/burstable/podx", resources()))
	for _, dir := range []string{"", "kubepods", "kubepods/burstable"} {
		got, err := os.ReadFile(filepath.Join(root, dir, "cgroup.subtree_control"))
		must(t, err)
		if string(got) != "+pids" {
			t.Errorf("%q: %q", dir, got)
		}
	}
}

func TestPathsAreKeptBelowTheRoot(t *testing.T) {
	tree := &Tree{hierarchies: []string{t.TempDir()}}
	for _, path := range []string{"", "/", "kubepods", "/kubepods/../..", "/a/"} {
		for name, err := range map[string]error{"Ensure": tree.Ensure(path, podspec.CgroupResources{}), "Remove": tree.Remove(path), "Prune": tree.Prune(path)} {
			if err == nil {
				t.Errorf("%s(%q) was accepted", name, path)
			}
		}
	}
}

func TestSlicesAreSystemds(t *testing.T) {
	root := t.TempDir()
	tree := &Tree{hierarchies: []string{root}}
	must(t, tree.Ensure("/kubepods.slice/kubepods-podx.slice", resources()))
	if entries, _ := os.ReadDir(root); len(entries) != 0 {
		t.Errorf("made %v", entries)
	}
}

// The kernel's own hierarchy, v1 or v2, under a parent that nobody else uses.
func TestKernel(t *testing.T) {
	const root = "/sys/fs/cgroup"
	tree, err := Open(root)
	if err != nil || os.Geteuid() != 0 {
		t.Skipf("needs root and cgroups: %v", err)
	}
	top := fmt.Sprintf("/slipway-test-%d", os.Getpid())
	pod := top + "/burstable/pod1"
	if err := tree.Ensure(pod, podspec.CgroupResources{}); err != nil {
		t.Skipf("cgroups cannot be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := tree.Remove(top); err != nil || tree.Exists(top) {
			t.Errorf("left behind: %v", err)
		}
	})
	must(t, tree.Ensure(pod, resources()))
	if !tree.Exists(pod) {
		t.Error("not in every hierarchy")
	}
	for _, s := range tree.settings(resources()) {
		if !slices.ContainsFunc(tree.hierarchies, func(h string) bool {
			got, err := os.ReadFile(filepath.Join(h, pod, s.file))
			return err == nil && strings.TrimSpace(string(got)) == s.value
		}) {
			t.Errorf("%s is not %s anywhere", s.file, s.value)
		}
	}

	sleep := exec.CommandContext(t.Context(), "sleep", "60")
	must(t, sleep.Start())
	pid := fmt.Sprint(sleep.Process.Pid)
	for _, h := range tree.hierarchies {
		must(t, os.WriteFile(filepath.Join(h, pod, "cgroup.procs"), []byte(pid), 0))
	}
	if err := tree.Remove(pod); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), pid) {
		t.Errorf("with a process: %v", err)
	}
	must(t, tree.Prune(pod))
	if !tree.Exists(pod) {
		t.Error("Prune removed a cgroup that is in use")
	}
	must(t, sleep.Process.Kill())
	_ = sleep.Wait() // "signal: killed"
	must(t, tree.Remove(pod))
	must(t, tree.Remove(pod))
	if tree.Exists(pod) {
		t.Error("still there")
	}
	must(t, tree.Prune(top+"/burstable", top))
	if tree.Exists(top) {
		t.Error("Prune left an empty cgroup")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
