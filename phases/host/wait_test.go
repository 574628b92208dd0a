package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
)

// controlPlane is what the tests wait for.
func controlPlane() Wait {
	return Wait{
		Namespace: "kube-system", NodeName: "node-1", Deadline: 4 * time.Minute,
		Pods: []string{"etcd", "kube-apiserver", "kube-scheduler"},
		Needs: map[string][]string{
			"kube-apiserver": {"etcd"}, "kube-scheduler": {"kube-apiserver"},
		},
	}
}

// script is a supervisor that shows one snapshot after another.
type script struct {
	steps []step
	logOf map[string][]string // by component
	gone  error               // what every further watch answers; nil keeps the last snapshot until ctx ends
	calls int
}

type step struct {
	after time.Duration
	pods  []corev1.Pod
	drop  bool // the stream ends here
}

func (s *script) watch(ctx context.Context, each func([]corev1.Pod) bool) error {
	s.calls++
	for len(s.steps) > 0 {
		next := s.steps[0]
		s.steps = s.steps[1:]
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(next.after):
		}
		if next.drop {
			return io.ErrUnexpectedEOF
		}
		if !each(next.pods) {
			return nil
		}
	}
	if s.gone != nil {
		return s.gone
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *script) logs(_ context.Context, pod, _ string, tail int) ([]string, error) {
	name := strings.TrimSuffix(strings.TrimPrefix(pod, "kube-system/"), "-node-1")
	lines := s.logOf[name]
	return lines[max(0, len(lines)-tail):], nil
}

// pod returns a pod in the given state: "ready", "running", "pulling", or "exited CODE SECONDS TIMES": the last of its
// runs took so many seconds and ended now.
func pod(name, state string) corev1.Pod {
	p := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-node-1", Namespace: "kube-system"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name}}},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	c := corev1.ContainerStatus{Name: name}
	ready := corev1.ConditionFalse
	switch word, rest, _ := strings.Cut(state, " "); word {
	case "ready":
		ready, c.Ready, c.State.Running = corev1.ConditionTrue, true, &corev1.ContainerStateRunning{}
	case "running":
		c.State.Running = &corev1.ContainerStateRunning{}
		p.Status.Message = rest
	case "rejected":
		ready, c.Ready, c.State.Running = corev1.ConditionTrue, true, &corev1.ContainerStateRunning{}
		p.Annotations = map[string]string{annotationRejected: rest, annotationRejectedLog: "usage\nError: unknown flag: --no-such-flag\n"}
	case "pulling":
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
		p.Status.Message = "pulling " + name
	case "exited":
		var code, ran, times int
		fmt.Sscanf(rest, "%d %d %d", &code, &ran, &times) //nolint:errcheck // the test's own text
		now := time.Now()
		c.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 10s"}
		c.RestartCount = int32(times - 1)
		c.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{
			ExitCode: int32(code), ContainerID: fmt.Sprintf("containerd://%s-%d", name, times),
			StartedAt: metav1.NewTime(now.Add(-time.Duration(ran) * time.Second)), FinishedAt: metav1.NewTime(now),
		}
	}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{c}
	return p
}

// scene is a list of pods from "etcd=ready" and so on.
func scene(states ...string) []corev1.Pod {
	var pods []corev1.Pod
	for _, s := range states {
		name, state, _ := strings.Cut(s, "=")
		pods = append(pods, pod(name, state))
	}
	return pods
}

// of returns the pods with one of them of a version, and with what the supervisor tells of another.
func of(pods []corev1.Pod, name, version, key, value string) []corev1.Pod {
	for i := range pods {
		if pods[i].Name != name+"-node-1" {
			continue
		}
		if pods[i].Annotations == nil {
			pods[i].Annotations = map[string]string{}
		}
		pods[i].UID = types.UID(strings.Split(version, "/")[0])
		pods[i].Annotations[annotationVersion] = version
		if key != "" {
			pods[i].Annotations[key] = value
		}
	}
	return pods
}

