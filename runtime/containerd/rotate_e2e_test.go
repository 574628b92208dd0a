//go:build e2e

package containerd

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cri"
	"github.com/slipway-k8s/slipway/runtime/logrotate"
)

const subjectRef = "slipway.test/subject:1"

// testRotation floods logs while a rotator works.
func testRotation(t *testing.T, d *daemon, store *Store) {
	subject := testImage{refs: []string{subjectRef}, files: map[string][]byte{"subject": buildProgram(t, "../../testdata/images/subject")}}
	if _, err := store.Load(t.Context(), writeTar(t, filepath.Join(t.TempDir(), "subject.tar"), subject.docker(t)), nil); err != nil {
		t.Fatal(err)
	}
	client, err := cri.Dial(t.Context(), d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	t.Run("no line is lost", func(t *testing.T) {
		const lines = 2_000_000
		f := startFlood(t, d, client, logrotate.Policy{MaxSize: 1 << 20, MaxFiles: 1 << 20, Workers: 1}, fmt.Sprintf("spam:%d", 100*lines))
		f.wait(t)
		files := f.files(t)
		t.Logf("%d lines are in %d files", lines, len(files))
		f.mustBe(t, files, 0, lines)
		if len(files) < 10 {
			t.Errorf("%d files: there was hardly a rotation to lose lines in", len(files))
		}
	})
	const mib = 1 << 20
	for _, c := range []struct {
		name, step string
		over       int64 // how much more than size times files may be there for a moment
	}{
		// What comes within the second until the first look is over at most: 60 MB at the rate that containerd takes.
		{"a gigabyte as fast as it is taken", "spam:1000000000", 150 * mib},
		{"a gigabyte in a minute, 10 s of it", "flood:170000000:17000000", 10 * mib},
		{"a log that is rotated now and then", "flood:30000000:3000000", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			policy, err := logrotate.ParsePolicy("", nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			f := startFlood(t, d, client, policy, c.step)
			f.wait(t)
			limit := policy.MaxSize * int64(policy.MaxFiles)
			t.Logf("within %s up to %.1f MB of log, limit %.1f MB; up to %d files, the largest of %.1f MB", f.took.Round(time.Millisecond),
				float64(f.most)/1e6, float64(limit)/1e6, f.mostFiles, float64(f.largest)/1e6)
			if f.most > limit+c.over || f.mostFiles > policy.MaxFiles+2 { // one is being compressed, one is about to be removed
				t.Errorf("that is too much: %d bytes in %d files", f.most, f.mostFiles)
			}
			total, err := strconv.Atoi(strings.Split(c.step, ":")[1])
			if err != nil {
				t.Fatal(err)
			}
			f.mustBe(t, f.files(t), -1, total/100)
		})
	}
}

// flooding is a container that floods its log.
type flooding struct {
	client        *cri.Client
	id, log       string
	began         time.Time
	took          time.Duration
	most, largest int64 // bytes
	mostFiles     int
}

// startFlood starts the container and a rotator; both end with the test.
func startFlood(t *testing.T, d *daemon, client *cri.Client, policy logrotate.Policy, step string) *flooding {
	t.Helper()
	dir := filepath.Join(d.dir, "logs", strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "flood", Namespace: "test", Uid: "u"}, LogDirectory: dir,
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: cgroupParent(t), SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}
	sandbox, err := client.RunPodSandbox(t.Context(), pod, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.RemovePodSandbox(context.WithoutCancel(t.Context()), sandbox); err != nil {
			t.Error(err)
		}
	})
	id, err := client.CreateContainer(t.Context(), sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "app"}, Image: &runtimeapi.ImageSpec{Image: subjectRef},
		Command: []string{"/subject", step, "sleep:24h"}, LogPath: "0.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE, Pid: runtimeapi.NamespaceMode_CONTAINER},
		}},
	}, pod)
	if err != nil {
		t.Fatal(err)
	}
	f := &flooding{client: client, id: id, log: filepath.Join(dir, "0.log")}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r := &logrotate.Rotator{
		Policy: policy, Reopen: client.ReopenContainerLog, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Now: time.Now,
		Running: func(context.Context) (map[string]string, error) { return map[string]string{id: f.log}, nil },
	}
	if err := client.StartContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	f.began = time.Now()
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

// wait measures until nothing is written or compressed any more.
func (f *flooding) wait(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	last, since := "", time.Now()
	for range tick.C {
		entries, err := os.ReadDir(filepath.Dir(f.log))
		if err != nil {
			t.Fatal(err)
		}
		var total int64
		now := ""
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				continue // gone
			}
			total, f.largest = total+info.Size(), max(f.largest, info.Size())
			now += fmt.Sprintf("%s %d\n", info.Name(), info.Size())
		}
		f.most, f.mostFiles = max(f.most, total), max(f.mostFiles, len(entries))
		if now != last {
			last, since = now, time.Now()
			f.took = since.Sub(f.began)
		}
		if time.Since(since) > 3*time.Second {
			return
		}
		if time.Since(f.began) > 3*time.Minute {
			t.Fatal("the flood does not end")
		}
	}
}

// files returns the log's files, the oldest first.
func (f *flooding) files(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(f.log + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return append(files, f.log)
}

// mustBe checks that the files hold the lines from the first one, or from any one when first is below 0, to the one
// before end, without a gap.
func (f *flooding) mustBe(t *testing.T, files []string, first, end int) {
	t.Helper()
	next, part := first, ""
	for _, path := range files {
		for line := range strings.Lines(textOf(t, path)) {
			fields := strings.Fields(line)
			if len(fields) != 4 || fields[2] != "P" && fields[2] != "F" {
				t.Fatalf("%s: %q is no line of the flood", path, line)
			}
			part += fields[3]
			if fields[2] == "P" { // containerd divides the line that it is at when it opens the next file
				continue
			}
			n, err := strconv.Atoi(part)
			if err != nil || len(part) != 99 {
				if next < 0 && part == fields[3] {
					part, next = "", -1 // the end of a line whose beginning was removed
					continue
				}
				t.Fatalf("%s: %q is no line of the flood", path, part)
			}
			if next >= 0 && n != next {
				t.Fatalf("%s: line %d where line %d is due", path, n, next)
			}
			next, part = n+1, ""
		}
	}
	if next != end {
		t.Errorf("the log ends before line %d, want %d", next, end)
	}
}

func textOf(t *testing.T, path string) string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var in io.Reader = file
	if strings.HasSuffix(path, ".gz") {
		if in, err = gzip.NewReader(file); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	data, err := io.ReadAll(in)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return string(data)
}
