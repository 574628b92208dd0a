package status

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrNoLog is returned when a container has not written such a log.
var ErrNoLog = errors.New("there is no log yet")

// Attempts of a container that LogOf can ask for besides a number.
const (
	NewestAttempt   = -1
	PreviousAttempt = -2 // the one before the newest
)

// LogOf names a log.
type LogOf struct {
	Namespace, Pod string
	Container      string // "" means the pod's only one
	Attempt        int    // a number from 0, NewestAttempt or PreviousAttempt
}

// FindLog returns the file that an attempt of a container writes to: <podLogs>/<namespace>_<pod>_<uid>/<container>/
// <attempt>.log in the directory that was changed last. Files that were rotated away lie beside it. The error is
// ErrNoLog where there is no such attempt.
func FindLog(podLogs string, l LogOf) (string, error) {
	any := l.Container
	if any == "" {
		any = "*"
	}
	dirs, err := filepath.Glob(filepath.Join(podLogs, l.Namespace+"_"+l.Pod+"_*", any))
	if err != nil {
		return "", fmt.Errorf("finding the logs of %s/%s: %w", l.Namespace, l.Pod, err)
	}
	var newest string
	var changed int64
	names := map[string]bool{}
	for _, dir := range dirs {
		names[filepath.Base(dir)] = true
		if at := lastChange(dir); at >= changed && at > 0 {
			newest, changed = dir, at
		}
	}
	if l.Container == "" && len(names) > 1 {
		return "", fmt.Errorf("pod %s/%s has several containers, name one of: %s", l.Namespace, l.Pod, strings.Join(sorted(names), ", "))
	}
	if others := containersOf(podLogs, l); newest == "" && len(dirs) == 0 && len(others) > 0 {
		return "", fmt.Errorf("reading the log of container %s of %s/%s: %w; there are logs of %s", l.Container, l.Namespace, l.Pod, ErrNoLog, strings.Join(others, ", "))
	}
	if newest == "" {
		return "", fmt.Errorf("reading the log of %s/%s below %s: %w", l.Namespace, l.Pod, podLogs, ErrNoLog)
	}
	attempt, err := pick(attemptsIn(newest), l.Attempt)
	if err != nil {
		return "", fmt.Errorf("reading the log of %s/%s: %w", l.Namespace, l.Pod, err)
	}
	return logOf(newest, attempt), nil
}

// containersOf names the containers of a pod that have a directory for logs.
func containersOf(podLogs string, l LogOf) []string {
	dirs, err := filepath.Glob(filepath.Join(podLogs, l.Namespace+"_"+l.Pod+"_*", "*"))
	if err != nil {
		return nil // FindLog has said so
	}
	names := map[string]bool{}
	for _, dir := range dirs {
		names[filepath.Base(dir)] = true
	}
	return sorted(names)
}

// pick returns the attempt that is asked for; all is in order and not empty.
func pick(all []int, which int) (int, error) {
	switch {
	case which == NewestAttempt:
		return all[len(all)-1], nil
	case which == PreviousAttempt && len(all) > 1:
		return all[len(all)-2], nil
	case which == PreviousAttempt:
		return 0, fmt.Errorf("%w of an attempt before the newest, which is number %d", ErrNoLog, all[len(all)-1])
	case slices.Contains(all, which):
		return which, nil
	}
	return 0, fmt.Errorf("%w of attempt %d", ErrNoLog, which)
}

func sorted(set map[string]bool) []string {
	var out []string
	for k := range set {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// lastChange is when the newest attempt of a container's directory was last written, in nanoseconds since the epoch; 0
// where there is none.
func lastChange(dir string) int64 {
	all := attemptsIn(dir)
	if len(all) == 0 {
		return 0
	}
	info, err := os.Stat(logOf(dir, all[len(all)-1]))
	if err != nil {
		return 0
	}
	return info.ModTime().UnixNano()
}

// attemptsIn returns the attempts that have a log in a container's directory, in order.
func attemptsIn(dir string) []int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []int
	for _, e := range entries {
		number, isLog := strings.CutSuffix(e.Name(), ".log")
		if n, err := strconv.Atoi(number); isLog && err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

func logOf(dir string, attempt int) string { return filepath.Join(dir, strconv.Itoa(attempt)+".log") }

// compressed ends the name of a rotated log that was compressed since.
const compressed = ".gz"

// rotatedOf returns the files that were rotated away from a log, oldest first: <log>.<20060102-150405>, later with
// ".gz". A copy that is being compressed still is left out, and so is one that lies beside its original.
func rotatedOf(path string) ([]string, error) {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %q: %w", dir, err)
	}
	var out []string
	for _, e := range entries { // sorted by name, and so by time, an original before its compressed copy
		stamp, ok := strings.CutPrefix(e.Name(), name+".")
		if !ok || strings.HasSuffix(stamp, ".tmp") {
			continue
		}
		full := filepath.Join(dir, e.Name())
		if n := len(out); n > 0 && full == out[n-1]+compressed {
			continue
		}
		out = append(out, full)
	}
	return out, nil
}
