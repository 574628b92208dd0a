package bench

import (
	"fmt"
	"slices"
	"time"
)

// watcherKind is who runs the pods.
type watcherKind int

const (
	slipwayPods watcherKind = iota
	kubeletPods
	barePods // the CRI calls alone, from a loop that decides nothing
	samePods // the same, asking for what slipway asks for
)

func (w watcherKind) String() string {
	return [...]string{"slipway", "kubelet", "bare CRI", "bare CRI, the same requests"}[w]
}

// podFigure is one of the things that are measured of pods.
type podFigure int

const (
	podAdded     podFigure = iota // manifest in place, until its container runs
	podKilled                     // SIGKILL to the main process, until the next attempt runs
	podRestart                    // bare only: CreateContainer and StartContainer, without waiting for the exit
	podChanged                    // changed manifest in place, until the new container runs
	podEnded                      // manifest removed, until the container's process has ended
	podGone                       // manifest removed, until neither container nor sandbox is left
	fiftyAdded                    // 50 manifests in place, until the last container runs
	fiftyAdopted                  // exec of the watcher, until it shows the 50 as running
	podFigures                    // how many there are
)

// podTimes are the measured durations, in no order.
type podTimes map[podFigure]map[watcherKind][]time.Duration

func (p podTimes) add(f podFigure, w watcherKind, d time.Duration) {
	if p[f] == nil {
		p[f] = map[watcherKind][]time.Duration{}
	}
	p[f][w] = append(p[f][w], d)
}

// podRow is a row of the table: slipway's figure beside the others'.
type podRow struct {
	figure podFigure
	what   string
	goal   func(podTimes) (text string, met bool)
}

// The targets of the project for pods.
const (
	addedTarget   = 1.15 // times bare CRI
	killedTarget  = 1.5  // times CreateContainer and StartContainer alone
	changedTarget = 1.3  // times bare CRI
	fiftyTarget   = 1.1  // times bare CRI
	goneLimit     = 200 * time.Millisecond
	adoptLimit    = 300 * time.Millisecond

	podCPUTarget      = 0.25 // of the kubelet's
	podResidentTarget = 60   // MB
)

// podRows are the rows of the table, in the order of the issue.
func podRows() []podRow {
	return []podRow{
		{podAdded, "file added → running", timesBare(podAdded, podAdded, addedTarget)},
		{podKilled, "killed → running again", timesBare(podKilled, podRestart, killedTarget)},
		{podRestart, "(of these, create and start alone)", nil},
		{podChanged, "changed → new running", timesBare(podChanged, podChanged, changedTarget)},
		{podEnded, "removed → container ended", endedGoal},
		{podGone, "removed → nothing left, sandbox included", nil},
		{fiftyAdded, "50 pods at once → all running", timesBare(fiftyAdded, fiftyAdded, fiftyTarget)},
		{fiftyAdopted, "50 running pods adopted after a restart", adoptedGoal},
	}
}

// timesBare compares slipway's median with a factor times the median of a figure of bare CRI.
func timesBare(figure, beside podFigure, factor float64) func(podTimes) (string, bool) {
	return func(p podTimes) (string, bool) {
		ours, bare := p[figure][slipwayPods], p[beside][barePods]
		if len(ours) == 0 || len(bare) == 0 {
			return "not measured", false
		}
		ratio := float64(median(ours)) / float64(median(bare))
		text := fmt.Sprintf("%.2f × bare, %s", ratio, target(ratio, factor, "%.2f"))
		if same := p[beside][samePods]; len(same) > 0 {
			text += fmt.Sprintf("; %.2f × the same requests", float64(median(ours))/float64(median(same)))
		}
		return text, ratio <= factor
	}
}

// endedGoal is no slower than the kubelet, by the medians, and no outlier.
func endedGoal(p podTimes) (string, bool) {
	ours, theirs := p[podEnded][slipwayPods], p[podEnded][kubeletPods]
	if len(ours) == 0 || len(theirs) == 0 {
		return "not measured", false
	}
	ratio := float64(median(ours)) / float64(median(theirs))
	met := ratio <= 1 && slices.Max(ours) <= goneLimit
	verdict := "met"
	if !met {
		verdict = "missed"
	}
	return fmt.Sprintf("%.2f × kubelet, ≤ 1 and all ≤ %s: %s", ratio, duration(goneLimit), verdict), met
}

func adoptedGoal(p podTimes) (string, bool) {
	ours := p[fiftyAdopted][slipwayPods]
	if len(ours) == 0 {
		return "not measured", false
	}
	slowest := slices.Max(ours)
	return "slowest " + target(float64(slowest.Milliseconds()), float64(adoptLimit.Milliseconds()), "%.0f ms"), slowest <= adoptLimit
}

// podTable is the table of times: medians and the slowest of each.
func podTable(p podTimes) string {
	cell := func(values []time.Duration) []string {
		if len(values) == 0 {
			return []string{"–", "–"}
		}
		return []string{duration(median(values)), duration(slices.Max(values))}
	}
	var rows [][]string
	for _, r := range podRows() {
		row := []string{r.what}
		for _, w := range []watcherKind{kubeletPods, barePods, samePods, slipwayPods} {
			row = append(row, cell(p[r.figure][w])...)
		}
		goal := "–"
		if r.goal != nil {
			goal, _ = r.goal(p)
		}
		rows = append(rows, append(row, goal))
	}
	return table([]string{"what", "kubelet", "slowest", "bare CRI", "slowest", "the same requests", "slowest", "slipway", "slowest", "target"}, rows)
}

// podIdle is what watching over 200 pods costs in which nothing happens.
type podIdle struct {
	watcher
	Containerd float64 // CPU of containerd meanwhile, of one core
}

func podIdleTable(slipway, kubelet podIdle) string {
	row := func(what string, i podIdle) []string {
		return []string{what, percent(i.CPU), percent(i.Containerd), megabytes(i.Memory.Resident), megabytes(i.Memory.Proportional), megabytes(i.Memory.Anonymous), megabytes(i.Memory.Peak)}
	}
	share := slipway.CPU / kubelet.CPU
	goals := []string{"target", fmt.Sprintf("%.2f × kubelet, %s", share, target(share, podCPUTarget, "%.2f")), "–",
		target(float64(slipway.Memory.Resident)/1e6, podResidentTarget, "%.0f MB"), "–", "–", "–"}
	return table([]string{"200 pods", "CPU of a core", "containerd's meanwhile", "VmRSS", "Pss", "RssAnon", "VmHWM"},
		[][]string{row("kubelet", kubelet), row("slipway supervise", slipway), goals})
}
