package containerd

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestConfig(t *testing.T) {
	for name, o := range map[string]ConfigOptions{
		"default": {
			Root: "/var/lib/slipway/containerd", State: "/run/slipway/containerd", Socket: "/run/slipway/containerd.sock",
			SandboxImage: "registry.k8s.io/pause:3.10.2", SystemdCgroup: true, Facts: Facts{LowerOOMScore: true},
		},
		"restricted": {
			Root: `/srv/a "quoted" dir`, State: "/run/slipway-of-an-instance-with-a-long-name/containerd", Socket: "/run/s.sock",
			SandboxImage: "registry.k8s.io/pause:3.10.2", Facts: Facts{Snapshotter: "native", CNIBinDir: "/usr/lib/cni"},
			CNIConfDir: "/srv/cni", RegistryConfig: "/srv/certs.d",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Config(o)
			if !bytes.Equal(got, Config(o)) {
				t.Error("the same options gave other bytes")
			}
			path := filepath.Join("testdata", name+".toml")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), rewrite it with -update:\n%s", path, diff)
			}
		})
	}
}

func TestMayLowerOOMScore(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n": true,
		"CapEff:\t000001fffeffffff\n":                                      false, // all but bit 24
		"CapEff:\t0000000001000000\n":                                      true,
		"CapEff:\tnonsense\n":                                              false,
		"":                                                                 false,
	} {
		if got := mayLowerOOMScore([]byte(status)); got != want {
			t.Errorf("%q: %v, want %v", status, got, want)
		}
	}
}

func TestCNIBinDir(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none")
	if got := cniBinDir(none, dir); got != dir {
		t.Errorf("%q, want the one that exists", got)
	}
	if got := cniBinDir(none, none+"2"); got != none {
		t.Errorf("%q, want the first when there is none", got)
	}
}

func TestDetectLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	if f.Snapshotter != overlayfs && f.Snapshotter != native {
		t.Errorf("snapshotter %q", f.Snapshotter)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("a mount was left behind (%v)", err)
	}
}
