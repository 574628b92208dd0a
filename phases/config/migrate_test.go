package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// old returns the v1beta3 files of a directory, which hold what Migrate makes of them in NAME.golden.
func old(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(testdata, dir, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files under %s: %v", dir, err)
	}
	return paths
}

func TestMigrate(t *testing.T) {
	for _, path := range old(t, "v1beta3") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out, warnings, err := Migrate(filepath.Base(path), data)
			if err != nil {
				t.Fatal(err)
			}
			got := out
			for _, w := range warnings {
				got = append(got, "# warning: "+w+"\n"...)
			}
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("-golden +got (rewrite with -update):\n%s", diff)
			}

			again, warnings, err := Migrate("again.yaml", out)
			if err != nil || !bytes.Equal(again, out) {
				t.Errorf("converting it again: %v\n%s", err, cmp.Diff(string(out), string(again)))
			}
			if len(warnings) == 0 || !strings.Contains(warnings[len(warnings)-1]+warnings[0], "nothing was converted") {
				t.Errorf("the warnings of converting it again are %q", warnings)
			}
		})
	}
}

// TestMigrateRefuses: the header of each file has its problems, as those of TestBadFilesAreRefused.
func TestMigrateRefuses(t *testing.T) {
	for _, path := range old(t, "v1beta3/bad") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			o, want := options(t, path)
			out, _, err := Migrate(o.File, o.Data)
			if err == nil || out != nil {
				t.Fatalf("converted, to\n%s", out)
			}
			wantProblems(t, err, want)
		})
	}
}

func TestValidateTellsTheProblemsOfEveryDocument(t *testing.T) {
	for _, path := range old(t, "validate") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			o, want := options(t, path)
			_, err := Validate(o.File, o.Data)
			if err == nil {
				t.Fatal("no problem")
			}
			wantProblems(t, err, want)
		})
	}
}

// TestValidateAgreesWithLoad where only the file, and not the host, says what is wrong.
func TestValidateAgreesWithLoad(t *testing.T) {
	for _, dir := range []string{"good", "bad"} {
		for _, path := range files(t, dir) {
			if strings.HasSuffix(path, ".golden.json") {
				continue
			}
			o, _ := options(t, path)
			if o.Data == nil || o.Instance != "" || o.Facts.Hostname == "" || o.Patches != nil || bytes.Contains(o.Data, []byte("# flags:")) || bytes.Contains(o.Data, []byte("# env:")) {
				continue // not the file alone
			}
			if kind := filepath.Base(path); kind == "other-commands-documents.yaml" || kind == "join-only.yaml" || kind == "empty.yaml" {
				continue // Validate reads the documents that are not for init
			}
			t.Run(dir+"/"+filepath.Base(path), func(t *testing.T) {
				_, _, loading := Load(o)
				_, validating := Validate(o.File, o.Data)
				var want, got string
				if loading != nil {
					want = loading.Error()
				}
				if validating != nil {
					got = validating.Error()
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("- Load, + Validate:\n%s", diff)
				}
			})
		}
	}
}
