package bench

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMedianIsTheMiddleOfTheSortedValues(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{8, 2, 4, 6}, 5},
	} {
		given := append([]float64(nil), tc.values...)
		if got := median(tc.values); got != tc.want {
			t.Errorf("median(%v) = %v, want %v", tc.values, got, tc.want)
		}
		if diff := cmp.Diff(given, tc.values); diff != "" {
			t.Errorf("median reorders what it is given:\n%s", diff)
		}
	}
}

func TestTableAlignsItsColumns(t *testing.T) {
	got := table([]string{"what", "median"}, [][]string{{"init", duration(2518 * time.Millisecond)}, {"dry run, ≤ 60 ms", duration(41600 * time.Microsecond)}})
	want := `| what             | median |
| ---------------- | ------ |
| init             | 2.52 s |
| dry run, ≤ 60 ms | 42 ms  |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("table (- want, + got):\n%s", diff)
	}
}

func TestDurationChangesItsUnitAtASecond(t *testing.T) {
	for d, want := range map[time.Duration]string{
		999400 * time.Microsecond: "999 ms", 999600 * time.Microsecond: "1.00 s", 6615 * time.Millisecond: "6.62 s",
	} {
		if got := duration(d); got != want {
			t.Errorf("duration(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestTargetSaysWhetherItIsMet(t *testing.T) {
	if got, want := target(0.65, 0.65, "%.2f"), "≤ 0.65: met"; got != want {
		t.Errorf("at the limit: %q, want %q", got, want)
	}
	if got, want := target(31, 30, "%.0f MB"), "≤ 30 MB: missed"; got != want {
		t.Errorf("above the limit: %q, want %q", got, want)
	}
}
