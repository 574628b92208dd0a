package lifecycle

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/trace; only commit what you can explain")

// TestTraces replays the files of testdata/trace. A file is a list of blocks: comments, commands, "----", and what
// Decide said about them. After every command the model acts until nothing is left to do; "one" does a single round.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("../../testdata/trace/*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m := newModel()
			got := replay(t, m, string(want))
			checkSuccessors(t, m.states)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got), go test -update to rewrite:\n%s", file, diff)
			}
		})
	}
}

func replay(t *testing.T, m *model, text string) string {
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		fmt.Fprintf(&out, "%s\n", input)
		if !strings.Contains(block, "\n----") {
			out.WriteString("\n")
			continue
		}
		out.WriteString("----\n")
		m.print = func(format string, args ...any) { fmt.Fprintf(&out, format, args...) }
		for _, line := range strings.Split(input, "\n") {
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if err := m.command(line); err != nil {
				t.Errorf("%s: %v", line, err)
				fmt.Fprintf(&out, "ERROR %v\n", err)
			}
		}
		out.WriteString("\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}

// command performs one line of a trace and what follows from it. Several joined by ";" happen before the next look.
func (m *model) command(line string) error {
	if d, ok := strings.CutPrefix(line, "tick "); ok {
		pause, err := time.ParseDuration(d)
		if err != nil {
			return err
		}
		return m.tick(pause)
	}
	steps := strings.Split(line, ";")
	one := strings.TrimSpace(steps[len(steps)-1]) == "one"
	if one {
		steps = steps[:len(steps)-1]
	}
	for _, s := range steps {
		if err := m.do(strings.TrimSpace(s)); err != nil {
			return err
		}
	}
	if one {
		_, _, err := m.step()
		return err
	}
	switch word, _, _ := strings.Cut(steps[0], " "); word {
	case "probes", "cap", "stubborn", "registry", "break", "mend", "hold", "hooks", "code": // settings: nobody looks
		if len(steps) == 1 {
			return nil
		}
	}
	_, err := m.settle()
	return err
}

// unborn stands between the lives of a supervisor in a list of states.
const unborn State = -1

// successors is what the comments at the states say.
var successors = map[State][]State{
	Absent:      {Held, Pulling, Starting, Running, BackOff, Completed, Terminating},
	Held:        {Pulling, Starting, Completed, Terminating, Absent},
	Pulling:     {Starting, BackOff, Running, Completed, Held, Terminating},
	Starting:    {Pulling, Running, BackOff, Completed, Held, Terminating},
	Running:     {BackOff, Pulling, Starting, Completed, Terminating},
	BackOff:     {Pulling, Starting, Running, Completed, Held, Terminating},
	Completed:   {Starting, Pulling, BackOff, Held, Terminating},
	Terminating: {Absent, Held, Pulling, Starting, Running, BackOff, Completed},
}

func checkSuccessors(t *testing.T, states []State) {
	t.Helper()
	last := Absent
	for i, s := range states {
		if s != last && s != unborn && !contains(successors[last], s) {
			t.Errorf("round %d: %s → %s is not among the successors", i, last, s)
		}
		if last = s; s == unborn {
			last = Absent
		}
	}
}

func contains(states []State, s State) bool {
	for _, o := range states {
		if o == s {
			return true
		}
	}
	return false
}