// wait runs waitReady in a bubble and returns what it reported, with the time of each line, and how it ended.
func wait(t *testing.T, build func() *script) (reports []string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err = waitReady(t.Context(), controlPlane(), build(), func(p Progress) {
			reports = append(reports, fmt.Sprintf("%s  %s", seconds(time.Since(began)), p.Text))
		})
		took = time.Since(began)
	})
	return reports, took, err
}

func TestWaitEndsWithTheLastPod(t *testing.T) {
	reports, took, err := wait(t, func() *script {
		return &script{steps: []step{
			{pods: nil},
			{after: 100 * time.Millisecond, pods: scene("etcd=running", "kube-apiserver=pulling")},
			{after: 800 * time.Millisecond, pods: scene("etcd=ready", "kube-apiserver=running startup probe: HTTP 500")},
			{after: time.Second, drop: true},
			{after: time.Second, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=running")},
			{after: 500 * time.Millisecond, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready")},
		}}
	})
	must(t, err)
	if want := 3450 * time.Millisecond; took != want {
		t.Errorf("took %s, want %s", took, want)
	}
	want := []string{
		"0.0 s  waiting for etcd: the supervisor has no such pod: its manifest is missing or not valid",
		"0.1 s  waiting for etcd: running, not ready",
		"0.9 s  etcd ready (0.9 s)",
		"0.9 s  waiting for kube-apiserver: startup probe: HTTP 500, running, not ready",
		"3.0 s  kube-apiserver ready (3.0 s)",
		"3.0 s  waiting for kube-scheduler: running, not ready",
		"3.5 s  kube-scheduler ready (3.5 s)",
	}
	if diff := cmp.Diff(want, reports); diff != "" {
		t.Errorf("reports differ (-want +got):\n%s", diff)
	}
}

func TestWaitEndsEarlyOnARejectedFlag(t *testing.T) {
	_, took, err := wait(t, func() *script {
		return &script{
			logOf: map[string][]string{"kube-apiserver": {"Usage:", "Error: unknown flag: --no-such-flag"}},
			steps: []step{
				{pods: scene("etcd=running", "kube-apiserver=exited 1 0 1", "kube-scheduler=pulling")},
				{after: 200 * time.Millisecond, pods: scene("etcd=running", "kube-apiserver=exited 1 0 2", "kube-scheduler=pulling")},
			},
		}
	})
	want := "kube-apiserver cannot start: it exited with code 1, 2 times\n" +
		"  last log lines of kube-apiserver:\n    Usage:\n    Error: unknown flag: --no-such-flag\n" +
		"  likely cause: the flag --no-such-flag is not one that kube-apiserver knows: check its extraArgs\n" +
		"  next: slipway logs kube-apiserver"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if took > time.Second {
		t.Errorf("took %s", took)
	}
}

// TestWaitEndsWhenAVersionWasGivenUp: what runs is ready, and is not what the manifest says.
func TestWaitEndsWhenAVersionWasGivenUp(t *testing.T) {
	const reason = "rejected container kube-apiserver exited 3 times"
	_, took, err := wait(t, func() *script {
		return &script{steps: []step{
			{pods: scene("etcd=ready", "kube-apiserver="+reason, "kube-scheduler=ready")},
			{after: time.Minute}, // nothing changes: it looks again by itself
			{pods: scene("etcd=ready", "kube-apiserver="+reason, "kube-scheduler=ready")},
		}}
	})
	want := "the new version of kube-apiserver was given up: container kube-apiserver exited 3 times\n" +
		"  the last version that was ready runs again\n" +
		"  last log lines of kube-apiserver:\n    usage\n    Error: unknown flag: --no-such-flag\n" +
		"  likely cause: the flag --no-such-flag is not one that kube-apiserver knows: check its extraArgs\n" +
		"  next: mend its configuration and run this again; slipway status kube-apiserver"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if took < newsTakes || took > newsTakes+time.Second {
		t.Errorf("took %s", took)
	}
}

// TestWaitForgetsWhatWasGivenUpBefore: the supervisor takes a moment to see the manifest that was mended.
func TestWaitForgetsWhatWasGivenUpBefore(t *testing.T) {
	_, _, err := wait(t, func() *script {
		return &script{steps: []step{
			{pods: scene("etcd=ready", "kube-apiserver=rejected it exited", "kube-scheduler=ready")},
			{after: time.Second, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready")},
		}}
	})
	must(t, err)
}

// changed waits for version new of kube-apiserver.
func changed(t *testing.T, build func() *script) (took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := controlPlane()
		w.Versions = map[string]string{"kube-apiserver": "new/1"}
		began := time.Now()
		err = waitReady(t.Context(), w, build(), func(Progress) {})
		took = time.Since(began)
	})
	return took, err
}

// TestWaitForTheNewVersion: a pod that is ready and of the version before is not what is waited for, whoever shows it.
func TestWaitForTheNewVersion(t *testing.T) {
	ready := []string{"etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready"}
	for _, tc := range []struct{ name, old, new string }{
		{"by uid and hash", "old/0", "new/1"},
		{"by the hash of a pod that brings its uid", "new/0", "new/1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			took, err := changed(t, func() *script {
				return &script{steps: []step{
					{pods: of(scene(ready...), "kube-apiserver", tc.old, "", "")},
					{after: 10 * time.Second, pods: of(scene("etcd=ready", "kube-apiserver=running", "kube-scheduler=ready"), "kube-apiserver", tc.new, "", "")},
					{after: time.Second, pods: of(scene(ready...), "kube-apiserver", tc.new, "", "")},
				}}
			})
			must(t, err)
			if took != 11*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
	t.Run("of a supervisor that shows no versions", func(t *testing.T) {
		took, err := changed(t, func() *script {
			old, fresh := scene(ready...), scene(ready...)
			old[1].UID, fresh[1].UID = "old", "new"
			return &script{steps: []step{{pods: old}, {after: time.Second, pods: fresh}}}
		})
		must(t, err)
		if took != time.Second {
			t.Errorf("took %s", took)
		}
	})
}

// TestWaitEndsAtOnceWhenItsVersionWasGivenUp: a rejection of the version that is waited for is news, one of another is not.
func TestWaitEndsAtOnceWhenItsVersionWasGivenUp(t *testing.T) {
	for _, tc := range []struct {
		rejected string
		took     time.Duration
	}{{"new/1", 0}, {"other/1", time.Minute}} {
		took, err := changed(t, func() *script {
			old := of(scene("etcd=ready", "kube-apiserver=rejected it exited", "kube-scheduler=ready"), "kube-apiserver", "old/0", annotationRejectedVersion, tc.rejected)
			fresh := of(scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready"), "kube-apiserver", "new/1", "", "")
			return &script{steps: []step{{pods: old}, {after: time.Minute, pods: fresh}}}
		})
		if given := err != nil && strings.HasPrefix(err.Error(), "the new version of kube-apiserver was given up: it exited"); given != (tc.took == 0) || took != tc.took {
			t.Errorf("rejected %s: ended after %s with %v", tc.rejected, took, err)
		}
	}
}

// TestWaitEndsWhenTheManifestIsNotTaken, once the supervisor has had time to forget what was wrong with the one before.
func TestWaitEndsWhenTheManifestIsNotTaken(t *testing.T) {
	took, err := changed(t, func() *script {
		pods := of(scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready"), "kube-apiserver", "old/0", annotationProblem, "spec.hostPID: not here")
		return &script{steps: []step{{pods: pods}, {after: time.Minute}, {pods: pods}}} // the same again, when it looks by itself
	})
	want := "the manifest of kube-apiserver is not taken: spec.hostPID: not here\n  the version before it runs on\n" +
		"  next: mend its configuration and run this again; slipway status kube-apiserver"
	if err == nil || err.Error() != want || took < newsTakes || took > newsTakes+time.Second {
		t.Errorf("after %s got\n%v\nwant\n%s", took, err, want)
	}
}

// TestWaitUntilSteady: ready is not enough until it has lasted, without a break and in the same containers, and nothing
// need happen for it to have lasted.
func TestWaitUntilSteady(t *testing.T) {
	ready := func(id string) []corev1.Pod {
		pods := scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready")
		pods[2].Status.ContainerStatuses[0].ContainerID = id
		return pods
	}
	for _, tc := range []struct {
		name  string
		steps []step
		took  time.Duration
	}{
		{"nothing happens", []step{{pods: ready("a")}, {after: time.Hour}, {pods: ready("a")}}, 10*time.Second + reconnect},
		{"not ready for a moment", []step{{pods: ready("a")}, {after: 4 * time.Second, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=running")},
			{after: time.Second, pods: ready("a")}, {after: time.Hour}, {pods: ready("a")}, {after: time.Hour}, {pods: ready("a")}}, 15 * time.Second},
		{"another container", []step{{pods: ready("a")}, {after: 4 * time.Second, pods: ready("b")}, {after: time.Hour}, {pods: ready("b")},
			{after: time.Hour}, {pods: ready("b")}}, 14 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := controlPlane()
				w.Steady = 10 * time.Second
				began := time.Now()
				must(t, waitReady(t.Context(), w, &script{steps: tc.steps}, func(Progress) {}))
				if took := time.Since(began); took < tc.took || took > tc.took+time.Second {
					t.Errorf("took %s, want %s", took, tc.took)
				}
			})
		})
	}
}

// TestWaitTakesVersionsFromTheDisk: a manifest that is there is waited for as it is; without one any version will do.
func TestWaitTakesVersionsFromTheDisk(t *testing.T) {
	disk := artifact.Disk{Root: t.TempDir()}
	must(t, disk.Put(artifact.File{Path: "/m/etcd.yaml", Data: []byte("etcd"), Mode: 0o600}))
	must(t, disk.Put(artifact.File{Path: "/m/kube-scheduler.yaml", Data: []byte("bad"), Mode: 0o600}))
	l := NewLive(Options{Paths: config.Paths{Manifests: "/m"}, Files: disk, Version: func(data []byte, node string) (string, error) {
		if string(data) == "bad" {
			return "", errors.New("not a pod")
		}
		return string(data) + "@" + node, nil
	}})
	w := controlPlane()
	w.Pods = []string{"etcd", "kube-apiserver"}
	got, err := l.versions(w)
	if diff := cmp.Diff(map[string]string{"etcd": "etcd@node-1"}, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	w.Pods = append(w.Pods, "kube-scheduler")
	if _, err := l.versions(w); err == nil || !strings.Contains(err.Error(), `looking at the manifest "/m/kube-scheduler.yaml" of what is waited for: not a pod`) {
		t.Errorf("got %v", err)
	}
	w.Versions = map[string]string{"kube-scheduler": "given"}
	if got, err := l.versions(w); err != nil || got["kube-scheduler"] != "given" {
		t.Errorf("%v %v", got, err)
	}
}

func TestWaitShowsTheErrorAboveALongUsage(t *testing.T) {
	usage := append([]string{"flag provided but not defined: -no-such-flag"}, slices.Repeat([]string{"  --flag  text"}, 200)...)
	_, _, err := wait(t, func() *script {
		return &script{logOf: map[string][]string{"etcd": usage}, steps: []step{
			{pods: scene("etcd=exited 2 0 1")}, {pods: scene("etcd=exited 2 0 2")},
		}}
	})
	if err == nil || !strings.Contains(err.Error(), "flag provided but not defined: -no-such-flag\n    …\n") ||
		strings.Count(err.Error(), "--flag  text") != logTail {
		t.Errorf("got %v", err)
	}
}

func TestWaitIsPatientWithWhatOnlyLacksAnother(t *testing.T) {
	refused := `err="unable to load configmap: dial tcp 127.0.0.1:6443: connect: connection refused"`
	_, _, err := wait(t, func() *script {
		return &script{
			logOf: map[string][]string{"kube-scheduler": {refused}},
			steps: []step{
				{pods: scene("etcd=ready", "kube-apiserver=running", "kube-scheduler=exited 1 0 1")},
				{pods: scene("etcd=ready", "kube-apiserver=running", "kube-scheduler=exited 1 0 2")},
				{after: 10 * time.Second, pods: scene("etcd=ready", "kube-apiserver=running", "kube-scheduler=exited 1 0 3")},
				{after: 20 * time.Second, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready")},
			},
		}
	})
	must(t, err)
}

func TestWaitEndsOnALoopOfUnknownCause(t *testing.T) {
	for _, tc := range []struct {
		name  string
		exits []string
		ends  bool
	}{
		{"twice at once with the same code", []string{"7 0 1", "7 1 2"}, true},
		{"twice, after a while", []string{"7 30 1", "7 30 2"}, false},
		{"twice, with different codes", []string{"7 0 1", "8 0 2"}, false},
		{"three times, whatever happened", []string{"0 30 1", "8 5 2", "0 60 3"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, took, err := wait(t, func() *script {
				s := &script{}
				for _, e := range tc.exits {
					s.steps = append(s.steps, step{after: time.Second, pods: scene("etcd=exited " + e)})
				}
				return s
			})
			if early := took < time.Minute; err == nil || early != tc.ends {
				t.Errorf("ended after %s: %v", took, err)
			}
		})
	}
}

func TestWaitIgnoresExitsFromBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := scene("etcd=exited 1 0 7")
		second := scene("etcd=exited 1 0 8")
		<-time.After(time.Minute) // the bubble's clock: the user has mended something, and runs init again
		err := waitReady(t.Context(), controlPlane(), &script{steps: []step{
			{pods: first}, {pods: second},
			{after: time.Second, pods: scene("etcd=ready", "kube-apiserver=ready", "kube-scheduler=ready")},
		}}, func(Progress) {})
		must(t, err)
	})
}

