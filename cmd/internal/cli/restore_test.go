package cli

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/backup"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/ledger"
	"github.com/slipway-k8s/slipway/phases/plane"
)

func backupOf(files ...artifact.File) *restored {
	return &restored{files: files, cluster: &config.Cluster{Paths: config.NewPaths("")}}
}

func TestTheMoveOfABackup(t *testing.T) {
	address := netip.MustParseAddr
	m := backup.Manifest{Node: "edge1", Address: address("192.0.2.1")}
	for name, tc := range map[string]struct {
		flags restoreFlags
		want  plane.Move
		err   string
	}{
		"as it was":                  {restoreFlags{}, plane.Move{From: m.Address, To: m.Address, FromName: "edge1", ToName: "edge1"}, ""},
		"another address":            {restoreFlags{address: "192.0.2.2"}, plane.Move{From: m.Address, To: address("192.0.2.2"), FromName: "edge1", ToName: "edge1"}, ""},
		"another name":               {restoreFlags{nodeName: "edge2"}, plane.Move{From: m.Address, To: m.Address, FromName: "edge1", ToName: "edge2"}, ""},
		"its own, spelt in capitals": {restoreFlags{nodeName: " Edge1"}, plane.Move{From: m.Address, To: m.Address, FromName: "edge1", ToName: "edge1"}, ""},
		"no address":                 {restoreFlags{address: "edge2"}, plane.Move{}, "--apiserver-advertise-address"},
		"another family":             {restoreFlags{address: "2001:db8::1"}, plane.Move{}, "different families"},
	} {
		got, err := tc.flags.move(m)
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: %v, want %q", name, err, tc.err)
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
}

func TestImagesOfABackupAreThoseOfAllItsPods(t *testing.T) {
	const pod = "kind: Pod\nspec:\n  initContainers: [{image: r/init:1}]\n  containers: [{image: r/one:1}, {image: r/two:1}]\n"
	r := backupOf(
		artifact.File{Path: "/etc/kubernetes/manifests/broken.yaml", Data: []byte("kind: {")},
		artifact.File{Path: "/etc/kubernetes/manifests/mine.yaml", Data: []byte(pod)},
		artifact.File{Path: "/etc/kubernetes/manifests/etcd.yaml", Data: []byte("spec: {containers: [{image: r/etcd:1}]}")},
		artifact.File{Path: "/etc/kubernetes/audit/pod.yaml", Data: []byte(pod)},
	)
	if diff := cmp.Diff([]string{"r/init:1", "r/one:1", "r/two:1", "r/etcd:1"}, r.images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}

func TestVolumesThatComeWithABackupAreNotMissed(t *testing.T) {
	r := backupOf(artifact.File{Path: "/etc/audit/policy.yaml"}, artifact.File{Path: "/etc/tokens"})
	before := []config.HostPathMount{{Name: "directory", HostPath: "/etc/audit"}, {Name: "other", HostPath: "/etc/auditing"}, {Name: "file", HostPath: "/etc/tokens"}}
	r.cluster.APIServer.ExtraVolumes = before
	r.bringsItself()
	if diff := cmp.Diff(before[1:2], r.cluster.APIServer.ExtraVolumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
}

func TestWhatRemainsAfterAReset(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"ours", "theirs"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := remaining{artifact.Disk{Root: root}, owned{{Kind: ledger.File, Path: "/ours"}}}
	if _, err := files.ReadFile("/ours"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what slipway made: %v", err)
	}
	if _, err := files.ReadFile("/theirs"); err != nil {
		t.Errorf("what others made: %v", err)
	}
}
