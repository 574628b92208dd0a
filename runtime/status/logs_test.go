package status

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// at begins the lines of a CRI log.
const at = "2026-03-01T12:00:00.000000000Z "

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestDecode(t *testing.T) {
	for name, c := range map[string]struct{ log, want string }{
		"lines of both streams":     {at + "stdout F one\n" + at + "stderr F two\n", "one\ntwo\n"},
		"parts are joined":          {at + "stdout P one \n" + at + "stdout P two \n" + at + "stdout F three\n", "one two three\n"},
		"empty lines":               {at + "stdout F \n" + at + "stdout F x\n", "\nx\n"},
		"spaces are kept":           {at + "stdout F   a  b \n", "  a  b \n"},
		"other lines as they are":   {"not a log\n", "not a log\n"},
		"an unfinished line is not": {at + "stdout F one\n" + at + "stdout F tw", "one\n"},
		"no log":                    {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "0.log")
			write(t, path, c.log)
			var out bytes.Buffer
			if err := CopyLog(t.Context(), path, LogOptions{Tail: -1}, &out); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want {
				t.Errorf("got %q, want %q", out.String(), c.want)
			}
			// In the smallest pieces it comes to the same.
			var d decoder
			for i := range len(c.log) {
				d.decode([]byte(c.log[i : i+1]))
			}
			if d.text.String() != c.want {
				t.Errorf("byte by byte %q, want %q", d.text.String(), c.want)
			}
		})
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	write(t, path, strings.Repeat(at+"stdout F old\n", 50_000)) // more than the window
	write(t, path, at+"stdout P la\n"+at+"stdout F st\n")
	for n, want := range map[int][]string{0: nil, 1: {"last"}, 3: {"old", "old", "last"}} {
		got, err := Tail(path, n)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the last %d lines: %q, want %q", n, got, want)
		}
	}
	empty := filepath.Join(t.TempDir(), "0.log")
	write(t, empty, "")
	if got, err := Tail(empty, 5); err != nil || got != nil {
		t.Errorf("of an empty log: %q, %v", got, err)
	}
}

func TestFindLog(t *testing.T) {
	dir := t.TempDir()
	old := filepath.Join(dir, "kube-system_etcd-n1_1", "etcd", "7.log")
	write(t, old, "")
	if err := os.Chtimes(old, noon, noon); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "kube-system_etcd-n1_2", "etcd", "9.log"), "")
	latest := filepath.Join(dir, "kube-system_etcd-n1_2", "etcd", "10.log")
	write(t, latest, "")
	write(t, latest+".20260301-120000", "rotated")
	write(t, filepath.Join(dir, "kube-system_two-n1_1", "a", "0.log"), "")
	write(t, filepath.Join(dir, "kube-system_two-n1_1", "b", "0.log"), "")
	write(t, filepath.Join(dir, "kube-system_mute-n1_1", "mute", "x.txt"), "")

	for _, c := range []struct {
		pod, container string
		attempt        int
		want, err      string
	}{
		{"etcd-n1", "", NewestAttempt, latest, ""},
		{"etcd-n1", "etcd", NewestAttempt, latest, ""},
		{"etcd-n1", "etcd", PreviousAttempt, logOf(filepath.Dir(latest), 9), ""},
		{"etcd-n1", "etcd", 9, logOf(filepath.Dir(latest), 9), ""},
		{"etcd-n1", "etcd", 7, "", "reading the log of kube-system/etcd-n1: there is no log yet of attempt 7"},
		{"two-n1", "b", NewestAttempt, filepath.Join(dir, "kube-system_two-n1_1", "b", "0.log"), ""},
		{"two-n1", "b", PreviousAttempt, "", "there is no log yet of an attempt before the newest, which is number 0"},
		{"two-n1", "c", NewestAttempt, "", "reading the log of container c of kube-system/two-n1: there is no log yet; there are logs of a, b"},
		{"two-n1", "", NewestAttempt, "", "several containers, name one of: a, b"},
		{"mute-n1", "", NewestAttempt, "", ErrNoLog.Error()},
		{"none-n1", "", NewestAttempt, "", ErrNoLog.Error()},
	} {
		got, err := FindLog(dir, LogOf{"kube-system", c.pod, c.container, c.attempt})
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s %q %d: %q, %v; want %q, %s", c.pod, c.container, c.attempt, got, err, c.want, c.err)
		}
	}
}

// follower reads a log on a goroutine of its own; what it has read can be waited for.
type follower struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
	end  context.CancelFunc
	done chan error
}

func follow(t *testing.T, path string, o LogOptions) *follower {
	o.Follow = true
	ctx, cancel := context.WithCancel(t.Context())
	f := &follower{news: make(chan struct{}, 1), end: cancel, done: make(chan error, 1)}
	go func() { f.done <- CopyLog(ctx, path, o, f) }()
	t.Cleanup(cancel)
	return f
}

func (f *follower) Write(p []byte) (int, error) {
	f.mu.Lock()
	f.text.Write(p)
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (f *follower) expect(t *testing.T, want string) {
	t.Helper()
	for {
		f.mu.Lock()
		got := f.text.String()
		f.mu.Unlock()
		if got == want {
			return
		}
		select {
		case <-f.news:
		case err := <-f.done:
			t.Fatalf("it ended with %v after %q, want %q", err, got, want)
		case <-time.After(10 * time.Second):
			same := 0
			for same < min(len(got), len(want)) && got[same] == want[same] {
				same++
			}
			t.Fatalf("after %d bytes came %.100q, want %.100q", same, got[same:], want[same:])
		}
	}
}

// TestFollow goes on with what is appended, with the next attempts, none left out, and with a rotated log's successor.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	write(t, path, at+"stdout F one\n")
	f := follow(t, path, LogOptions{Tail: -1})
	f.expect(t, "one\n")
	write(t, path, at+"stdout F tw")
	write(t, path, "o\n")
	f.expect(t, "one\ntwo\n")

	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	write(t, path, at+"stdout F three\n")
	f.expect(t, "one\ntwo\nthree\n")

	next := filepath.Join(filepath.Dir(path), "1.log")
	write(t, next, at+"stdout F four\n")
	write(t, filepath.Join(filepath.Dir(path), "2.log"), at+"stdout F five\n")
	f.expect(t, "one\ntwo\nthree\nfour\nfive\n")

	f.end()
	if err := <-f.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

// TestFollowEndsWithThePod returns when the log's directory is removed.
func TestFollowEndsWithThePod(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd", "0.log")
	write(t, path, at+"stdout F one\n")
	f := follow(t, path, LogOptions{Tail: -1})
	f.expect(t, "one\n")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	if err := <-f.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
}
