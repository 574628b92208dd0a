package bench

import (
	"strings"
	"testing"
	"time"
)

func TestParseMemoryReadsTheKernelsFiles(t *testing.T) {
	status := "Name:\tslipway\nVmHWM:\t   31744 kB\nVmRSS:\t   28672 kB\nRssAnon:\t   12288 kB\nRssFile:\t   16384 kB\n"
	rollup := "00400000-7fff00000000 ---p 00000000 00:00 0    [rollup]\nRss:               28672 kB\nPss:               27648 kB\nPss_Dirty:         12288 kB\n"
	got, err := parseMemory(status, rollup)
	if err != nil {
		t.Fatal(err)
	}
	if want := (memory{Resident: 28 << 20, Peak: 31 << 20, Proportional: 27 << 20, Anonymous: 12 << 20}); got != want {
		t.Errorf("parseMemory = %+v, want %+v", got, want)
	}
	if _, err := parseMemory(status, ""); err == nil || !strings.Contains(err.Error(), "Pss: no such line") {
		t.Errorf("without a rollup: %v, want the missing line by name", err)
	}
}

func TestCPUTimeIsUserAndKernelTime(t *testing.T) {
	got, err := cpuTime("4321 (a) strange (name) S 1 4321 4321 0 -1 4194560 5000 0 12 0 250 70 8 9 20 0 9 0 100 1 2")
	if want := 3200 * time.Millisecond; err != nil || got != want {
		t.Errorf("cpuTime = %v, %v; want %v", got, err, want)
	}
	if _, err := cpuTime("4321 (cut) S 1"); err == nil {
		t.Error("a cut stat line is taken for a whole one")
	}
}

func TestMachineTimeCountsWaitingForDiskAsIdle(t *testing.T) {
	got, err := parseMachineTime("cpu  100 0 50 800 40 0 10 0 0 0\ncpu0 1 2 3\n")
	if want := (machineTime{Busy: 1600 * time.Millisecond, Idle: 8400 * time.Millisecond}); err != nil || got != want {
		t.Errorf("parseMachineTime = %+v, %v; want %+v", got, err, want)
	}
	if idle := got.idleSince(machineTime{Busy: 1100 * time.Millisecond, Idle: 6900 * time.Millisecond}); idle != 0.75 {
		t.Errorf("idleSince = %v, want the 1500 ms of 2000 that were idle", idle)
	}
}