func TestWaitSaysAtTheDeadlineWhatIsMissing(t *testing.T) {
	_, took, err := wait(t, func() *script {
		return &script{
			logOf: map[string][]string{"kube-apiserver": {`E1120 dial tcp 10.0.0.9:2379: i/o timeout`}},
			steps: []step{{pods: scene("etcd=ready", "kube-apiserver=running startup probe: HTTP 500")}},
		}
	})
	want := `the control plane is not ready after 4m0s:
  etcd: ready
  kube-apiserver: startup probe: HTTP 500, running, not ready
  kube-scheduler: the supervisor has no such pod: its manifest is missing or not valid
  last log lines of kube-apiserver:
    E1120 dial tcp 10.0.0.9:2379: i/o timeout
  likely cause: kube-apiserver does not reach 10.0.0.9:2379: check routes and packet filters
  next: slipway logs kube-apiserver`
	if err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if took != 4*time.Minute {
		t.Errorf("took %s", took)
	}
}

func TestWaitEndsWhenTheSupervisorStaysAway(t *testing.T) {
	_, took, err := wait(t, func() *script { return &script{gone: errors.New("connection refused")} })
	if err == nil || !strings.Contains(err.Error(), "the supervisor has not answered for 20s: connection refused") {
		t.Errorf("got %v", err)
	}
	if took < silence || took > silence+time.Second {
		t.Errorf("took %s", took)
	}
}

func TestWaitReadyOverTheSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", socket)
	must(t, err)
	mux := http.NewServeMux()
	connections := 0
	mux.HandleFunc("GET /pods", func(w http.ResponseWriter, r *http.Request) {
		connections++
		if r.URL.Query().Get("watch") != "true" {
			t.Errorf("query %q", r.URL.RawQuery)
		}
		states := []string{"etcd=running", "etcd=exited 1 0 1"}
		if connections > 1 { // the first stream drops
			states = []string{"etcd=exited 1 0 2"}
		}
		for _, s := range states {
			must(t, json.NewEncoder(w).Encode(corev1.PodList{Items: scene(s)}))
			must(t, http.NewResponseController(w).Flush())
		}
	})
	mux.HandleFunc("GET /logs", func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("pod") + " " + r.URL.Query().Get("container"); got != "kube-system/etcd-node-1 etcd" {
			t.Errorf("logs of %q", got)
		}
		fmt.Fprintln(w, "Error: unknown flag: --x")
	})
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}}
	server.Start()
	defer server.Close()

	client := newSupervisorClient(socket)
	defer client.close()
	err = waitReady(t.Context(), controlPlane(), client, func(Progress) {})
	if err == nil || !strings.Contains(err.Error(), "the flag --x is not one that etcd knows") {
		t.Errorf("got %v", err)
	}
	if connections != 2 {
		t.Errorf("%d connections", connections)
	}
}
