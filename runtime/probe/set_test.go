package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
)

// script answers exec probes by kind ("startup", "liveness", "readiness" is the command) and the time since its start,
// and keeps a record of when each was tried.
type script struct {
	mu     sync.Mutex
	start  time.Time
	answer func(kind string, at time.Duration) (exit int, took time.Duration, err error)
	tries  map[string][]time.Duration
	events []string
}

func newScript(answer func(kind string, at time.Duration) (int, time.Duration, error)) *script {
	return &script{start: time.Now(), answer: answer, tries: map[string][]time.Duration{}}
}

func (s *script) exec(ctx context.Context, _ string, cmd []string, timeout time.Duration) (string, int, error) {
	at := time.Since(s.start)
	s.mu.Lock()
	s.tries[cmd[0]] = append(s.tries[cmd[0]], at)
	s.mu.Unlock()
	exit, took, err := s.answer(cmd[0], at)
	if took > 0 {
		select {
		case <-time.After(min(took, timeout)):
		case <-ctx.Done():
		}
		if took >= timeout {
			return "", 0, context.DeadlineExceeded
		}
	}
	return fmt.Sprintf("it says %d", exit), exit, err
}

func (s *script) event(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, fmt.Sprintf("%s ", time.Since(s.start).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// between returns when a kind was tried in [from, to).
func (s *script) between(kind string, from, to time.Duration) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []time.Duration
	for _, at := range s.tries[kind] {
		if at >= from && at < to {
			found = append(found, at)
		}
	}
	return found
}

// describe prints a result as the tests compare it.
func describe(p lifecycle.Probe) string {
	var words []string
	if p.Started {
		words = append(words, "started")
	}
	if p.Ready {
		words = append(words, "ready")
	}
	if p.StartupFailed != "" {
		words = append(words, "startup failed")
	}
	if p.LivenessFailed != "" {
		words = append(words, "liveness failed")
	}
	return strings.Join(words, ", ")
}

func execProbe(kind string, delay, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:        corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{kind}}},
		InitialDelaySeconds: delay, PeriodSeconds: period, FailureThreshold: failures,
	}
}

func podOf(c corev1.Container) *corev1.Pod {
	c.Name = "etcd"
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "etcd-node", Namespace: "kube-system"}, Spec: corev1.PodSpec{Containers: []corev1.Container{c}}}
}

// watch begins to probe one container in a synctest bubble and records its result whenever it changes.
func watch(t *testing.T, s *script, c corev1.Container, age time.Duration) *Set {
	t.Helper()
	var set *Set
	set = NewSet(Deps{Exec: s.exec, Changed: func(name string) {
		if name != "kube-system/etcd-node" {
			t.Errorf("changed %q", name)
		}
		s.event("%s", describe(set.Result("1")))
	}})
	t.Cleanup(set.Close)
	set.Sync("kube-system/etcd-node", podOf(c), "10.0.0.1", []Running{{Name: "etcd", ID: "1", StartedAt: time.Now().Add(-age)}})
	return set
}

func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestWithoutProbesStartedAndReadyAtOnce(t *testing.T) {
	set := NewSet(Deps{})
	defer set.Close()
	set.Sync("kube-system/etcd-node", podOf(corev1.Container{}), "", []Running{{Name: "etcd", ID: "1"}})
	if got := describe(set.Result("1")); got != "started, ready" {
		t.Error(got)
	}
	if got := describe(set.Result("2")); got != "" {
		t.Errorf("unknown container: %s", got)
	}
	set.Sync("kube-system/etcd-node", nil, "", nil)
	if got := describe(set.Result("1")); got != "" {
		t.Errorf("after the end: %s", got)
	}
}

