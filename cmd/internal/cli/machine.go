package cli

import (
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// hugePageSizes are the sizes of huge pages that the kernel has, as it names them in cgroups: "2MB", "1GB". sys is the
// root of /sys.
func hugePageSizes(sys fs.FS) ([]string, error) {
	dirs, err := fs.Glob(sys, "kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return nil, fmt.Errorf("looking for huge pages: %w", err)
	}
	var kilobytes []int64
	for _, dir := range dirs {
		digits := strings.TrimSuffix(strings.TrimPrefix(path.Base(dir), "hugepages-"), "kB")
		kb, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("looking for huge pages: /sys/%s: %w", dir, err)
		}
		kilobytes = append(kilobytes, kb)
	}
	slices.Sort(kilobytes)
	var sizes []string
	for _, kb := range kilobytes {
		size, unit := kb, "KB"
		for _, larger := range []string{"MB", "GB"} {
			if size%1024 != 0 {
				break
			}
			size, unit = size/1024, larger
		}
		sizes = append(sizes, strconv.FormatInt(size, 10)+unit)
	}
	return sizes, nil
}

// countsHugePages tells whether the kernel has a cgroup controller for huge pages: without it no limit can be set.
func countsHugePages(sys fs.FS, v2 bool) bool {
	if !v2 {
		_, err := fs.Stat(sys, "fs/cgroup/hugetlb")
		return err == nil
	}
	controllers, err := fs.ReadFile(sys, "fs/cgroup/cgroup.controllers")
	return err == nil && slices.Contains(strings.Fields(string(controllers)), "hugetlb")
}

// throttlePaths are the directories that tell containers of their neighbours' load through the temperature of the
// processors. Kubernetes v1.36.3 pkg/securitycontext/util_linux.go hides those that exist.
func throttlePaths(sys fs.FS) ([]string, error) {
	dirs, err := fs.Glob(sys, "devices/system/cpu/cpu[0-9]*/thermal_throttle")
	if err != nil {
		return nil, fmt.Errorf("looking for processors: %w", err)
	}
	for i := range dirs {
		dirs[i] = "/sys/" + dirs[i]
	}
	return dirs, nil
}

// nearestDir is the path itself, or as much of it as is there yet.
func nearestDir(path string) string {
	for path != filepath.Dir(path) && !exists(path) {
		path = filepath.Dir(path)
	}
	return path
}
