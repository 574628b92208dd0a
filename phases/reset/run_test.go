package reset

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// script is a System that writes down what it is told and fails where it should. It takes no file action while a
// supervisor, pod or runtime of its machine runs: that is what the order is for.
type script struct {
	fails   map[string]bool
	done    []string
	running map[Op]int
}

func newScript(plan []Action, fails ...string) *script {
	s := &script{fails: map[string]bool{}, running: map[Op]int{}}
	for _, f := range fails {
		s.fails[f] = true
	}
	for _, a := range plan {
		if a.stage != files && a.Op != EndLeftovers {
			s.running[a.Op]++
		}
	}
	return s
}

func (s *script) Do(_ context.Context, a Action) error {
	s.done = append(s.done, a.String())
	if s.fails[a.String()] {
		return errors.New("broken")
	}
	switch {
	case a.Op == EndLeftovers:
		delete(s.running, StopPod)
	case a.stage != files:
		s.running[a.Op]--
	default:
		for op, n := range s.running {
			if n > 0 {
				return errors.New("something still runs: " + (Action{Op: op}).String())
			}
		}
	}
	return nil
}

func runInited(t *testing.T, ctx context.Context, fails ...string) (done string, reported string, err error) {
	t.Helper()
	plan, err := Plan(inited())
	if err != nil {
		t.Fatal(err)
	}
	s := newScript(plan, fails...)
	var before []string
	err = Run(ctx, plan, s, func(p Progress) {
		if !p.Done {
			before = append(before, p.Action.String())
		}
	})
	return strings.Join(s.done, "\n") + "\n", strings.Join(before, "\n") + "\n", err
}

func TestRunDoesExactlyWhatThePlanPrints(t *testing.T) {
	done, reported, err := runInited(t, t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wholePlan, done); diff != "" {
		t.Errorf("done (-printed +done):\n%s", diff)
	}
	if diff := cmp.Diff(wholePlan, reported); diff != "" {
		t.Errorf("reported (-printed +reported):\n%s", diff)
	}
}

func TestRunStopsWhereGoingOnWouldHarm(t *testing.T) {
	for name, tc := range map[string]struct {
		fails []string
		last  string // action that was done last
		err   string // "" for success
	}{
		"a supervisor that stays would start the pods again": {
			fails: []string{"stop process slipway supervise (pid 101)"}, last: "stop process slipway supervise (pid 101)",
			err: "no file was removed, because not all that ran has ended: stop process slipway supervise (pid 101): broken",
		},
		"a pod that stays is ended with the left-overs": {
			fails: []string{"stop pod kube-system/etcd-node1"}, last: "remove directory /var/lib/slipway",
		},
		"containers that stay keep the files": {
			fails: []string{"stop pod kube-system/etcd-node1", "end shims and containers left of /run/slipway/containerd.sock"},
			last:  "end shims and containers left of /run/slipway/containerd.sock",
			err:   "no file was removed, because not all that ran has ended: end shims and containers left of /run/slipway/containerd.sock: broken",
		},
		"a file that stays keeps the ledger": {
			fails: []string{"remove file /etc/kubernetes/admin.conf"}, last: "remove /run/slipway and all that is in it",
			err: "some of it is left; the ledger stays, run reset again once the cause is gone: remove file /etc/kubernetes/admin.conf: broken",
		},
	} {
		t.Run(name, func(t *testing.T) {
			done, _, err := runInited(t, t.Context(), tc.fails...)
			if !strings.HasSuffix(done, "\n"+tc.last+"\n") && done != tc.last+"\n" {
				t.Errorf("did\n%swant %q as the last", done, tc.last)
			}
			if got := errorText(err); got != tc.err {
				t.Errorf("error\n%s\nwant\n%s", got, tc.err)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt signal"))
	done, _, err := runInited(t, ctx)
	if done != "\n" || errorText(err) != "interrupted before: stop process slipway supervise (pid 101): interrupt signal" {
		t.Errorf("did %q, error %v", done, err)
	}
}

func TestEveryActionPrintsItself(t *testing.T) {
	var lines []string
	for op := StopUnit; op <= Keep; op++ {
		line := Action{Op: op}.String()
		if strings.HasPrefix(line, "op ") || slices.Contains(lines, line) {
			t.Errorf("op %d prints %q", int(op), line)
		}
		lines = append(lines, line)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
