//go:build e2e

package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// debian is the release of the hosts, and what is in them: a minimal system that boots, and the distribution's own
// containerd and runc.
const debian = "bookworm"

var debianPackages = []string{"systemd", "systemd-sysv", "dbus", "iproute2", "ca-certificates", "procps", "containerd", "runc"}

// debianTree returns the files of a fresh Debian system with these packages more, which later runs find where the first
// one put them. They come from the mirrors that this machine's own apt uses.
func debianTree(t *testing.T, more ...string) string {
	t.Helper()
	packages := strings.Join(slices.Concat(debianPackages, more), ",")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256([]byte(debian + " " + packages))
	tree := filepath.Join(cache, "slipway", fmt.Sprintf("debian-%x", id[:6]))
	if _, err := os.Stat(tree); err == nil {
		return tree
	}
	if err := os.MkdirAll(filepath.Dir(tree), 0o755); err != nil {
		t.Fatal(err)
	}
	work, err := os.MkdirTemp(filepath.Dir(tree), "debian-new-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	var failed string
	for _, mirror := range mirrors(t) {
		t.Logf("making %s, once", tree)
		root := filepath.Join(work, "root")
		r := run(t, 20*time.Minute, "debootstrap", "--variant=minbase", "--include="+packages, debian, root, mirror)
		if r.code == 0 {
			for _, spare := range []string{"var/cache/apt", "var/lib/apt/lists"} { // 110 MB that no test reads
				if err := os.RemoveAll(filepath.Join(root, spare)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Rename(root, tree); err != nil {
				t.Fatal(err)
			}
			return tree
		}
		failed += tail(r.stdout+r.stderr, 10) + "\n"
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("debootstrap found no mirror that works:\n%s", failed)
	return ""
}

// mirrors returns where this machine's apt looks for the release. Repositories of others may be among them.
func mirrors(t *testing.T) []string {
	t.Helper()
	r := run(t, time.Minute, "apt-get", "update", "--print-uris").must(t, "apt-get update --print-uris")
	var out []string
	for _, match := range regexp.MustCompile(`(?m)^'(\S+)/dists/`+debian+`/InRelease'`).FindAllStringSubmatch(r.stdout, -1) {
		out = append(out, match[1])
	}
	if len(out) == 0 {
		lacking(t, "this machine's apt knows no mirror of Debian %s", debian)
	}
	return out
}
