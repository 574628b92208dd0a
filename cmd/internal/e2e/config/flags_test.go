//go:build e2e

package config

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-k8s/slipway/phases/flags"
)

var shownFlag = regexp.MustCompile(`(?m)^\s+(?:etcd |-[a-z], )?--([a-zA-Z0-9-]+)`)

// help is what a program says to arguments that end in --help, which it does not run with.
func help(program string, args ...string) string {
	out, _ := exec.Command(filepath.Join(repository, "bin/k8s", program), append(args, "--help")...).CombinedOutput() // an error is in what it says
	return string(out)
}

// TestKnownFlagsAreThoseOfThePrograms holds the table of flags to the programs themselves: each flag that they show is
// in it, and each that it names and they do not show, because it is deprecated, is taken all the same.
func TestKnownFlagsAreThoseOfThePrograms(t *testing.T) {
	for program, minor := range map[string]string{"kube-apiserver": "1.36", "kube-controller-manager": "1.36", "kube-scheduler": "1.36", "etcd": "3.6"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			known := flags.Of(program)
			var shown []string
			for _, m := range shownFlag.FindAllStringSubmatch(help(program), -1) {
				shown = append(shown, m[1])
				if m[1] != "help" && !known.Knows(minor, m[1]) {
					t.Errorf("--%s is not in the table", m[1])
				}
			}
			if len(shown) < 40 {
				t.Fatalf("its help shows %d flags only: %q", len(shown), shown)
			}
			if said := help(program, "--no-such-flag=1"); !unknown(said) {
				t.Fatalf("it does not mind an unknown flag: %s", said)
			}
			for _, name := range known.Names(minor) {
				if slices.Contains(shown, name) {
					continue
				}
				if said := help(program, "--"+name+"=1"); unknown(said) {
					t.Errorf("--%s is in the table, and it says: %s", name, said)
				}
			}
		})
	}
}

// unknown tells whether a program, with cobra's words or those of Go's flag package, does not know a flag.
func unknown(said string) bool {
	return strings.Contains(said, "unknown flag") || strings.Contains(said, "flag provided but not defined")
}