// TestSchedule holds when each probe is tried and when its result changes against the kubelet's rules.
func TestSchedule(t *testing.T) {
	const forever = time.Hour
	up := func(from time.Duration) func(string, time.Duration) (int, time.Duration, error) {
		return func(_ string, at time.Duration) (int, time.Duration, error) {
			if at >= from {
				return 0, 0, nil
			}
			return 1, 0, nil
		}
	}
	upTo := func(until time.Duration) func(string, time.Duration) (int, time.Duration, error) {
		return func(_ string, at time.Duration) (int, time.Duration, error) {
			if at < until {
				return 0, 0, nil
			}
			return 1, 0, nil
		}
	}
	tests := []struct {
		name   string
		spec   corev1.Container
		age    time.Duration // of the container when it is first seen
		answer func(string, time.Duration) (int, time.Duration, error)
		run    time.Duration
		want   []string
	}{
		{
			name: "a success counts at once, whatever the initial delay",
			spec: corev1.Container{StartupProbe: execProbe("startup", 10, 10, 24)}, answer: up(0), run: time.Minute,
			want: []string{"0s started, ready"},
		}, {
			name: "tried every 50 ms at first",
			spec: corev1.Container{StartupProbe: execProbe("startup", 10, 10, 24)}, answer: up(220 * time.Millisecond), run: time.Minute,
			want: []string{"250ms started, ready"},
		}, {
			name: "failures count only on the kubelet's schedule: at 10, 20 and 30 s",
			spec: corev1.Container{StartupProbe: execProbe("startup", 10, 10, 3)}, answer: up(forever), run: time.Minute,
			want: []string{"30s startup failed"},
		}, {
			name: "an initial delay between two periods: the kubelet's first probe is at the next period",
			spec: corev1.Container{StartupProbe: execProbe("startup", 5, 10, 2)}, answer: up(forever), run: time.Minute,
			want: []string{"20s startup failed"},
		}, {
			name: "the API's defaults: no delay, every 10 s, three failures",
			spec: corev1.Container{StartupProbe: execProbe("startup", 0, 0, 0)}, answer: up(forever), run: time.Minute,
			want: []string{"20s startup failed"},
		}, {
			name: "liveness is suspended until the container has started, and counts from its next period",
			spec: corev1.Container{StartupProbe: execProbe("startup", 0, 10, 100), LivenessProbe: execProbe("liveness", 0, 10, 2)},
			answer: func(kind string, at time.Duration) (int, time.Duration, error) {
				if kind == "startup" && at >= 35*time.Second {
					return 0, 0, nil
				}
				return 1, 0, nil
			}, run: 2 * time.Minute,
			want: []string{"35.661s started, ready", "50s started, ready, liveness failed"},
		}, {
			name: "liveness without a startup probe waits for its initial delay",
			spec: corev1.Container{LivenessProbe: execProbe("liveness", 15, 10, 8)}, answer: up(forever), run: 5 * time.Minute,
			want: []string{"1m30s started, ready, liveness failed"},
		}, {
			name: "readiness is tried at once after the start",
			spec: corev1.Container{StartupProbe: execProbe("startup", 0, 10, 3), ReadinessProbe: execProbe("readiness", 30, 15, 3)}, answer: up(0), run: time.Minute,
			want: []string{"0s started", "0s started, ready"},
		}, {
			name: "readiness is lost after its failures in a row, and regained with one success",
			spec: corev1.Container{ReadinessProbe: execProbe("readiness", 0, 5, 3)},
			answer: func(_ string, at time.Duration) (int, time.Duration, error) {
				if at >= 12*time.Second && at < 41*time.Second {
					return 1, 0, nil
				}
				return 0, 0, nil
			}, run: 2 * time.Minute,
			want: []string{"0s started, ready", "25s started", "45s started, ready"},
		}, {
			name: "a success in between starts the count anew",
			spec: corev1.Container{LivenessProbe: execProbe("liveness", 0, 10, 3)},
			answer: func(_ string, at time.Duration) (int, time.Duration, error) {
				if at == 20*time.Second {
					return 0, 0, nil
				}
				return 1, 0, nil
			}, run: 2 * time.Minute,
			want: []string{"50s started, ready, liveness failed"},
		}, {
			name: "success threshold: one eager success, the others each a period apart",
			spec: corev1.Container{ReadinessProbe: func() *corev1.Probe {
				p := execProbe("readiness", 0, 10, 3)
				p.SuccessThreshold = 3
				return p
			}()}, answer: up(0), run: time.Minute,
			want: []string{"20s started, ready"},
		}, {
			name: "success threshold: they must be in a row",
			spec: corev1.Container{ReadinessProbe: func() *corev1.Probe {
				p := execProbe("readiness", 0, 10, 3)
				p.SuccessThreshold = 3
				return p
			}()},
			answer: func(_ string, at time.Duration) (int, time.Duration, error) {
				if at == 20*time.Second {
					return 1, 0, nil
				}
				return 0, 0, nil
			}, run: time.Minute,
			want: []string{"50s started, ready"},
		}, {
			name: "timeouts longer than the period: the next probe follows at once",
			spec: corev1.Container{LivenessProbe: func() *corev1.Probe {
				p := execProbe("liveness", 0, 10, 3)
				p.TimeoutSeconds = 15
				return p
			}()},
			answer: func(string, time.Duration) (int, time.Duration, error) { return 0, time.Hour, nil }, run: 2 * time.Minute,
			want: []string{"45s started, ready, liveness failed"},
		}, {
			name: "a probe that missed several periods makes up for one",
			spec: corev1.Container{LivenessProbe: func() *corev1.Probe {
				p := execProbe("liveness", 0, 10, 3)
				p.TimeoutSeconds = 40
				return p
			}()},
			answer: func(_ string, at time.Duration) (int, time.Duration, error) {
				if at == 0 {
					return 1, 35 * time.Second, nil
				}
				return 1, 0, nil
			}, run: 2 * time.Minute,
			want: []string{"40s started, ready, liveness failed"},
		}, {
			name: "an eager try is given up after a second: what hangs now may answer soon",
			spec: corev1.Container{StartupProbe: func() *corev1.Probe {
				p := execProbe("startup", 30, 10, 3)
				p.TimeoutSeconds = 15
				return p
			}()},
			answer: func(_ string, at time.Duration) (int, time.Duration, error) {
				if at < time.Second {
					return 0, time.Hour, nil
				}
				return 0, 0, nil
			}, run: 2 * time.Minute,
			want: []string{"11s started, ready"},
		}, {
			name: "a long-running container is probed as if it had just started, with all of its failures before it",
			spec: corev1.Container{StartupProbe: execProbe("startup", 10, 10, 3)}, age: 24*time.Hour + 4*time.Second, answer: up(forever), run: time.Minute,
			want: []string{"26s startup failed"},
		}, {
			name: "a long-running container is started and ready at once",
			spec: corev1.Container{StartupProbe: execProbe("startup", 10, 10, 3), ReadinessProbe: execProbe("readiness", 10, 10, 3)},
			age:  24 * time.Hour, answer: up(0), run: time.Minute,
			want: []string{"0s started", "0s started, ready"},
		}, {
			name: "started in the future, by a clock that was set back: as if now",
			spec: corev1.Container{LivenessProbe: execProbe("liveness", 10, 10, 2)}, age: -24 * time.Hour, answer: upTo(0), run: time.Minute,
			want: []string{"20s started, ready, liveness failed"},
		}, {
			name: "what says nothing about the container never counts",
			spec: corev1.Container{LivenessProbe: execProbe("liveness", 0, 10, 1)},
			answer: func(string, time.Duration) (int, time.Duration, error) {
				return 0, 0, errors.New("containerd is away")
			}, run: time.Hour,
			want: nil,
		}, {
			name: "a command that takes too long has failed",
			spec: corev1.Container{LivenessProbe: execProbe("liveness", 0, 10, 2)},
			answer: func(string, time.Duration) (int, time.Duration, error) {
				return 0, time.Minute, nil
			}, run: time.Minute,
			want: []string{"11s started, ready, liveness failed"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScript(tt.answer)
				watch(t, s, tt.spec, tt.age)
				after(tt.run)
				if diff := cmp.Diff(tt.want, s.events); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		})
	}
}

