package mirror

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Pressure is what a machine runs short of.
type Pressure struct{ Memory, Disk, PIDs bool }

// Thresholds are below which a machine runs short, by the kubelet's signals: memory.available, nodefs.available,
// nodefs.inodesFree, pid.available. Use ParseThresholds.
type Thresholds map[string]threshold

// threshold is an amount, or a share of the whole.
type threshold struct {
	amount int64
	share  float64 // 0 to 1
}

func (t threshold) over(free, whole uint64) bool {
	return float64(free) < max(float64(t.amount), t.share*float64(whole))
}

// ParseThresholds reads evictionHard of a KubeletConfiguration; without one the kubelet's defaults hold. Signals of file
// systems that are the runtime's own are not looked at.
func ParseThresholds(evictionHard map[string]string) (Thresholds, error) {
	if evictionHard == nil {
		// Kubernetes v1.36.3 pkg/kubelet/eviction/defaults_linux.go.
		evictionHard = map[string]string{"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%"}
	}
	all := Thresholds{}
	for signal, text := range evictionHard {
		t, err := parseThreshold(text)
		if err != nil {
			return nil, fmt.Errorf("evictionHard %s %q: %w", signal, text, err)
		}
		all[signal] = t
	}
	return all, nil
}

func parseThreshold(text string) (threshold, error) {
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		f, err := strconv.ParseFloat(percent, 32)
		if err != nil || f < 0 || f > 100 {
			return threshold{}, fmt.Errorf("not a percentage between 0 and 100")
		}
		return threshold{share: f / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil {
		return threshold{}, err
	}
	return threshold{amount: q.Value()}, nil
}

// ReadPressure compares this machine with the thresholds. disk is a path on the file system that the pods write to. What
// cannot be read is not short.
func (t Thresholds) ReadPressure(disk string) Pressure {
	var p Pressure
	if free, whole, ok := availableMemory(content("/proc/meminfo")); ok {
		p.Memory = t["memory.available"].over(free, whole)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err == nil {
		block := uint64(fs.Bsize)
		p.Disk = t["nodefs.available"].over(fs.Bavail*block, fs.Blocks*block) ||
			fs.Files > 0 && t["nodefs.inodesFree"].over(fs.Ffree, fs.Files)
	}
	if running, most, ok := processes(content("/proc/loadavg"), content("/proc/sys/kernel/pid_max")); ok {
		p.PIDs = t["pid.available"].over(most-min(running, most), most)
	}
	return p
}

// availableMemory reads the bytes of /proc/meminfo that are available, of all there are.
func availableMemory(meminfo string) (free, whole uint64, ok bool) {
	found := map[string]uint64{}
	for line := range strings.Lines(meminfo) {
		name, value, _ := strings.Cut(line, ":")
		kib, _ := strings.CutSuffix(strings.TrimSpace(value), " kB")
		if n, err := strconv.ParseUint(kib, 10, 54); err == nil {
			found[name] = n * 1024
		}
	}
	free, ok = found["MemAvailable"]
	return free, found["MemTotal"], ok && found["MemTotal"] > 0
}

// processes reads how many process ids are in use, of how many: the fourth field of /proc/loadavg is RUNNING/ALL.
func processes(loadavg, pidMax string) (running, most uint64, ok bool) {
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return 0, 0, false
	}
	_, all, _ := strings.Cut(fields[3], "/")
	running, err := strconv.ParseUint(all, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	most, err = strconv.ParseUint(pidMax, 10, 64)
	return running, most, err == nil
}
