package lastgood

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

func TestDeadline(t *testing.T) {
	startup := func(delay, period, failures int32) corev1.Container {
		return corev1.Container{StartupProbe: &corev1.Probe{InitialDelaySeconds: delay, PeriodSeconds: period, FailureThreshold: failures}}
	}
	const most = 1<<31 - 1
	for name, tc := range map[string]struct {
		annotation  string
		init, mains []corev1.Container
		want        time.Duration
	}{
		"no probes":                    {mains: []corev1.Container{{}}, want: 2 * time.Minute},
		"kubeadm's API server":         {mains: []corev1.Container{startup(10, 10, 24)}, want: 5*time.Minute + 10*time.Second},
		"a probe of the API's default": {mains: []corev1.Container{startup(0, 0, 0)}, want: 2 * time.Minute}, // 30 s and a minute
		"just above the least":         {mains: []corev1.Container{startup(0, 1, 61)}, want: 2*time.Minute + time.Second},
		"the longest of several":       {mains: []corev1.Container{startup(0, 10, 20), startup(0, 10, 30), startup(0, 10, 10)}, want: 6 * time.Minute},
		"a sidecar's":                  {init: []corev1.Container{startup(0, 10, 30)}, mains: []corev1.Container{{}}, want: 6 * time.Minute},
		"years":                        {mains: []corev1.Container{startup(most, most, most)}, want: 24*time.Hour + time.Minute},
		"an annotation":                {annotation: "90s", mains: []corev1.Container{startup(10, 10, 24)}, want: 90 * time.Second},
		"an annotation that is none":   {annotation: "soon", mains: []corev1.Container{startup(10, 10, 24)}, want: 5*time.Minute + 10*time.Second},
		"a negative annotation":        {annotation: "-1s", mains: []corev1.Container{{}}, want: 2 * time.Minute},
		"a zero annotation":            {annotation: "0s", mains: []corev1.Container{{}}, want: 2 * time.Minute},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{AnnotationReadyWithin: tc.annotation}},
			Spec: corev1.PodSpec{InitContainers: tc.init, Containers: tc.mains}}
		if got := Deadline(pod); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestReasonsAreOneBoundedLine(t *testing.T) {
	long := strings.Repeat("two\nlines ", 1000)
	m := newModel()
	for _, line := range []string{"want A within=10s", "fail main x"} {
		if err := m.do(line); err != nil {
			t.Fatal(err)
		}
		m.judge()
	}
	m.in.Failure.Text = long
	m.now = m.now.Add(10 * time.Second)
	v, _ := Judge(m.now, m.in, m.trial)
	if v.Outcome != GivenUp || strings.Contains(v.Reason, "\n") || len(v.Reason) > 2*maxReason || !strings.HasSuffix(v.Reason, "…") {
		t.Errorf("%d bytes: %q", len(v.Reason), v.Reason)
	}
}

// deed is a random thing that may happen to a pod.
func deed(r *rand.Rand) string {
	names := []string{"main", "second", "setup", "proxy"}
	name := names[r.IntN(len(names))]
	deeds := []string{
		"tick 1s", "tick 5s", "tick 15s", "took 40s", "run " + name + " s", "run " + name + " t", "exit " + name + " 0", "exit " + name + " 1",
		"ready " + name, "unready " + name + " no", "liveness " + name + " no", "hook " + name + " failed", "hook " + name + " running", "restart " + name,
		"hold etcd", "hold", "state Starting", "state Running", "state BackOff", "state Completed", "state Terminating", "state Pulling",
		"sandbox s A", "sandbox t A", "image main:1 present", "image main:1 no such host", "image setup:1 disk quota exceeded",
		"fail " + name + " no such device", "fail - no space left on device", "ok", "gone " + name, "watched f1", "watched f2",
	}
	return deeds[r.IntN(len(deeds))]
}

// TestWhateverHappens does 50,000 random things to 500 pods.
func TestWhateverHappens(t *testing.T) {
	options := []string{"init", "sidecar", "second=Always", "pull=Never", "policy=OnFailure", "policy=Never", "within=30s", "own=Never"}
	outcomes := map[Outcome]int{}
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		m, line := newModel(), "want A"
		for _, o := range options {
			if r.IntN(3) == 0 {
				line += " " + o
			}
		}
		history := []string{line}
		if err := m.do(line); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			line := deed(r)
			history = append(history, line)
			if err := m.do(line); err != nil {
				t.Fatal(err)
			}
			before := m.trial
			kept := before
			kept.exits, kept.pulls = maps.Clone(before.exits), maps.Clone(before.pulls)
			v, next := Judge(m.now, m.in, before)
			if !reflect.DeepEqual(kept, before) {
				t.Fatalf("the trial that was passed in has changed, from %+v to %+v\n%s", kept, before, strings.Join(history, "\n"))
			}
			if wrong := inconsistent(m, before, v, next); wrong != "" {
				t.Fatalf("%s: %+v after\n%s", wrong, v, strings.Join(history, "\n"))
			}
			m.trial = next
		}
		outcomes[m.trial.Outcome]++
	}
	if len(outcomes) != 3 || slices.Contains([]int{outcomes[Undecided], outcomes[GoodVersion], outcomes[GivenUp]}, 0) {
		t.Errorf("the random pods came to too few outcomes: %v", outcomes)
	}
}

