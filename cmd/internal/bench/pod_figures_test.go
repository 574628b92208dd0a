package bench

import (
	"strings"
	"testing"
	"time"
)

// times gives slipway, the kubelet and bare CRI one value each, in milliseconds.
func times(figure podFigure, slipway, kubelet, bare int) podTimes {
	p := podTimes{}
	for w, ms := range map[watcherKind]int{slipwayPods: slipway, kubeletPods: kubelet, barePods: bare} {
		p.add(figure, w, time.Duration(ms)*time.Millisecond)
	}
	return p
}

func TestPodTargets(t *testing.T) {
	goal := func(f podFigure) func(podTimes) (string, bool) {
		for _, r := range podRows() {
			if r.figure == f {
				return r.goal
			}
		}
		t.Fatalf("no row of figure %d", f)
		return nil
	}
	killed := times(podKilled, 75, 500, 60)
	killed.add(podRestart, barePods, 50*time.Millisecond)
	outlier := times(podEnded, 40, 40, 60)
	for range 9 {
		outlier.add(podEnded, slipwayPods, 30*time.Millisecond)
	}
	outlier.add(podEnded, slipwayPods, 201*time.Millisecond)
	for _, c := range []struct {
		name   string
		figure podFigure
		times  podTimes
		met    bool
		text   string
	}{
		{"at the limit", podAdded, times(podAdded, 115, 130, 100), true, "1.15 × bare, ≤ 1.15: met"},
		{"above it", podAdded, times(podAdded, 116, 130, 100), false, "1.16 × bare, ≤ 1.15: missed"},
		{"a restart is held against create and start alone", podKilled, killed, true, "1.50 × bare, ≤ 1.50: met"},
		{"as fast as the kubelet", podEnded, times(podEnded, 40, 40, 60), true, "1.00 × kubelet"},
		{"slower than the kubelet", podEnded, times(podEnded, 41, 40, 60), false, "missed"},
		{"one outlier among fast ones", podEnded, outlier, false, "missed"},
		{"adopted in time", fiftyAdopted, times(fiftyAdopted, 300, 1000, 1), true, "slowest ≤ 300 ms: met"},
		{"adopted late", fiftyAdopted, times(fiftyAdopted, 301, 1000, 1), false, "missed"},
		{"never measured", fiftyAdded, podTimes{}, false, "not measured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, met := goal(c.figure)(c.times)
			if met != c.met || !strings.Contains(text, c.text) {
				t.Errorf("got %q, met %v; want %q, met %v", text, met, c.text, c.met)
			}
		})
	}
}

func TestPodTableHasMediansAndSlowest(t *testing.T) {
	p := times(podAdded, 100, 200, 90)
	p.add(podAdded, slipwayPods, 110*time.Millisecond)
	p.add(podAdded, slipwayPods, 300*time.Millisecond)
	p.add(podAdded, samePods, 100*time.Millisecond)
	for line := range strings.Lines(podTable(p)) {
		if strings.Contains(line, "file added") {
			if got := strings.Join(strings.Fields(line), " "); got != "| file added → running | 200 ms | 200 ms | 90 ms | 90 ms | 100 ms | 100 ms | 110 ms | 300 ms | 1.22 × bare, ≤ 1.15: missed; 1.10 × the same requests |" {
				t.Errorf("got %s", got)
			}
			return
		}
	}
	t.Error("no row")
}

func TestPodIdleTableComparesWithTheKubelet(t *testing.T) {
	kubelet := podIdle{watcher: watcher{CPU: 0.08, Memory: memory{Resident: 110e6}}, Containerd: 0.1}
	slipway := podIdle{watcher: watcher{CPU: 0.02, Memory: memory{Resident: 61e6}}}
	got := podIdleTable(slipway, kubelet)
	for _, want := range []string{"0.25 × kubelet, ≤ 0.25: met", "≤ 60 MB: missed", "10.00 %"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestTraceShowsWhereNoCallWasUnderWay(t *testing.T) {
	ms := func(n float64) time.Duration { return time.Duration(n * float64(time.Millisecond)) }
	trace := podTrace{what: "it runs", took: ms(100), calls: []tracedCall{
		{"StartContainer", ms(50), ms(60), false},
		{"ListContainers", ms(10), ms(2), false},
		{"ListPodSandbox", ms(15), ms(1), false},
		{"RunPodSandbox", ms(20), ms(25), true},
		{"RemoveContainer", ms(120), ms(5), false}, // after the effect
	}}
	want := `| at, ms | after, ms | takes, ms | call                   |
| ------ | --------- | --------- | ---------------------- |
| 10.0   | 10.0      | 6.0       | List…, 2 times         |
| 20.0   | 4.0       | 25.0      | RunPodSandbox (failed) |
| 50.0   | 5.0       | 60.0      | StartContainer         |
| 100.0  | 0.0       |           | it runs                |
`
	if got := traceTable(trace); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	sums := callSums(trace)
	if strings.Index(sums, "StartContainer") > strings.Index(sums, "ListContainers") || strings.Contains(sums, "RemoveContainer") {
		t.Errorf("the costliest call is not first, or one after the effect is counted:\n%s", sums)
	}
}

func TestWatchersHaveNames(t *testing.T) {
	for w, want := range map[watcherKind]string{slipwayPods: "slipway", kubeletPods: "kubelet", barePods: "bare CRI", samePods: "bare CRI, the same requests"} {
		if w.String() != want {
			t.Errorf("%d is %q, want %q", w, w, want)
		}
	}
}
