package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func etcd() *corev1.Container {
	return &corev1.Container{Name: "etcd", Env: []corev1.EnvVar{{Name: "WHO", Value: "me"}}, Ports: []corev1.ContainerPort{{Name: "client", ContainerPort: 2379}}}
}

func execHook(cmd ...string) *corev1.LifecycleHandler {
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: cmd}}
}

func TestExecRunsTheCommandAsItIsWithoutADeadline(t *testing.T) {
	r := Runner{Exec: func(ctx context.Context, id string, cmd []string, timeout time.Duration) (string, int, error) {
		if _, limited := ctx.Deadline(); limited || timeout != 0 {
			t.Errorf("the command has a deadline (timeout %s)", timeout)
		}
		if diff := cmp.Diff([]string{"/bin/notify", "$(WHO)", "$$"}, cmd); diff != "" || id != "1234" {
			t.Errorf("ran in %q (-want +got):\n%s", id, diff)
		}
		return "", 0, nil
	}}
	if err := r.Run(t.Context(), execHook("/bin/notify", "$(WHO)", "$$"), etcd(), "1234", ""); err != nil {
		t.Error(err)
	}
}

func TestFailedHooksSayWhatAKubeletSays(t *testing.T) {
	away := errors.New("the runtime is away")
	for name, tc := range map[string]struct {
		hook *corev1.LifecycleHandler
		exit int
		err  error
		want string
	}{
		"exit code":  {hook: execHook("/bin/false", "-x"), exit: 3, want: `exec lifecycle hook ([/bin/false -x]) for container "etcd" failed: exit code 3, message: "it said so"`},
		"no runtime": {hook: execHook("/bin/false"), err: away, want: `exec lifecycle hook ([/bin/false]) for container "etcd" failed: the runtime is away, message: "it said so"`},
		"tcpSocket": {hook: &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80)}},
			want: `lifecycle hook for container "etcd" failed: invalid handler: tcpSocket is not supported for hooks`},
		"no action": {hook: &corev1.LifecycleHandler{}, want: `lifecycle hook for container "etcd" failed: invalid handler: it names no action`},
	} {
		r := Runner{Exec: func(context.Context, string, []string, time.Duration) (string, int, error) {
			return "it said so", tc.exit, tc.err
		}}
		err := r.Run(t.Context(), tc.hook, etcd(), "1", "")
		if got := fmt.Sprint(err); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		if tc.err != nil && !errors.Is(err, tc.err) {
			t.Errorf("%s: the error does not wrap its cause", name)
		}
	}
	if err := (Runner{}).Run(t.Context(), execHook("x"), etcd(), "1", ""); err == nil {
		t.Error("a command ran without anything to run it with")
	}
	if err := (Runner{}).Run(t.Context(), nil, nil, "1", ""); err != nil {
		t.Errorf("no hook: %v", err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	r := Runner{Exec: func(context.Context, string, []string, time.Duration) (string, int, error) {
		return "x" + strings.Repeat("ü", 1<<20), 1, nil
	}}
	err := r.Run(t.Context(), execHook(strings.Repeat("x", 1<<20)), etcd(), "1", "")
	if n := len(err.Error()); n > 3*maxOutput || n < maxOutput {
		t.Errorf("the error has %d bytes", n)
	}
	if strings.Contains(err.Error(), `\x`) {
		t.Error("a character was cut in two")
	}
}

func TestSleepLastsAsLongAsItSays(t *testing.T) {
	for name, tc := range map[string]struct {
		seconds int64
		patient time.Duration // of the caller
		took    time.Duration
		err     string
	}{
		"to the end":  {5, time.Minute, 5 * time.Second, "<nil>"},
		"zero":        {0, time.Minute, 0, "<nil>"},
		"interrupted": {5, 2 * time.Second, 2 * time.Second, `sleep lifecycle hook (5) for container "etcd" failed: container terminated before sleep hook finished`},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tc.patient)
			defer cancel()
			start := time.Now()
			err := Runner{}.Run(ctx, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: tc.seconds}}, etcd(), "1", "")
			if took := time.Since(start); took != tc.took || fmt.Sprint(err) != tc.err {
				t.Errorf("%s: %v after %s, want %s after %s", name, err, took, tc.err, tc.took)
			}
		})
	}
}

func TestPreStopLeavesTheRestOfTheGrace(t *testing.T) {
	for name, tc := range map[string]struct {
		sleep, grace, left time.Duration
		none               bool
		err                string
	}{
		"a hook that ends in time":     {sleep: 4 * time.Second, grace: 30 * time.Second, left: 26 * time.Second, err: "<nil>"},
		"a hook that ends at the last": {sleep: 29 * time.Second, grace: 30 * time.Second, left: 2 * time.Second, err: "<nil>"},
		"a hook that does not end": {sleep: time.Hour, grace: 30 * time.Second, left: 2 * time.Second,
			err: `preStop hook for container "etcd" did not end within the grace period of 30s`},
		"no grace":          {sleep: time.Second, grace: 0, left: 2 * time.Second, err: "<nil>"},
		"no hook":           {none: true, grace: 30 * time.Second, left: 30 * time.Second, err: "<nil>"},
		"no hook, no grace": {none: true, grace: time.Second, left: 2 * time.Second, err: "<nil>"},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: int64(tc.sleep / time.Second)}}
			if tc.none {
				h = nil
			}
			start := time.Now()
			left, err := Runner{}.PreStop(t.Context(), h, etcd(), "1", "", tc.grace)
			if left != tc.left || fmt.Sprint(err) != tc.err {
				t.Errorf("%s: %s left, %v; want %s, %s", name, left, err, tc.left, tc.err)
			}
			if took := time.Since(start); took > tc.grace {
				t.Errorf("%s: took %s of %s", name, took, tc.grace)
			}
		})
	}
}

func TestPreStopEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := Runner{}.PreStop(ctx, &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 3600}}, etcd(), "1", "", time.Minute)
		if err == nil || strings.Contains(err.Error(), "grace") {
			t.Errorf("got %v, want the hook's own error", err)
		}
	})
}

func TestRecordedHookOfAnUnknownManifest(t *testing.T) {
	for name, tc := range map[string]struct {
		preStop, ports string
		want           *corev1.LifecycleHandler
		wantPorts      []corev1.ContainerPort
		err            bool
	}{
		"none":         {ports: `[{"name":"client","containerPort":2379}]`},
		"a command":    {preStop: `{"exec":{"command":["/bin/bye"]}}`, want: execHook("/bin/bye")},
		"a named port": {preStop: `{"exec":{"command":["/bin/bye"]}}`, ports: `[{"name":"client","containerPort":2379}]`, want: execHook("/bin/bye"), wantPorts: etcd().Ports},
		"broken hook":  {preStop: `{"exec":`, err: true},
		"broken ports": {preStop: `{"exec":{"command":["/bin/bye"]}}`, ports: `[`, err: true},
	} {
		h, container, err := Recorded("etcd", tc.preStop, tc.ports)
		if (err != nil) != tc.err {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, h); diff != "" {
			t.Errorf("%s: hook (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tc.wantPorts, container.Ports); diff != "" || container.Name != "etcd" {
			t.Errorf("%s: container %s, ports (-want +got):\n%s", name, container.Name, diff)
		}
	}
}
