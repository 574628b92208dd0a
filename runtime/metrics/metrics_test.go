package metrics

import (
	"errors"
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aymanbagabas/go-udiff"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/manifest"
	"github.com/slipway-k8s/slipway/runtime/status"
)

var update = flag.Bool("update", false, "rewrite testdata; only commit what you can explain")

func pod(t *testing.T, name string) *manifest.StaticPod {
	t.Helper()
	p, err := manifest.Parse([]byte("{apiVersion: v1, kind: Pod, metadata: {name: "+name+", namespace: kube-system, uid: "+name+"},"+
		" spec: {hostNetwork: true, initContainers: [{name: first, image: a}], containers: [{name: main, image: a}]}}"), "/m/"+name+".yaml", "n1")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// board holds a pod that is ready after two restarts, and one that waits.
func board(t *testing.T) *status.Board {
	b := status.NewBoard()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	etcd, held := pod(t, "etcd"), pod(t, "kube-apiserver")
	b.Publish(status.View{Name: etcd.FullName(), Want: etcd, Now: now, Ready: true,
		Seen: lifecycle.Observed{
			Sandboxes: []lifecycle.Sandbox{{ID: "s", UID: "etcd", Ready: true}},
			Containers: []lifecycle.Container{{ID: "c", Name: "main", UID: "etcd", Attempt: 2, State: lifecycle.ContainerRunning,
				Probe: lifecycle.Probe{Started: true, Ready: true}}},
		},
		Decision: lifecycle.Decision{State: lifecycle.Running}})
	b.Publish(status.View{Name: held.FullName(), Want: held, Now: now, Decision: lifecycle.Decision{State: lifecycle.Held}})
	b.SetProblems([]status.Problem{{Source: "/m/x.yaml", Reason: "not a pod"}})
	return b
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("status %d, %v\n%s", w.Code, err, body)
	}
	return string(body)
}

// TestExposition compares a scrape with a golden file, without what is of the process and of Go, whose values vary.
func TestExposition(t *testing.T) {
	up := true
	m := New(Config{Board: board(t), RuntimeUp: func() bool { return up }})
	m.Observe(lifecycle.StartContainer, 60*time.Millisecond, nil)
	m.Observe(lifecycle.StartContainer, 3*time.Second, errors.New("no such image"))
	m.Observe(lifecycle.StopContainer, 31*time.Second, nil)
	m.PodStarted(130 * time.Millisecond)
	m.RolledBack()
	m.LogRotated(nil)
	m.LogRotated(errors.New("disk full"))
	m.ImagesCollected(3, 1<<30, nil)
	m.ImagesCollected(0, 0, errors.New("no runtime"))
	got := own(scrape(t, m))
	path := filepath.Join("testdata", "metrics.txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := udiff.Unified(path, "got", string(want), got); diff != "" {
		t.Errorf("%s\nrewrite with: go test ./runtime/metrics -update", diff)
	}
	up = false
	if got := scrape(t, m); !strings.Contains(got, "\nslipway_runtime_up 0\n") {
		t.Errorf("without a runtime:\n%s", got)
	}
}

var slipways = regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?slipway_.*\n`)

func own(exposition string) string { return strings.Join(slipways.FindAllString(exposition, -1), "") }

// TestNamesAreTheFields holds names, types and help texts to the conventions of Prometheus.
func TestNamesAreTheFields(t *testing.T) {
	m := New(Config{Board: board(t)})
	m.Observe(lifecycle.CleanUp, time.Second, nil)
	problems, err := promlint.New(strings.NewReader(own(scrape(t, m)))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestEveryActionHasALabel keeps the labels to what Prometheus takes, and to one per action.
func TestEveryActionHasALabel(t *testing.T) {
	m := New(Config{Board: status.NewBoard()})
	for k := lifecycle.EnsureImage; k <= lifecycle.CleanUp; k++ {
		m.Observe(k, time.Second, nil)
	}
	labels := regexp.MustCompile(`(?m)^slipway_action_duration_seconds_count\{action="[a-z_]+",result="ok"\} 1$`).FindAllString(scrape(t, m), -1)
	if len(labels) != int(lifecycle.CleanUp)+1 {
		t.Errorf("%d actions, %d labels: %q", lifecycle.CleanUp+1, len(labels), labels)
	}
}

// TestAPodThatIsGoneHasNoMetrics derives gauges from the board as it is.
func TestAPodThatIsGoneHasNoMetrics(t *testing.T) {
	b := board(t)
	m := New(Config{Board: b})
	b.Remove("kube-system/etcd-n1")
	if got := scrape(t, m); strings.Contains(got, "etcd") || !strings.Contains(got, `slipway_pod_ready{namespace="kube-system",pod="kube-apiserver-n1"} 0`) {
		t.Errorf("after it went:\n%s", own(got))
	}
}

// TestItIsSmall bounds how many series there are for a process without pods.
func TestItIsSmall(t *testing.T) {
	series := 0
	for line := range strings.Lines(scrape(t, New(Config{Board: status.NewBoard()}))) {
		if !strings.HasPrefix(line, "#") {
			series++
		}
	}
	if series > 60 {
		t.Errorf("%d series: what nobody looks at is scraped and stored all the same", series)
	}
}

// TestNilCountsNothing lets a supervisor go without metrics.
func TestNilCountsNothing(*testing.T) {
	var m *Metrics
	m.Observe(lifecycle.RunSandbox, time.Second, nil)
	m.PodStarted(time.Second)
	m.RolledBack()
	m.LogRotated(nil)
	m.ImagesCollected(1, 1, nil)
}
