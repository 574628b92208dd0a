//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// recipe is one section of docs/operations.md.
type recipe struct {
	title    string
	commands []string // its shell blocks, in order
}

// TestOperations runs the recipes of docs/operations.md as they are written, in their order, on one control plane. Blocks
// that are marked sh are commands for the node itself; console blocks show what happens elsewhere and are not run.
func TestOperations(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	recipes, err := readRecipes(string(data))
	if err != nil {
		t.Fatal(err)
	}
	const backups = "/var/backups/slipway" // what a reset leaves alone, with good reason
	if _, err := os.Stat(backups); err == nil {
		t.Fatalf("%s exists: it holds somebody's snapshots, or those of a test that was killed", backups)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(backups); err != nil {
			t.Error(err)
		}
	})
	initialised(t)
	home := t.TempDir()
	for _, r := range recipes {
		if len(r.commands) == 0 {
			continue
		}
		ran := t.Run(r.title, func(t *testing.T) {
			eventually(t, time.Minute, "health before the recipe", healthy(t, controlPlane...))
			for _, command := range r.commands {
				runAsWritten(t, home, command)
			}
			eventually(t, time.Minute, "health after the recipe", healthy(t, controlPlane...))
		})
		if !ran {
			return // the next recipe begins with what this one leaves
		}
	}
}

// runAsWritten runs a block as a user's shell does whose directory is home, and ends at the first command that fails.
func runAsWritten(t *testing.T, home, block string) {
	t.Helper()
	path := strings.Join([]string{filepath.Dir(slipwayBinary()), filepath.Dir(program("kubectl")), os.Getenv("PATH")}, ":")
	r := run(t, 4*time.Minute, "env", "-C", home, "HOME="+home, "PATH="+path, "SLIPWAY_IMAGE_ARCHIVES="+archives(),
		"bash", "-euo", "pipefail", "-c", block)
	t.Logf("%s\n(%v)\n%s%s", block, r.took.Round(time.Millisecond), r.stdout, r.stderr)
	if r.code != 0 {
		t.Fatalf("exit code %d of:\n%s", r.code, block)
	}
}

// readRecipes returns the sections of a page with their shell blocks.
func readRecipes(page string) ([]recipe, error) {
	var recipes []recipe
	var block []string
	language, open := "", false
	for number, line := range strings.Split(page, "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		title, isTitle := strings.CutPrefix(line, "## ")
		switch {
		case isFence && !open:
			language, open, block = fence, true, nil
		case isFence:
			open = false
			if language != "sh" {
				continue
			}
			if len(recipes) == 0 {
				return nil, fmt.Errorf("line %d: commands before the first section", number+1)
			}
			last := &recipes[len(recipes)-1]
			last.commands = append(last.commands, strings.Join(block, "\n"))
		case open:
			block = append(block, line)
		case strings.HasPrefix(strings.TrimSpace(line), "```sh"):
			return nil, fmt.Errorf("line %d: a block of a list is not run: it is no sh, or does not belong into one", number+1)
		case isTitle:
			recipes = append(recipes, recipe{title: title})
		}
	}
	if open {
		return nil, fmt.Errorf("a block of %q is not closed", language)
	}
	if len(recipes) == 0 {
		return nil, fmt.Errorf("no sections")
	}
	return recipes, nil
}
