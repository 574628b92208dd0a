package garbage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/slipway-k8s/slipway/runtime/event"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

func TestPlan(t *testing.T) {
	const hour = time.Hour
	policy := Policy{High: 85, Low: 80, MinAge: 2 * time.Minute}
	aging := policy
	aging.MaxAge = 24 * hour
	images := []Image{
		{ID: "sha256:1", Refs: []string{"docker.io/library/old:1"}, Size: 10},
		{ID: "sha256:2", Refs: []string{"docker.io/library/app:1"}, Size: 10},
		{ID: "sha256:3", Refs: []string{"docker.io/library/older:1"}, Size: 10},
		{ID: "sha256:4", Refs: []string{"docker.io/library/new:1"}, Size: 10},
		{ID: "sha256:5", Refs: []string{"docker.io/library/pinned:1"}, Size: 10, Pinned: true},
		{ID: "sha256:6", Refs: []string{"docker.io/library/never:1"}, Size: 10},
	}
	records := map[string]Record{
		"sha256:1": {FirstSeen: ago(90 * hour), LastUsed: ago(hour)},
		"sha256:2": {FirstSeen: ago(90 * hour), LastUsed: ago(50 * hour)},
		"sha256:3": {FirstSeen: ago(90 * hour), LastUsed: ago(30 * hour)},
		"sha256:4": {FirstSeen: ago(time.Minute)},
		"sha256:5": {FirstSeen: ago(90 * hour)},
		"sha256:6": {FirstSeen: ago(3 * hour)},
	}
	app := NamesOf([]string{"app:1"})
	for _, c := range []struct {
		name   string
		policy Policy
		free   uint64 // of 100
		kept   Names
		began  time.Time
		want   []string // Old: and Spare: in order, and the goal
	}{
		{"room enough", policy, 16, app, ago(90 * hour), nil},
		{"at the threshold: never used, then least lately used, to the lower one", policy, 15, app, ago(90 * hour),
			[]string{"spare never", "spare older", "spare old", "goal 20"}},
		{"what is kept by its id", policy, 0, NamesOf([]string{"sha256:1", "sha256:6"}), ago(90 * hour), []string{"spare app", "spare older", "goal 20"}},
		{"nothing is kept", policy, 15, nil, ago(90 * hour), []string{"spare never", "spare app", "spare older", "spare old", "goal 20"}},
		{"too old, with room enough", aging, 90, app, ago(25 * hour), []string{"old older"}},
		{"too old, and no room", aging, 10, app, ago(25 * hour), []string{"old older", "spare never", "spare old", "goal 20"}},
		{"too old as far as it is known, but little is known", aging, 90, nil, ago(24 * hour), nil},
		{"switched off", Policy{High: 100, Low: 80}, 0, nil, ago(90 * hour), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := c.policy.Plan(Usage{Capacity: 100, Available: c.free}, images, records, c.kept, c.began, noon)
			var got []string
			name := func(i Image) string {
				return strings.TrimSuffix(strings.TrimPrefix(i.Refs[0], "docker.io/library/"), ":1")
			}
			for _, i := range plan.Old {
				got = append(got, "old "+name(i))
			}
			for _, i := range plan.Spare {
				got = append(got, "spare "+name(i))
			}
			if plan.Goal > 0 {
				got = append(got, fmt.Sprint("goal ", plan.Goal))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNote(t *testing.T) {
	images := []Image{{ID: "used"}, {ID: "idle"}, {ID: "new"}}
	records := map[string]Record{"used": {FirstSeen: ago(3)}, "idle": {FirstSeen: ago(3), LastUsed: ago(2)}, "gone": {FirstSeen: ago(3)}}
	want := map[string]Record{
		"used": {FirstSeen: ago(3), LastUsed: noon}, "idle": {FirstSeen: ago(3), LastUsed: ago(2)}, "new": {FirstSeen: noon},
	}
	if diff := cmp.Diff(want, Note(records, images, NamesOf([]string{"used"}), noon)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNames(t *testing.T) {
	const digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	image := Image{ID: "sha256:1", Refs: []string{"docker.io/library/nginx:latest", "docker.io/library/nginx@" + digest}}
	for ref, want := range map[string]bool{
		"nginx": true, "nginx:latest": true, "docker.io/nginx": true, "docker.io/library/nginx:latest": true, "sha256:1": true,
		"nginx@" + digest: true, "nginx:1.27@" + digest: true, // the digest decides, as in containerd
		"nginx:1.27": false, "example.com/nginx": false, "": false, "Not A Reference": false,
	} {
		if got := NamesOf([]string{ref}).Have(image); got != want {
			t.Errorf("%q: %t, want %t", ref, got, want)
		}
	}
	if NamesOf([]string{""}).Have(Image{ID: "", Refs: []string{""}}) {
		t.Error("no name matches an image without one")
	}
}

func TestPercent(t *testing.T) {
	for _, c := range []struct {
		usage Usage
		want  int
	}{
		{Usage{1000, 150}, 85}, {Usage{1000, 151}, 85}, {Usage{1000, 149}, 86}, {Usage{1000, 1000}, 0}, {Usage{1000, 2000}, 0}, {Usage{}, 100},
	} {
		if got := c.usage.Percent(); got != c.want {
			t.Errorf("%+v: %d %%, want %d", c.usage, got, c.want)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	got, err := ParsePolicy(nil, nil, 0, 0)
	if want := (Policy{High: 85, Low: 80, MinAge: 2 * time.Minute}); got != want || err != nil {
		t.Errorf("defaults: %+v, %v", got, err)
	}
	got, err = ParsePolicy(ptr.To[int32](100), ptr.To[int32](0), time.Second, time.Hour)
	if want := (Policy{High: 100, Low: 0, MinAge: time.Second, MaxAge: time.Hour}); got != want || err != nil || got.off() {
		t.Errorf("set: %+v, %v", got, err)
	}
	_, err = ParsePolicy(ptr.To[int32](101), ptr.To[int32](-1), -1, -1)
	for _, want := range []string{"imageGCHighThresholdPercent 101", "imageGCLowThresholdPercent -1", "imageMinimumGCAge -1ns", "imageMaximumGCAge -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	for _, low := range []int32{85, 86} {
		if _, err := ParsePolicy(nil, &low, 0, 0); err == nil {
			t.Errorf("a low threshold of %d is not below the high one", low)
		}
	}
	if _, err := ParsePolicy(nil, nil, time.Hour, time.Minute); err == nil {
		t.Error("a maximum age below the minimum is taken")
	}
}

func TestImagesOf(t *testing.T) {
	pod := corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Image: "init"}}, Containers: []corev1.Container{{Image: "a"}, {Image: "b"}},
		Volumes: []corev1.Volume{{}, {VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "data"}}}},
	}}
	if diff := cmp.Diff([]string{"init", "a", "b", "data"}, ImagesOf([]corev1.Pod{pod})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// store is a runtime's image store: each image is a file of its size, on a real file system or not.
type store struct {
	images  []Image
	used    []string
	wanted  []string
	free    uint64 // of 1000, where the file system is not a real one
	dir     string
	fails   map[string]error // by function
	removed []string
}

func (s *store) collector(events *event.Log) *Images {
	return &Images{
		Policy: Policy{High: 85, Low: 80, MinAge: 2 * time.Minute},
		List:   func(context.Context) ([]Image, error) { return slices.Clone(s.images), s.fails["list"] },
		Used:   func(context.Context) ([]string, error) { return s.used, s.fails["used"] },
		Wanted: func(context.Context) ([]string, error) { return s.wanted, s.fails["wanted"] },
		Remove: func(_ context.Context, id string) error {
			if err := s.fails[id]; err != nil {
				return err
			}
			s.removed = append(s.removed, id)
			i := slices.IndexFunc(s.images, func(i Image) bool { return i.ID == id })
			s.free += uint64(s.images[i].Size)
			s.images = slices.Delete(s.images, i, i+1)
			if s.dir != "" {
				return os.Remove(filepath.Join(s.dir, id))
			}
			return nil
		},
		Dir:    func(context.Context) (string, error) { return s.dir, s.fails["dir"] },
		Usage:  func(string) (Usage, error) { return Usage{Capacity: 1000, Available: s.free}, s.fails["usage"] },
		Events: events,
	}
}

func image(id string, size int64) Image { return Image{ID: id, Refs: []string{id + ":1"}, Size: size} }

func reasons(log *event.Log) (out []string) {
	events, _ := log.Since(0)
	for _, e := range events {
		out = append(out, e.Type+" "+e.Reason+": "+e.Message)
	}
	return out
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestCollect: the first look knows no ages; the next one frees down to the lower threshold and no further, and spares
// what is in use, wanted, protected or pinned.
func TestCollect(t *testing.T) {
	pinned := image("0-pinned", 100) // by their names these four would be the first to go
	pinned.Pinned = true
	s := &store{
		images: []Image{image("a", 60), image("b", 60), image("c", 60), image("0-used", 100), image("0-wanted", 100), image("0-protected", 100), pinned},
		used:   []string{"0-used"}, wanted: []string{"0-wanted:1"}, free: 100,
	}
	log := event.NewLog(func() time.Time { return noon })
	g := s.collector(log)
	g.Protected = []string{"0-protected:1"}
	for i, now := range []time.Time{noon, noon.Add(time.Minute), noon.Add(2 * time.Minute), noon.Add(7 * time.Minute)} {
		if err := g.collect(t.Context(), now, quiet()); err != nil {
			t.Fatal(err)
		}
		if i < 2 && len(s.removed) > 0 {
			t.Fatalf("after %s %q were removed: they may have been pulled just now", now.Sub(noon), s.removed)
		}
	}
	if diff := cmp.Diff([]string{"a", "b"}, s.removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	got := reasons(log)
	// Twice there was nothing old enough.
	want := "Normal ImageGCSucceeded: removed 2 unused images and freed 120 B: the file system of  was 90 % full, now 78 % (a:1, b:1)"
	if len(got) != 2 || got[1] != want || !strings.HasPrefix(got[0], "Warning FreeDiskSpaceFailed: removed 0 unused images") {
		t.Errorf("events:\n%s", strings.Join(got, "\n"))
	}
	if !maps.EqualFunc(g.records, map[string]Record{"c": {}, "0-used": {}, "0-wanted": {}, "0-protected": {}, "0-pinned": {}}, func(Record, Record) bool { return true }) {
		t.Errorf("records %v: want those of the images that are left", g.records)
	}
}

// TestCollectGoesByTheRuntimesCount where a file system does not show at once what was freed.
func TestCollectGoesByTheRuntimesCount(t *testing.T) {
	s := &store{images: []Image{image("a", 60), image("b", 60), image("c", 60)}, free: 100}
	g := s.collector(nil)
	g.Usage = func(string) (Usage, error) { return Usage{Capacity: 1000, Available: 100}, nil }
	for _, now := range []time.Time{noon, noon.Add(5 * time.Minute)} {
		if err := g.collect(t.Context(), now, quiet()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"a", "b"}, s.removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
}

// TestCollectFails: an image that cannot be removed does not keep the others; it is told.
func TestCollectFails(t *testing.T) {
	s := &store{images: []Image{image("a", 60), image("b", 60)}, free: 100, fails: map[string]error{"a": errors.New("removing image: it is stuck")}}
	log := event.NewLog(func() time.Time { return noon })
	g := s.collector(log)
	g.records, g.began = map[string]Record{"a": {FirstSeen: ago(time.Hour)}, "b": {FirstSeen: ago(time.Hour)}}, ago(time.Hour)
	if err := g.collect(t.Context(), noon, quiet()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b"}, s.removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	got := reasons(log)
	if len(got) != 2 || !strings.Contains(got[1], "Warning FreeDiskSpaceFailed") || !strings.Contains(got[1], "wanted are 80 %") || !strings.HasSuffix(got[1], "it is stuck") {
		t.Errorf("events:\n%s", strings.Join(got, "\n"))
	}
}

// TestNothingIsRemovedInDoubt: whatever cannot be found out ends the round before anything is removed.
func TestNothingIsRemovedInDoubt(t *testing.T) {
	for _, what := range []string{"list", "used", "wanted", "dir", "usage"} {
		fault := errors.New("no answer")
		s := &store{images: []Image{image("a", 60)}, free: 0, fails: map[string]error{what: fault}}
		g := s.collector(nil)
		g.records = map[string]Record{"a": {FirstSeen: ago(time.Hour)}}
		if err := g.collect(t.Context(), noon, quiet()); !errors.Is(err, fault) || len(s.removed) > 0 {
			t.Errorf("%s: %v, removed %q", what, err, s.removed)
		}
	}
}

// TestThresholdsOfARealFileSystem needs a mount.
func TestThresholdsOfARealFileSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	const size, mib = 64, 1 << 20
	s := &store{dir: t.TempDir()}
	if err := unix.Mount("tmpfs", s.dir, "tmpfs", 0, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.dir, 0); err != nil {
			t.Error(err)
		}
	})
	add := func(id string, mibs int) {
		if err := os.WriteFile(filepath.Join(s.dir, id), make([]byte, mibs*mib), 0o600); err != nil {
			t.Fatal(err)
		}
		s.images = append(s.images, image(id, 1)) // the runtime's count is far too low: what counts is the disk
	}
	add("a", 10)
	add("b", 10)
	add("c", 10)
	add("used", 20)
	s.used = []string{"used"}
	log := event.NewLog(time.Now)
	g := s.collector(log)
	g.Usage = FileSystem
	round := func(now time.Time) {
		if err := g.collect(t.Context(), now, quiet()); err != nil {
			t.Fatal(err)
		}
	}
	round(noon)
	round(noon.Add(5 * time.Minute))
	if len(s.removed) > 0 {
		t.Fatalf("%q were removed at %d of %d MiB", s.removed, 50, size)
	}
	add("late", 5) // 55 MiB of 64 are 86 %; 51 are 80 %
	round(noon.Add(10 * time.Minute))
	if diff := cmp.Diff([]string{"a"}, s.removed); diff != "" {
		t.Errorf("removed (-want +got):\n%s\n%s", diff, reasons(log))
	}
	if got := reasons(log); len(got) != 1 || !strings.Contains(got[0], "freed 10.0 MiB") || !strings.Contains(got[0], "was 86 % full, now 71 %") {
		t.Errorf("events %q", got)
	}
	if _, err := FileSystem(filepath.Join(s.dir, "absent")); err == nil {
		t.Error("a directory that is not there has a usage")
	}
}
