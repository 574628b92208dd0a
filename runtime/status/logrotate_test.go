package status

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rotate does what the kubelet does to a log: another name, and after that the runtime opens a new file.
func rotate(t *testing.T, path, stamp string) string {
	t.Helper()
	rotated := path + "." + stamp
	if err := os.Rename(path, rotated); err != nil {
		t.Error(err)
	}
	return rotated
}

// squeeze compresses a rotated log as the kubelet does: into a temporary file, which takes the name, and then the
// original goes.
func squeeze(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, werr := z.Write(data)
	if err := errors.Join(err, werr, z.Close(), os.WriteFile(path+".tmp", out.Bytes(), 0o644), os.Rename(path+".tmp", path+".gz"), os.Remove(path)); err != nil {
		t.Error(err)
	}
}

// rotatedLog has the lines 1 to 6 in four files: compressed, rotated twice, and the one that is written to.
func rotatedLog(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	line := func(n int) string { return fmt.Sprintf("2026-03-01T12:00:%02d.5Z stdout F %d\n", n, n) }
	write(t, path, line(1)+line(2))
	squeeze(t, rotate(t, path, "20260301-120001"))
	write(t, path, line(3)+"2026-03-01T12:00:04.5Z stdout P 4 be")
	write(t, path, "\n")
	rotate(t, path, "20260301-120002")
	write(t, path, "2026-03-01T12:00:04.6Z stdout F gun\n"+line(5))
	rotate(t, path, "20260301-120003")
	write(t, path, line(6))
	write(t, path+".20260301-120003.tmp", "half of a copy")
	write(t, path+".20260301-120003.gz", "a copy whose original is still there")
	write(t, filepath.Join(filepath.Dir(path), "1.log"), line(7))
	return path
}

func read(t *testing.T, path string, o LogOptions) []string {
	t.Helper()
	var out bytes.Buffer
	if err := CopyLog(t.Context(), path, o, &out); err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// TestRotatedLogIsOne reads what was rotated away as the beginning of the log.
func TestRotatedLogIsOne(t *testing.T) {
	path := rotatedLog(t)
	all := []string{"1", "2", "3", "4 begun", "5", "6"}
	if got := read(t, path, LogOptions{Tail: -1}); !slices.Equal(got, all) {
		t.Errorf("the whole log: %q, want %q", got, all)
	}
	for n := 1; n <= len(all)+2; n++ {
		want := all[max(0, len(all)-n):]
		if got := read(t, path, LogOptions{Tail: n}); !slices.Equal(got, want) {
			t.Errorf("the last %d lines: %q, want %q", n, got, want)
		}
		if got, err := Tail(path, n); err != nil || !slices.Equal(got, want) {
			t.Errorf("Tail(%d): %q, %v, want %q", n, got, err, want)
		}
	}
	for second := range 8 {
		since := time.Date(2026, 3, 1, 12, 0, second, 0, time.UTC)
		want := append([]string{}, all[max(0, min(second-1, len(all))):]...)
		if len(want) == 0 {
			want = []string{""}
		}
		if got := read(t, path, LogOptions{Tail: -1, Since: since}); !slices.Equal(got, want) {
			t.Errorf("since %v: %q, want %q", since, got, want)
		}
	}
	want := []string{"2026-03-01T12:00:04.5Z 4 begun", "2026-03-01T12:00:05.5Z 5", "2026-03-01T12:00:06.5Z 6"}
	if got := read(t, path, LogOptions{Tail: 3, Timestamps: true}); !slices.Equal(got, want) {
		t.Errorf("with times: %q, want %q", got, want)
	}
}

// TestTailOfALongLog finds the end of a log without the whole of it, wherever its lines lie to the blocks that it reads.
func TestTailOfALongLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var text strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&text, "%sstdout P %d %s\n%sstdout F .\n", at, i, strings.Repeat("x", i%97), at)
	}
	write(t, path, text.String())
	for _, n := range []int{1, 500, 1000, 5000, 19_999, 20_000, 30_000} {
		got := read(t, path, LogOptions{Tail: n})
		first := max(0, 20_000-n)
		if want := fmt.Sprintf("%d %s.", first, strings.Repeat("x", first%97)); len(got) != 20_000-first || got[0] != want {
			t.Errorf("the last %d: %d lines from %q, want %d from %q", n, len(got), got[0], 20_000-first, want)
		}
	}
	if got, err := Tail(path, 20_000); err != nil || len(strings.Join(got, "\n")) > tailWindow || got[len(got)-1] != fmt.Sprintf("%d %s.", 19_999, strings.Repeat("x", 19_999%97)) {
		t.Errorf("Tail of more than a window: %d lines, %d bytes, %v", len(got), len(strings.Join(got, "\n")), err)
	}
	// What has no lines at all is not collected.
	var d decoder
	for range 3 {
		d.decode(bytes.Repeat([]byte("x"), maxLine))
	}
	if len(d.rest) > maxLine {
		t.Errorf("%d bytes without a line are kept", len(d.rest))
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 3*maxLine), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Tail(path, 1); err != nil || len(got) > 3 {
		t.Errorf("of bytes without a line: %d lines, %v", len(got), err)
	}
}

