package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/ledger"
)

func backupOf(files ...artifact.File) *restored {
	return &restored{files: files, cluster: &config.Cluster{Paths: config.NewPaths("")}}
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