// TestEagerPauses shows how often a container that does not come up is tried.
func TestEagerPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) (int, time.Duration, error) { return 1, 0, nil })
		watch(t, s, corev1.Container{ReadinessProbe: execProbe("readiness", 0, 10, 3)}, 0)
		after(10 * time.Minute)
		for _, c := range []struct {
			from     time.Duration
			min, max int
		}{
			{0, 20, 21}, {5 * time.Second, 7, 9}, {10 * time.Second, 4, 5}, {60 * time.Second, 0, 2},
		} {
			if n := len(s.between("readiness", c.from, c.from+time.Second)); n < c.min || n > c.max {
				t.Errorf("%d tries in the second from %s, want %d to %d", n, c.from, c.min, c.max)
			}
		}
		if n := len(s.between("readiness", 8*time.Minute, 10*time.Minute)); n != 12 {
			t.Errorf("%d tries in the last two minutes, want the kubelet's 12", n)
		}
	})
}

// TestEagerTriesLeaveRoom: a command that takes 200 ms is not run back to back.
func TestEagerTriesLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) (int, time.Duration, error) { return 1, 200 * time.Millisecond, nil })
		watch(t, s, corev1.Container{StartupProbe: execProbe("startup", 0, 10, 100)}, 0)
		after(time.Minute)
		if n := len(s.between("startup", 10*time.Second, 30*time.Second)); n > 12 {
			t.Errorf("%d tries of 200 ms in 20 s", n)
		}
	})
}

