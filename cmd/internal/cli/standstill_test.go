package cli

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
)

// stoppingDisk is a disk whose manifests a supervisor follows: what is removed stops.
type stoppingDisk struct {
	artifact.Disk
	stop func()
}

func (d stoppingDisk) Remove(path string) error {
	d.stop()
	return d.Disk.Remove(path)
}

// A restore that was killed leaves its pod, which may still write, and whose end would be taken for that of the next one.
func TestThePodOfAKilledRestoreIsWithdrawn(t *testing.T) {
	n := newNode(t)
	n.again("etcd-restore", 0)
	paths := config.NewPaths("")
	stopped := false
	disk := stoppingDisk{artifact.Disk{Root: t.TempDir()}, func() {
		stopped = true
		n.board.Remove("kube-system/etcd-restore-n1")
	}}
	s := &standstill{client: newLocal(n.g.socket), disk: disk, plane: &plane.Plane{Paths: paths}}
	manifest := filepath.Join(paths.Manifests, "etcd-restore.yaml")
	if err := disk.Put(artifact.File{Path: manifest, Data: []byte("kind: Pod\n"), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if err := s.withdraw(t.Context(), "etcd-restore"); err != nil || !stopped {
		t.Fatalf("stopped: %v, %v", stopped, err)
	}
	if _, err := disk.ReadFile(manifest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its manifest: %v", err)
	}
	list, err := s.client.pods(t.Context())
	if err != nil || find(list.Items, "etcd-restore") != nil {
		t.Errorf("it is there still: %v", err)
	}
	if err := s.withdraw(t.Context(), "etcd-restore"); err != nil {
		t.Errorf("where there is none: %v", err)
	}
}
