//go:build bench

package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The targets of the project.
const (
	initTarget     = 0.7 // of kubeadm's time, both with all phases
	readyTarget    = 1.3 // times the floor
	renderTarget   = 60  // ms
	residentTarget = 30  // MB
	idleTarget     = 0.5 // percent of a core
	binaryTarget   = 40  // MB
)

// report is everything that was measured.
type report struct {
	began   time.Time
	machine []string
	idle    []float64
	runs    int

	contenders          []contender
	outcomes            [][]outcome // by contender, then by round
	renders             rendered
	supervisor, kubelet watcher
	binary              int64
	timeline            []bar
}

// series collects one figure of every round.
func series(outcomes []outcome, figure func(outcome) time.Duration) []time.Duration {
	var out []time.Duration
	for _, o := range outcomes {
		out = append(out, figure(o))
	}
	return out
}

func whole(o outcome) time.Duration     { return o.Whole }
func ready(o outcome) time.Duration     { return o.Arrived.ready() }
func healthyAt(o outcome) time.Duration { return o.Arrived.all() }
func atWork(o outcome) time.Duration    { return o.Arrived.atWork() }

func (r report) String() string {
	sections := []string{
		strings.Join(r.machine, "\n") + "\n" + fmt.Sprintf("- %s, medians of %d alternating runs; before each run the machine was %.0f %% idle (median; at least %.0f %%)\n",
			r.began.UTC().Format("2006-01-02 15:04 MST"), r.runs, 100*median(r.idle), 100*slices.Min(r.idle)),
		"### Targets\n\n" + r.targets(),
		"### From the start of the command\n\n" + r.times(),
		"### The process that watches over the four pods\n\n" + r.watchers(),
		"### Where the time goes: slipway init, one run with --trace, same containerd\n\n" + timelineTable(r.timeline),
		"### Where the time goes: kubeadm init, its first line of each phase in the last run\n\n" + r.kubeadmPhases(),
	}
	return strings.Join(sections, "\n")
}

func (r report) targets() string {
	ours, theirs := median(series(r.outcomes[slipwayShared], whole)), median(series(r.outcomes[kubeadmDefault], whole))
	equal := median(series(r.outcomes[kubeadmECDSA], whole))
	up, floor := median(series(r.outcomes[slipwayShared], ready)), median(series(r.outcomes[floorAtOnce], ready))
	work, theirWork := median(series(r.outcomes[slipwayShared], atWork)), median(series(r.outcomes[kubeadmDefault], atWork))
	dry, kubeadmDry := median(r.renders.Slipway), median(r.renders.Kubeadm)
	ratio := func(a, b time.Duration) float64 { return float64(a) / float64(b) }
	return table([]string{"what", "slipway", "beside it", "figure", "target"}, [][]string{
		{"init, images in the store, of kubeadm's time", duration(ours), duration(theirs), fmt.Sprintf("%.2f", ratio(ours, theirs)), target(ratio(ours, theirs), initTarget, "%.2f")},
		{"the same, kubeadm with ECDSA keys", duration(ours), duration(equal), fmt.Sprintf("%.2f", ratio(ours, equal)), "–"},
		{"both controllers hold their leases, of kubeadm's time", duration(work), duration(theirWork), fmt.Sprintf("%.2f", ratio(work, theirWork)), "–"},
		{"/readyz ok, times the floor", duration(up), duration(floor), fmt.Sprintf("%.2f", ratio(up, floor)), target(ratio(up, floor), readyTarget, "%.1f")},
		{"init --dry-run", duration(dry), duration(kubeadmDry), duration(dry), target(dry.Seconds()*1000, renderTarget, "%.0f ms")},
		{"resident memory (VmRSS), four pods", megabytes(r.supervisor.Memory.Resident), megabytes(r.kubelet.Memory.Resident), megabytes(r.supervisor.Memory.Resident), target(float64(r.supervisor.Memory.Resident)/1e6, residentTarget, "%.0f MB")},
		{"idle CPU, of one core", percent(r.supervisor.CPU), percent(r.kubelet.CPU), percent(r.supervisor.CPU), target(100*r.supervisor.CPU, idleTarget, "%.1f %%")},
		{"program, stripped", megabytes(r.binary), "–", megabytes(r.binary), target(float64(r.binary)/1e6, binaryTarget, "%.0f MB")},
	})
}

func (r report) times() string {
	var rows [][]string
	for i, c := range r.contenders {
		row := []string{c.name}
		for _, figure := range []func(outcome) time.Duration{whole, ready, healthyAt, atWork} {
			values := series(r.outcomes[i], figure)
			if slices.Max(values) == 0 {
				row = append(row, "–", "–")
				continue
			}
			row = append(row, duration(median(values)), spread(values))
		}
		rows = append(rows, row)
	}
	return table([]string{"what", "whole command", "from to", "/readyz ok", "from to", "all four healthy", "from to", "controllers at work", "from to"}, rows)
}