// TestNothingIsTriedAfterTheVerdict: a container that is to be restarted is left alone, and its result stays.
func TestNothingIsTriedAfterTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) (int, time.Duration, error) { return 3, 0, nil })
		set := watch(t, s, corev1.Container{LivenessProbe: execProbe("liveness", 0, 1, 2)}, 0)
		after(time.Minute)
		if got := s.between("liveness", 0, time.Hour); len(got) != 2 {
			t.Errorf("tried at %v", got)
		}
		if got := set.Result("1"); got.LivenessFailed != "exit code 3: it says 3" || got.Message != "liveness probe: exit code 3: it says 3" {
			t.Errorf("%+v", got)
		}
	})
}

// TestMessageIsOfTheLatestFailure: a failing try shows before it counts, and goes with its success.
func TestMessageIsOfTheLatestFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(_ string, at time.Duration) (int, time.Duration, error) {
			if at < 300*time.Millisecond {
				return 7, 0, nil
			}
			return 0, 0, nil
		})
		set := watch(t, s, corev1.Container{ReadinessProbe: execProbe("readiness", 10, 10, 3)}, 0)
		after(100 * time.Millisecond)
		if got := set.Result("1").Message; got != "readiness probe: exit code 7: it says 7" {
			t.Errorf("%q", got)
		}
		after(time.Second)
		if got := set.Result("1"); got.Message != "" || !got.Ready {
			t.Errorf("%+v", got)
		}
	})
}

// TestSyncFollowsTheContainers: another id is another container, probed from scratch; what is gone is not probed.
func TestSyncFollowsTheContainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript(func(string, time.Duration) (int, time.Duration, error) { return 0, 0, nil })
		pod := podOf(corev1.Container{StartupProbe: execProbe("startup", 0, 10, 3), LivenessProbe: execProbe("liveness", 0, 10, 3)})
		set := NewSet(Deps{Exec: s.exec})
		defer set.Close()
		running := func(id string) []Running { return []Running{{Name: "etcd", ID: id, StartedAt: time.Now()}} }
		set.Sync("kube-system/etcd-node", pod, "", running("1"))
		synctest.Wait()
		set.Sync("kube-system/etcd-node", pod, "", running("2"))
		if got := describe(set.Result("1")) + describe(set.Result("2")); got != "" {
			t.Errorf("the new one has the old one's result: %s", got)
		}
		synctest.Wait()
		if got := describe(set.Result("2")); got != "started, ready" {
			t.Errorf("%s", got)
		}
		set.Sync("kube-system/etcd-node", nil, "", nil)
		after(time.Hour)
		if got := s.between("liveness", time.Second, 2*time.Hour); len(got) > 0 {
			t.Errorf("tried after the end: %v", got)
		}
	})
}

// TestSyncIsCheap: telling a Set what it knows costs no memory.
func TestSyncIsCheap(t *testing.T) {
	set := NewSet(Deps{})
	defer set.Close()
	pod := podOf(corev1.Container{})
	running := []Running{{Name: "etcd", ID: "1", StartedAt: time.Now()}}
	if n := testing.AllocsPerRun(100, func() { set.Sync("kube-system/etcd-node", pod, "10.0.0.1", running) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
