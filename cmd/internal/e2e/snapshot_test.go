//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// snapshot is everything about a machine that init may change and reset must put back.
type snapshot struct {
	Files, Mounts, Processes, Cgroups, Namespaces, Containers []string
}

// take looks at the machine. What changes by itself is left out: process tables, caches of the tests' own tools.
func take(t *testing.T) snapshot {
	t.Helper()
	return snapshot{Files: files(t), Mounts: mounts(t), Processes: processes(t), Cgroups: cgroups(t), Namespaces: namespaces(t), Containers: containers(t)}
}

// roots are the trees that a control plane has business in.
var roots = []string{"/etc", "/var/lib", "/var/log", "/run", "/opt", "/usr/local", "/root/.kube"}

// changing are paths that other programs write while a test runs.
func changing(path string) bool {
	return slices.ContainsFunc([]string{"/var/log/apt", "/var/log/journal", "/var/lib/apt", "/var/lib/dpkg", "/run/utmp", "/run/lock", "/var/log/wtmp",
		"/run/mount", "/etc/mtab", "/usr/local/go", "/usr/local/lib"}, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

func files(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				if os.IsNotExist(err) {
					return nil
				}
				return err
			}
			if changing(path) {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return nil // gone in between
			}
			line := fmt.Sprintf("%s %v", path, info.Mode())
			if info.Mode().IsRegular() && info.Size() < 1<<20 {
				if data, err := os.ReadFile(path); err == nil {
					line += fmt.Sprintf(" %x", sha256.Sum256(data))
				}
			}
			out = append(out, line)
			return nil
		})
		if err != nil {
			t.Fatalf("walking %s: %v", root, err)
		}
	}
	return out
}

func mounts(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		out = append(out, fields[3]+" "+fields[4])
	}
	slices.Sort(out)
	return out
}

// programs are what init starts, directly or through containerd. A name with more behind it counts too.
var programs = []string{"containerd", "slipway", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "pause", "runc"}

// processes are the command lines of everything that could be left over.
func processes(t *testing.T) []string {
	t.Helper()
	var out []string
	dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range dirs {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		line := strings.TrimSpace(strings.ReplaceAll(string(data), "\x00", " "))
		name, _, _ := strings.Cut(line, " ")
		if slices.ContainsFunc(programs, func(p string) bool { return strings.HasPrefix(filepath.Base(name), p) }) {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

func cgroups(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// namespaces are the network namespaces that have a name.
func namespaces(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"/run/netns/*", "/var/run/netns/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// containers are what the distribution's own containerd keeps, which slipway must not touch.
func containers(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"/var/lib/containerd/*", "/run/containerd/*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// same fails the test with what differs between two looks at the machine.
func same(t *testing.T, before, after snapshot) {
	t.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the machine is not as it was (- before, + after):\n%s", diff)
	}
}