func (r report) watchers() string {
	row := func(name string, w watcher) []string {
		return []string{name, megabytes(w.Memory.Resident), megabytes(w.Memory.Proportional), megabytes(w.Memory.Anonymous), megabytes(w.Memory.Peak), percent(w.CPU)}
	}
	return table([]string{"what", "VmRSS", "Pss", "RssAnon", "VmHWM", fmt.Sprintf("CPU over %v", idleTime)},
		[][]string{row("slipway supervise", r.supervisor), row("kubelet", r.kubelet)})
}

// phaseMark is how kubeadm begins the lines of a phase.
var phaseMark = regexp.MustCompile(`^\[([a-z-]+)\]`)

func (r report) kubeadmPhases() string {
	outcomes := r.outcomes[kubeadmDefault]
	last := outcomes[len(outcomes)-1]
	seen := map[string]bool{}
	var rows [][]string
	for _, l := range last.Printed {
		mark := phaseMark.FindStringSubmatch(l.Text)
		if mark == nil || seen[mark[1]] {
			continue
		}
		seen[mark[1]] = true
		rows = append(rows, []string{mark[1], duration(l.At)})
	}
	rows = append(rows, []string{"/readyz ok", duration(last.Arrived.ready())}, []string{"end of the command", duration(last.Whole)})
	return table([]string{"phase", "at"}, rows)
}

// bar is a part of slipway's timeline.
type bar struct {
	Row, Name       string
	Start, Duration time.Duration
}

// slipwayTimeline reads what --trace wrote, sorted by start.
func slipwayTimeline(path string) ([]bar, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the timeline: %w", err)
	}
	var file struct {
		Events []struct {
			Name string            `json:"name"`
			Type string            `json:"ph"`
			TS   int64             `json:"ts"`  // µs
			Dur  int64             `json:"dur"` // µs
			TID  int               `json:"tid"`
			Args map[string]string `json:"args"`
		} `json:"traceEvents"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("reading the timeline %q: %w", path, err)
	}
	rows := map[int]string{}
	var bars []bar
	for _, e := range file.Events {
		switch e.Type {
		case "M":
			rows[e.TID] = e.Args["name"]
		case "X":
			bars = append(bars, bar{rows[e.TID], e.Name, time.Duration(e.TS) * time.Microsecond, time.Duration(e.Dur) * time.Microsecond})
		}
	}
	slices.SortStableFunc(bars, func(a, b bar) int { return cmp.Compare(a.Start, b.Start) })
	return bars, nil
}

// timelineTable has one row per phase, sub-phases taken together, and one per step of a pod.
func timelineTable(bars []bar) string {
	var rows [][]string
	phase := map[string]int{} // row of a phase
	began := map[string]time.Duration{}
	for _, b := range bars {
		if b.Row != "phases" {
			rows = append(rows, []string{duration(b.Start), duration(b.Duration), b.Name})
			continue
		}
		name, _, _ := strings.Cut(b.Name, "/")
		if i, known := phase[name]; known {
			rows[i][1] = duration(b.Start + b.Duration - began[name])
			continue
		}
		phase[name], began[name] = len(rows), b.Start
		rows = append(rows, []string{duration(b.Start), duration(b.Duration), "phase " + name})
	}
	return table([]string{"from", "takes", "what"}, rows)
}

// commit names the checkout's commit, and whether there are changes since.
func commit(ctx context.Context, repository string) string {
	printed, _, err := command(ctx, nil, "git", "-C", repository, "describe", "--always", "--dirty=, with changes")
	if err != nil || len(printed) != 1 {
		return "unknown"
	}
	return printed[0].Text
}

// machine tells what the figures depend on.
func (b *bench) machine(ctx context.Context) []string {
	return append(hardware(),
		fmt.Sprintf("- slipway at commit %s; containerd %s, Kubernetes %s", commit(ctx, b.repository), b.engine.version, b.kubernetes),
		fmt.Sprintf("- command: go test -tags bench -count=1 -timeout 60m -v ./cmd/internal/bench/ -runs %d", b.runs),
		"- kubeadm and slipway with all their phases; the images of the add-ons are stand-ins, since neither command runs them",
	)
}

// hardware names the machine and its kernel.
func hardware() []string {
	var uname unix.Utsname
	unix.Uname(&uname) //nolint:errcheck // only fails for a bad pointer
	return []string{
		fmt.Sprintf("- CPU: %s, %d cores; memory: %s", field("/proc/cpuinfo", "model name"), runtime.NumCPU(), field("/proc/meminfo", "MemTotal")),
		fmt.Sprintf("- %s, Linux %s", strings.Trim(field("/etc/os-release", "PRETTY_NAME"), `"`), unix.ByteSliceToString(uname.Release[:])),
	}
}

// field returns the value of the first line KEY:VALUE or KEY=VALUE of a file.
func field(path, key string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	for l := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(l, key); found {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
		}
	}
	return "unknown"
}
