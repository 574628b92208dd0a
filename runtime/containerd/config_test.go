package containerd

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
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

func TestSnapshotterOn(t *testing.T) {
	for kind, want := range map[int64]string{
		unix.EXT4_SUPER_MAGIC: overlayfs, unix.XFS_SUPER_MAGIC: overlayfs, unix.TMPFS_MAGIC: overlayfs,
		unix.OVERLAYFS_SUPER_MAGIC: native, unix.NFS_SUPER_MAGIC: native,
	} {
		if got := snapshotterOn(kind); got != want {
			t.Errorf("%#x: %q, want %q", kind, got, want)
		}
	}
}

func TestDetectNeedsNoDirectory(t *testing.T) {
	dir := t.TempDir()
	there, err := Detect(dir)
	if err != nil {
		t.Fatal(err)
	}
	missing, err := Detect(filepath.Join(dir, "not", "yet"))
	if err != nil || missing != there {
		t.Errorf("for a directory to be made: %+v, %v, want %+v", missing, err, there)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
