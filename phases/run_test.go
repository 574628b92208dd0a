package phases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// trace runs the phases in a bubble whose clock moves only when all wait, and returns the events as text.
func trace(t *testing.T, ctx context.Context, list ...Phase) (string, error) {
	t.Helper()
	plan, err := Workflow{Phases: list}.Plan(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	var out strings.Builder
	start := time.Now()
	env := &Env{Files: files, Now: time.Now, Report: func(e Event) {
		fmt.Fprintf(&out, "%v %s %s", e.Time.Sub(start), e.Phase, e.Kind)
		switch e.Kind {
		case Note:
			fmt.Fprintf(&out, " %s", e.Text)
		case Changed:
			fmt.Fprintf(&out, " %s", e.Change)
		case PhaseDone, PhaseFailed, Joined:
			fmt.Fprintf(&out, " after %v", e.Elapsed)
		}
		if e.Err != nil {
			fmt.Fprintf(&out, ": %v", e.Err)
		}
		out.WriteString("\n")
	}}
	err = plan.Run(ctx, env, files.Preview)
	return out.String(), err
}

// takes returns a step that reports, takes d, and ends with err.
func takes(d time.Duration, err error) func(context.Context, *Env) error {
	return func(ctx context.Context, env *Env) error {
		env.Report(Event{Kind: Note, Text: "working"})
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func writes(path string) func(context.Context, *Env) error {
	return func(_ context.Context, env *Env) error {
		return env.Files.Put(artifact.File{Path: path, Data: []byte("x"), Mode: 0o600})
	}
}

func TestRun(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name   string
		phases []Phase
		want   string
		err    string
	}{{
		name:   "reports what each phase changes",
		phases: []Phase{{Name: "a", Phases: []Phase{{Name: "b", Run: writes("/x/b")}, {Name: "c", Run: writes("/x/c")}}}},
		want: `0s a/b phase-started
0s a/b changed create directory /x (mode 0755)
0s a/b changed create /x/b (mode 0600)
0s a/b phase-done after 0s
0s a/c phase-started
0s a/c changed create /x/c (mode 0600)
0s a/c phase-done after 0s
`,
	}, {
		name:   "ends at the first error",
		phases: []Phase{{Name: "a", Phases: []Phase{{Name: "b", Run: takes(time.Second, broken)}}}, {Name: "c", Run: writes("/c")}},
		want: `0s a/b phase-started
0s a/b note working
1s a/b phase-failed after 1s: phase a/b: broken
`,
		err: "phase a/b: broken",
	}, {
		name: "overlaps early parts, and shows them at their turn",
		phases: []Phase{
			{Name: "a", Run: takes(time.Second, nil)},
			{Name: "b", Run: takes(time.Second, nil)},
			{Name: "c", Begin: takes(4*time.Second, nil), BeginAfter: []string{"a"}, Run: takes(time.Second, nil)},
			{Name: "d", Begin: takes(2*time.Second, nil)}, // no Run: all of it may be early
		},
		want: `0s a phase-started
0s a note working
1s a phase-done after 1s
1s b phase-started
1s b note working
2s b phase-done after 1s
2s c phase-started
1s c begun
1s c note working
5s c joined after 4s
5s c note working
6s c phase-done after 4s
6s d phase-started
0s d begun
0s d note working
2s d joined after 2s
6s d phase-done after 0s
`,
	}, {
		name: "lets an early error wait for its turn",
		phases: []Phase{
			{Name: "a", Run: takes(2*time.Second, nil)},
			{Name: "b", Begin: takes(time.Second, broken), Run: takes(time.Second, nil)},
		},
		want: `0s a phase-started
0s a note working
2s a phase-done after 2s
2s b phase-started
0s b begun
0s b note working
1s b joined after 1s: broken
2s b phase-failed after 0s: phase b: broken
`,
		err: "phase b: broken",
	}, {
		name: "ends early parts that are not needed any more",
		phases: []Phase{
			{Name: "a", Run: takes(2*time.Second, broken)},
			{Name: "b", Begin: takes(time.Hour, nil)},
		},
		want: `0s a phase-started
0s a note working
2s a phase-failed after 2s: phase a: broken
`,
		err: "phase a: broken",
	}, {
		name: "tells both errors when an early part failed too",
		phases: []Phase{
			{Name: "a", Run: takes(2*time.Second, broken)},
			{Name: "b", Begin: takes(time.Second, errors.New("no containerd"))},
		},
		want: `0s a phase-started
0s a note working
2s a phase-failed after 2s: phase a: broken
`,
		err: "phase a: broken\nphase b: no containerd",
	}, {
		name:   "refuses files from early parts",
		phases: []Phase{{Name: "a", Begin: writes("/a")}},
		want: `0s a phase-started
0s a begun
0s a joined after 0s: writing "/a": an early part of a phase writes no files
0s a phase-failed after 0s: phase a: writing "/a": an early part of a phase writes no files
`,
		err: `phase a: writing "/a": an early part of a phase writes no files`,
	}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got, err := trace(t, t.Context(), tc.phases...)
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				if (err == nil && tc.err != "") || (err != nil && err.Error() != tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
			})
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("interrupted"))
		defer cancel()
		_, err := trace(t, ctx, Phase{Name: "a", Run: takes(time.Hour, nil)}, Phase{Name: "b", Begin: takes(time.Hour, nil)})
		if err == nil || err.Error() != "phase a: context deadline exceeded" {
			t.Errorf("inside a phase: %v", err)
		}
		_, err = trace(t, ctx, Phase{Name: "a", Run: takes(0, nil)})
		if err == nil || err.Error() != "before phase a: interrupted" {
			t.Errorf("between phases: %v", err)
		}
	})
}

// A phase that failed half-way must not leave its half on disk.
func TestRunDoesNotFlushAFailedPhase(t *testing.T) {
	files := artifact.NewOverlay(artifact.Disk{Root: t.TempDir()})
	flushed := 0
	plan, err := Workflow{Phases: []Phase{{Name: "a", Run: func(ctx context.Context, env *Env) error {
		return errors.Join(writes("/a")(ctx, env), errors.New("broken"))
	}}}}.Plan(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = plan.Run(t.Context(), &Env{Files: files}, func(context.Context) ([]artifact.Change, error) { flushed++; return nil, nil })
	if err == nil || flushed != 0 {
		t.Errorf("error %v, flushed %d times, want an error and no flush", err, flushed)
	}
}
