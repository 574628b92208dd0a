package cli

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestMachine(t *testing.T) {
	sys := fstest.MapFS{
		"kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages":  {},
		"kernel/mm/hugepages/hugepages-2048kB/nr_hugepages":     {},
		"kernel/mm/hugepages/hugepages-64kB/nr_hugepages":       {},
		"devices/system/cpu/cpu0/thermal_throttle/count":        {},
		"devices/system/cpu/cpu11/thermal_throttle/count":       {},
		"devices/system/cpu/cpu1/topology/core_id":              {},
		"devices/system/cpu/cpufreq/thermal_throttle/something": {},
	}
	sizes, err := hugePageSizes(sys)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"64KB", "2MB", "1GB"}, sizes); diff != "" {
		t.Errorf("huge pages (-want +got):\n%s", diff)
	}
	hidden, err := throttlePaths(sys)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/devices/system/cpu/cpu11/thermal_throttle"}
	if diff := cmp.Diff(want, hidden); diff != "" {
		t.Errorf("hidden paths (-want +got):\n%s", diff)
	}
}

func TestHugePagesNeedTheirController(t *testing.T) {
	for name, c := range map[string]struct {
		sys  fstest.MapFS
		v2   bool
		want bool
	}{
		"version 1 with":    {fstest.MapFS{"fs/cgroup/hugetlb/tasks": {}}, false, true},
		"version 1 without": {fstest.MapFS{"fs/cgroup/memory/tasks": {}}, false, false},
		"version 2 with":    {fstest.MapFS{"fs/cgroup/cgroup.controllers": {Data: []byte("cpu hugetlb memory\n")}}, true, true},
		"version 2 without": {fstest.MapFS{"fs/cgroup/cgroup.controllers": {Data: []byte("cpu memory\n")}}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := countsHugePages(c.sys, c.v2); got != c.want {
				t.Errorf("countsHugePages() = %v, want %v", got, c.want)
			}
		})
	}
}
