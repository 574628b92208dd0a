package bench

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tracedCall is one call to the runtime, or one that the watcher was told of by it.
type tracedCall struct {
	Method      string // without the service
	Start, Took time.Duration
	Failed      bool
}

// podTrace is what happened between a cause and its effect.
type podTrace struct {
	what  string
	calls []tracedCall
	took  time.Duration // until the effect, as the event says
}

// traceTable lists the calls that began before the effect, and for how long none was under way before each: in that
// time the watcher, or its wait for a hint, is what costs. The same call again and again is one row, with its count, and
// so are lists of containers and sandboxes.
func traceTable(t podTrace) string {
	var rows [][]string
	var first, end, waited time.Duration // of the row in the making
	var name string
	count := 0
	flush := func() {
		if count > 1 {
			name = fmt.Sprintf("%s, %d times", name, count)
		}
		if count > 0 {
			rows = append(rows, []string{milliseconds(first), milliseconds(waited), milliseconds(end - first), name})
		}
	}
	busy := time.Duration(0) // until when a call was under way
	for _, c := range t.before() {
		label := c.Method
		if strings.HasPrefix(label, "List") { // a look at the runtime is two lists
			label = "List…"
		}
		if c.Failed {
			label += " (failed)"
		}
		wait := max(0, c.Start-busy)
		busy = max(busy, c.Start+c.Took)
		if count > 0 && label == name {
			count, end = count+1, max(end, c.Start+c.Took)
			continue
		}
		flush()
		first, end, waited, name, count = c.Start, c.Start+c.Took, wait, label, 1
	}
	flush()
	rows = append(rows, []string{milliseconds(t.took), milliseconds(max(0, t.took-busy)), "", t.what})
	return table([]string{"at, ms", "after, ms", "takes, ms", "call"}, rows)
}

// before are the calls that began before the effect, in their order.
func (t podTrace) before() []tracedCall {
	calls := slices.SortedStableFunc(slices.Values(t.calls), func(a, b tracedCall) int { return cmp.Compare(a.Start, b.Start) })
	return slices.DeleteFunc(calls, func(c tracedCall) bool { return c.Start > t.took })
}

// callSums adds the calls up by method, the costliest first.
func callSums(t podTrace) string {
	sums := map[string][]time.Duration{}
	for _, c := range t.before() {
		sums[c.Method] = append(sums[c.Method], c.Took)
	}
	total := func(method string) (sum time.Duration) {
		for _, d := range sums[method] {
			sum += d
		}
		return sum
	}
	var methods []string
	for m := range sums {
		methods = append(methods, m)
	}
	slices.SortFunc(methods, func(a, b string) int {
		return cmp.Or(cmp.Compare(total(b), total(a)), strings.Compare(a, b))
	})
	var rows [][]string
	for _, m := range methods {
		rows = append(rows, []string{m, fmt.Sprint(len(sums[m])), duration(total(m)), milliseconds(median(sums[m])), milliseconds(slices.Max(sums[m]))})
	}
	return table([]string{"call", "how often", "together", "median, ms", "slowest, ms"}, rows)
}

// callCostTable compares what the calls take that nobody can do without, each by its median, and what is left: all of the
// others, and the time in which no call was under way.
func callCostTable(found map[watcherKind][]podTrace) string {
	kinds := []watcherKind{barePods, samePods, slipwayPods}
	head := []string{"one pod added, median"}
	for _, k := range kinds {
		head = append(head, fmt.Sprintf("%s (%d)", k, len(found[k])))
	}
	of := func(what string, each func(podTrace) time.Duration) []string {
		row := []string{what}
		for _, k := range kinds {
			var values []time.Duration
			for _, t := range found[k] {
				values = append(values, each(t))
			}
			cell := "–"
			if len(values) > 0 {
				cell = milliseconds(median(values)) + " ms"
			}
			row = append(row, cell)
		}
		return row
	}
	rows := [][]string{of("before RunPodSandbox", func(t podTrace) time.Duration { return t.call("RunPodSandbox").Start })}
	for i, method := range []string{"RunPodSandbox", "CreateContainer", "StartContainer"} {
		rows = append(rows, of(method, func(t podTrace) time.Duration {
			c := t.call(method)
			return min(c.Took, t.took-c.Start) // the container runs before StartContainer returns
		}))
		if next := []string{"CreateContainer", "StartContainer", ""}[i]; next != "" {
			rows = append(rows, of("between them", func(t podTrace) time.Duration {
				c := t.call(method)
				return t.call(next).Start - c.Start - c.Took
			}))
		}
	}
	return table(head, append(rows, of("together", func(t podTrace) time.Duration { return t.took })))
}

// call is the first call of a method.
func (t podTrace) call(method string) tracedCall {
	for _, c := range t.before() {
		if c.Method == method {
			return c
		}
	}
	return tracedCall{}
}