// TestReadWhileItRotates misses nothing and reads nothing twice between a file that is renamed and the one that takes its
// place, and while files are compressed.
func TestReadWhileItRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	write(t, path, at+"stdout F 0\n")
	turn, done := make(chan struct{}), make(chan struct{})
	go func() { // one rotation to each reading, at any moment of it
		defer close(done)
		var rotated []string
		for n := 1; n < 100; n++ {
			<-turn
			if n > 2 && n%3 == 0 {
				squeeze(t, rotated[n-3])
			}
			rotated = append(rotated, rotate(t, path, fmt.Sprintf("20260301-120%03d", n)))
			write(t, path, fmt.Sprintf("%sstdout F %d\n", at, n))
		}
	}()
	for ended := false; !ended; {
		select {
		case turn <- struct{}{}:
		case <-done:
			ended = true
		}
		for i, line := range read(t, path, LogOptions{Tail: -1}) {
			if line != fmt.Sprint(i) {
				t.Errorf("line %d is %q", i, line)
				break
			}
		}
	}
}

// TestWhatIsRotatedMeanwhile is newer than the open file, or is that file, and may have been compressed since it was
// listed.
func TestWhatIsRotatedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	write(t, path, at+"stdout F one\n")
	rotate(t, path, "20260301-120001")
	write(t, path, at+"stdout F two\n")
	current, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	mine := rotate(t, path, "20260301-120002")
	write(t, path, at+"stdout F three\n")
	rotate(t, path, "20260301-120003")
	write(t, path, at+"stdout F four\n")

	files, rotated, err := openBefore(path, current, time.Time{})
	if err != nil || len(files) != 2 || files[1] != current || len(rotated) != 1 || !strings.HasSuffix(rotated[0], "120001") {
		t.Errorf("%d files, rotated %q, %v; want the oldest one and that which is open", len(files), rotated, err)
	}
	closeAll(files)
	squeeze(t, mine)
	w := logWatch{path: path, done: map[string]bool{}}
	f, err := w.open([]string{mine})
	if err != nil || f == nil || !strings.HasSuffix(f.Name(), "120002.gz") {
		t.Fatalf("after its compression: %v, %v", f, err)
	}
	f.Close()
}

// TestFollowFromTheEnd begins with the last lines and goes on.
func TestFollowFromTheEnd(t *testing.T) {
	for n, begin := range map[int]string{1: "6\n", 3: "4 begun\n5\n6\n"} {
		path := rotatedLog(t)
		os.Remove(filepath.Join(filepath.Dir(path), "1.log"))
		f := follow(t, path, LogOptions{Tail: n})
		f.expect(t, begin)
		write(t, path, at+"stdout F new\n")
		f.expect(t, begin+"new\n")
		rotate(t, path, "20260301-120009")
		write(t, path, at+"stdout F newer\n")
		f.expect(t, begin+"new\nnewer\n")
		f.end()
		if err := <-f.done; err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}

// TestFollowLosesNothing rotates faster than a reader may look, compresses what it reads, and starts the next attempt
// with a rotated log: every line comes once and in order.
func TestFollowLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	n, want := 0, ""
	line := func() string {
		n++
		want += fmt.Sprintf("%d\n", n)
		return fmt.Sprintf("%sstdout F %d\n", at, n)
	}
	write(t, path, line())
	f := follow(t, path, LogOptions{Tail: -1})
	f.expect(t, want)
	var rotated []string
	for i := range 300 {
		write(t, path, line())
		if n := len(rotated); n > 0 && i%3 > 0 {
			squeeze(t, rotated[n-1])
		}
		last := rotate(t, path, fmt.Sprintf("20260301-120%03d", i))
		rotated = append(rotated, last)
		if i%2 == 0 {
			write(t, last, line()) // by a runtime that was not yet told
		}
		write(t, path, line())
		if i%8 == 7 { // it keeps up, and what is too much goes
			f.expect(t, want)
			for _, old := range rotated[:len(rotated)-1] {
				os.Remove(old)
				os.Remove(old + ".gz")
			}
			rotated = rotated[len(rotated)-1:]
		}
	}
	f.expect(t, want)
	next := filepath.Join(filepath.Dir(path), "1.log")
	staged := filepath.Join(t.TempDir(), "1.log")
	write(t, next+".20260301-130000", line())
	write(t, staged, line())
	if err := os.Rename(staged, next); err != nil {
		t.Fatal(err)
	}
	f.expect(t, want)
	f.end()
	if err := <-f.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
