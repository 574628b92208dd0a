package logrotate

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // for a machine without zones

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// listing makes files of "name size" words.
func listing(t *testing.T, text string) []File {
	t.Helper()
	var files []File
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		size := int64(0)
		for _, r := range words[i+1] {
			if r < '0' || r > '9' {
				t.Fatalf("%q is no size", words[i+1])
			}
			size = 10*size + int64(r-'0')
		}
		files = append(files, File{words[i], size})
	}
	return files
}

func TestPlan(t *testing.T) {
	policy := Policy{MaxSize: 100, MaxFiles: 4, Workers: 1}
	for _, c := range []struct {
		name, files string
		busy        string
		want        Plan
	}{
		{"a log that is small", "0.log 99", "", Plan{}},
		{"no log at all", "1.log 100", "", Plan{}},
		{"a log that is full", "0.log 100", "", Plan{Rotate: "0.log.20261120-120000"}},
		{"the newest part is not compressed", "0.log 1 0.log.20261120-115900 100", "", Plan{}},
		{"the others are, the newer one first", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115700 90 0.log.20261120-115900 90", "",
			Plan{Compress: []string{"0.log.20261120-115800", "0.log.20261120-115700"}}},
		{"one that is being compressed is left", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115800.tmp 5 0.log.20261120-115900 90", "0.log.20261120-115800", Plan{}},
		{"the oldest is too many", "0.log 1 0.log.20261120-115600.gz 1 0.log.20261120-115700.gz 1 0.log.20261120-115800.gz 1 0.log.20261120-115900 90", "",
			Plan{Remove: []string{"0.log.20261120-115600.gz"}}},
		{"what is compressed is not needed any more", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115800.gz 9 0.log.20261120-115900 90", "",
			Plan{Remove: []string{"0.log.20261120-115800"}}},
		{"while it is compressed it is, its archive has just appeared", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115800.gz 9 0.log.20261120-115900 90", "0.log.20261120-115800", Plan{}},
		{"a compression that was cut short begins anew", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115800.tmp 7 0.log.20261120-115900 90", "",
			Plan{Remove: []string{"0.log.20261120-115800.tmp"}, Compress: []string{"0.log.20261120-115800"}}},
		{"its end is all that is left", "0.log 1 0.log.20261120-115800.tmp 7", "", Plan{Remove: []string{"0.log.20261120-115800.tmp"}}},
		{"after a flood fewer parts have room", "0.log 90 0.log.20261120-115700.gz 10 0.log.20261120-115800 250 0.log.20261120-115900 290", "",
			Plan{Remove: []string{"0.log.20261120-115700.gz", "0.log.20261120-115800"}}},
		{"the newest part stays, however large", "0.log 90 0.log.20261120-115900 9000", "", Plan{}},
		{"files of other names and logs", "0.log 1 0.log.1 9 0.log.old.gz 9 0.log.20261120-115800.xz 9 0.log.20261120-115900x 9 10.log 900 10.log.20261120-115800 900 10.log.20261120-115900 900", "", Plan{}},
		{"a file of another name is not the newest part", "0.log 1 0.log.20261120-115800 90 0.log.20261120-115900.xz 9", "", Plan{}},
		{"a rotation may fail, so it costs no older part", "0.log 100 0.log.20261120-115700.gz 1 0.log.20261120-115800.gz 1 0.log.20261120-115900 90", "",
			Plan{Rotate: "0.log.20261120-120000"}},
		{"two rotations in one second", "0.log 100 0.log.20261120-120000 90", "", Plan{Rotate: "0.log.20261120-120001"}},
		{"the clock was set back a year", "0.log 100 0.log.20271231-235959.gz 10 0.log.20261119-000000.gz 1", "", Plan{Rotate: "0.log.20280101-000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			busy := map[string]bool{}
			for _, name := range strings.Fields(c.busy) {
				busy[name] = true
			}
			if diff := cmp.Diff(c.want, policy.Plan("0.log", listing(t, c.files), busy, noon)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlanOfTwoFiles: with the least that may be configured, the log and the newest part are all there is.
func TestPlanOfTwoFiles(t *testing.T) {
	files := listing(t, "0.log 1 0.log.20261120-115800.gz 1 0.log.20261120-115900 90")
	want := Plan{Remove: []string{"0.log.20261120-115800.gz"}}
	if diff := cmp.Diff(want, Policy{MaxSize: 100, MaxFiles: 2, Workers: 1}.Plan("0.log", files, nil, noon)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestStampsFollowOneAnother: in the hour that a summer time ends with twice, too.
func TestStampsFollowOneAnother(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 10, 25, 2, 59, 58, 0, berlin) // summer time's
	var parts []part
	for range 10 {
		stamp := nextStamp(parts, now)
		if len(parts) > 0 && stamp <= parts[len(parts)-1].stamp {
			t.Fatalf("%s comes after %s", stamp, parts[len(parts)-1].stamp)
		}
		parts = append(parts, part{stamp: stamp})
		now = now.Add(time.Second)
	}
	if last := parts[9].stamp; last != "20261025-030007" {
		t.Errorf("the last one is %s, want seconds counted on", last)
	}
}

func TestPauseFor(t *testing.T) {
	for _, c := range []struct {
		name         string
		before, size int64
		took, last   time.Duration
		want         time.Duration
	}{
		{"nothing was written", 50, 50, time.Second, time.Second, maxPause},
		{"slow: full in 90 s", 0, 10, 10 * time.Second, time.Second, maxPause},
		{"full in half a second", 0, 50, 500 * time.Millisecond, time.Second, 500 * time.Millisecond},
		{"full in a moment", 0, 99, time.Second, time.Second, minPause},
		{"full", 0, 100, time.Second, time.Second, minPause},
		{"the first look", 0, 50, 0, time.Second, maxPause},
		{"shorter than before", 90, 10, time.Second, time.Second, maxPause},
		{"a flood holds its breath", 0, 0, minPause, minPause, 2 * minPause},
		{"and still does", 0, 0, 2 * minPause, 2 * minPause, 4 * minPause},
		{"it goes on more slowly", 0, 1, minPause, minPause, 2 * minPause},
	} {
		if got := pauseFor(100, c.before, c.size, c.took, c.last); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	for _, c := range []struct {
		size           string
		files, workers *int32
		want           Policy
		err            string
	}{
		{"", nil, nil, Policy{10 << 20, 5, 1}, ""},
		{"1Gi", ptr.To[int32](2), ptr.To[int32](4), Policy{1 << 30, 2, 4}, ""},
		{"-1", nil, nil, Policy{-1, 5, 1}, ""},
		{"0", nil, nil, Policy{}, "must not be 0"},
		{"much", nil, nil, Policy{}, `containerLogMaxSize "much"`},
		{"", ptr.To[int32](1), nil, Policy{}, "containerLogMaxFiles 1: must be at least 2"},
		{"", nil, ptr.To[int32](0), Policy{}, "containerLogMaxWorkers 0: must be at least 1"},
	} {
		got, err := ParsePolicy(c.size, c.files, c.workers)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %+v, %v; want %+v, %q", c.size, got, err, c.want, c.err)
		}
	}
}

func TestLogs(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "etcd-n1", UID: "0123"},
		Status: corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{
				{Name: "sidecar", ContainerID: "containerd://aa", State: running},
				{Name: "init", ContainerID: "containerd://bb", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
			},
			ContainerStatuses: []corev1.ContainerStatus{
				{Name: "etcd", ContainerID: "containerd://cc", RestartCount: 12, State: running},
				{Name: "next", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}},
			},
		},
	}
	want := map[string]string{
		"aa": "/logs/kube-system_etcd-n1_0123/sidecar/0.log",
		"cc": "/logs/kube-system_etcd-n1_0123/etcd/12.log",
	}
	if diff := cmp.Diff(want, Logs("/logs", []corev1.Pod{pod})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
