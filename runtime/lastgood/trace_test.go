package lastgood

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/trace; only commit what you can explain")

// TestTraces replays the files of testdata/trace: blocks of comments, commands, "----", and what Judge said after each
// line of commands. Commands joined by ";" happen between two looks.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/trace/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d traces, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got), go test -update to rewrite:\n%s", file, diff)
			}
		})
	}
}

func replay(t *testing.T, text string) string {
	var out strings.Builder
	var m *model
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		input, _, _ := strings.Cut(block, "\n----")
		fmt.Fprintf(&out, "%s\n----\n", input)
		for _, line := range strings.Split(input, "\n") {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if line == "begin" || m == nil {
				m = newModel()
			}
			if line == "begin" {
				continue
			}
			for _, command := range strings.Split(line, ";") {
				if err := m.do(strings.TrimSpace(command)); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
			out.WriteString(m.judge() + "\n")
		}
		out.WriteString("\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}
