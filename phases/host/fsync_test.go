package host

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFsyncLatencyLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	l, err := FsyncLatency(ctx, filepath.Join(dir, "not", "there"))
	must(t, err)
	if l.Dir != dir || l.Samples == 0 || l.P99 <= 0 || l.Enough() {
		t.Errorf("got %+v", l)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestPercentile99(t *testing.T) {
	var hundred, thousand []time.Duration
	for i := range 1000 {
		thousand = append(thousand, time.Duration(1000-i))
		if i < 100 {
			hundred = append(hundred, time.Duration(i+1))
		}
	}
	for _, tc := range []struct {
		values []time.Duration
		want   time.Duration
	}{{nil, 0}, {[]time.Duration{7}, 7}, {hundred, 99}, {thousand, 990}} {
		if got := percentile99(tc.values); got != tc.want {
			t.Errorf("of %d: %d, want %d", len(tc.values), got, tc.want)
		}
	}
}
