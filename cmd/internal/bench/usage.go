package bench

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// memory is what a process holds, in bytes.
type memory struct {
	Resident     int64 // VmRSS: private and shared pages
	Peak         int64 // VmHWM: the most that Resident ever was
	Proportional int64 // Pss: shared pages divided among those that share them
	Anonymous    int64 // RssAnon: heap and stacks, what is not backed by the program's file
}

// watcher is what the process that watches over pods costs.
type watcher struct {
	Memory memory
	CPU    float64 // of one core
}

// memoryOf reads the memory of a running process.
func memoryOf(pid int) (memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return parseMemory(string(status), string(rollup))
}

func parseMemory(status, rollup string) (memory, error) {
	var m memory
	var failed error
	for _, field := range []struct {
		text, key string
		value     *int64
	}{
		{status, "VmRSS", &m.Resident}, {status, "VmHWM", &m.Peak}, {rollup, "Pss", &m.Proportional}, {status, "RssAnon", &m.Anonymous},
	} {
		var err error
		*field.value, err = kibibytes(field.text, field.key)
		failed = errors.Join(failed, err)
	}
	return m, failed
}

// kibibytes finds the line "KEY:   123 kB" and returns its value in bytes. The kernel's kB are of 1024 bytes.
func kibibytes(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, key+":")
		if !found {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) != 2 || fields[1] != "kB" {
			return 0, fmt.Errorf("%s: malformed line %q", key, line)
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", key, err)
		}
		return n << 10, nil
	}
	return 0, fmt.Errorf("%s: no such line", key)
}

// tick is the unit of CPU times under /proc: USER_HZ is 100 on every architecture that slipway is built for.
const tick = 10 * time.Millisecond

// cpuTime returns how long a process has run on all cores together, its kernel time included, from its /proc/PID/stat.
func cpuTime(stat string) (time.Duration, error) {
	// The second field is the program's name in parentheses, which may hold anything; state is the third.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("malformed stat %q", stat)
	}
	var sum time.Duration
	for _, field := range fields[11:13] { // utime, stime: the 14th and 15th
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("malformed stat %q: %w", stat, err)
		}
		sum += time.Duration(ticks) * tick
	}
	return sum, nil
}

// cpuTimeOf reads the CPU time of a running process.
func cpuTimeOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return cpuTime(string(stat))
}

// machineTime is the time of all cores together since boot.
type machineTime struct{ Busy, Idle time.Duration }

// idleSince returns the idle share of the time after an earlier reading, between 0 and 1.
func (m machineTime) idleSince(earlier machineTime) float64 {
	idle, busy := m.Idle-earlier.Idle, m.Busy-earlier.Busy
	return float64(idle) / float64(max(idle+busy, tick))
}

// parseMachineTime reads the first line of /proc/stat: user nice system idle iowait irq softirq steal.
func parseMachineTime(stat string) (machineTime, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return machineTime{}, fmt.Errorf("malformed /proc/stat: %q", line)
	}
	var m machineTime
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return machineTime{}, fmt.Errorf("malformed /proc/stat: %w", err)
		}
		if i == 3 || i == 4 { // idle, iowait
			m.Idle += time.Duration(ticks) * tick
		} else {
			m.Busy += time.Duration(ticks) * tick
		}
	}
	return m, nil
}