// inconsistent says what must never be.
func inconsistent(m *model, before Trial, v Verdict, next Trial) string {
	held := m.in.Seen.Held != "" || m.in.State == lifecycle.Terminating || m.in.State == lifecycle.Held
	switch {
	case v.Outcome != next.Outcome:
		return "the verdict is not the trial's"
	case v.Fresh != (before.Outcome != v.Outcome):
		return "news is not new"
	case before.Outcome == GoodVersion && v.Outcome != GoodVersion:
		return "a good version was judged again"
	case before.Outcome == GivenUp && v.Outcome == Undecided:
		return "a verdict was forgotten"
	case v.Fresh && v.Outcome == GivenUp && held:
		return "given up while it was held back"
	case (v.Outcome == GivenUp) != (v.Reason != ""):
		return "a verdict without a reason, or a reason without a verdict"
	case v.Outcome == GivenUp && v.Reason != before.Reason && before.Outcome == GivenUp:
		return "the reason has changed"
	case !v.Wake.IsZero() && (v.Wake.Before(m.now) || v.Wake.Sub(m.now) > maxStep):
		return "it wants to be called in the past, or too late"
	case v.Outcome == Undecided && !held && v.Wake.IsZero() && !full(m):
		return "its time runs and nobody will look"
	case v.Outcome == Undecided && v.Left <= 0 && v.Wake.IsZero():
		return "undecided without time left"
	}
	return ""
}

func full(m *model) bool {
	text := ""
	if m.in.Failure != nil {
		text = m.in.Failure.Text
	}
	for _, im := range m.in.Seen.Images {
		text += im.Err
	}
	return strings.Contains(text, "space left") || strings.Contains(text, "quota")
}

// TestClockJumps lets the same happen to two pods, one of them on a host whose clock is set to and fro.
func TestClockJumps(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		steady, jumpy := newModel(), newModel()
		history := []string{"want A within=10m"}
		do := func(m *model, line string) {
			if err := m.do(line); err != nil {
				t.Fatal(err)
			}
		}
		do(steady, history[0])
		do(jumpy, history[0])
		jumps := 0
		for range 60 {
			line := deed(r)
			history = append(history, line)
			do(steady, line)
			do(jumpy, line)
			if r.IntN(4) == 0 {
				jumps++
				jumpy.now = jumpy.now.Add([]time.Duration{365 * 24 * time.Hour, -365 * 24 * time.Hour}[r.IntN(2)])
			}
			steady.judge()
			jumpy.judge()
		}
		// A jump may cost, or give, the time between two looks: at most 40 s of an action and 15 s.
		if off := (steady.trial.waited - jumpy.trial.waited).Abs(); steady.trial.Outcome == jumpy.trial.Outcome && off > time.Duration(jumps)*55*time.Second {
			t.Errorf("%d jumps are off by %s\n%s", jumps, off, strings.Join(history, "\n"))
		}
		for name, e := range steady.trial.exits {
			if steady.trial.Outcome == Undecided && jumpy.trial.Outcome == Undecided && e.count != jumpy.trial.exits[name].count {
				t.Errorf("the clock has changed the exits of %s", name)
			}
		}
	}
}

func TestOutcomesAreNamedByTheirTrial(t *testing.T) {
	if v, trial := Judge(time.Time{}, Input{}, Passed("x")); v != (Verdict{}) || fmt.Sprint(trial) != fmt.Sprint(Trial{}) {
		t.Errorf("a pod that is not wanted: %+v, %+v", v, trial)
	}
	m := newModel()
	if err := m.do("want A"); err != nil {
		t.Fatal(err)
	}
	if v, _ := Judge(m.now, m.in, Passed("A/A")); v.Outcome != GoodVersion || v.Fresh {
		t.Errorf("a version that is known to be good: %+v", v)
	}
	if v, _ := Judge(m.now, m.in, Passed("B/B")); v.Outcome != Undecided {
		t.Errorf("another version than the known one: %+v", v)
	}
}
