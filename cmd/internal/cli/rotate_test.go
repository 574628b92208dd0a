package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// A stage that cannot be planned to its end must leave the files of the one before: half of a stage trusts nobody.
func TestHalfAPlanIsNotWritten(t *testing.T) {
	root := t.TempDir()
	r := &rotator{overlay: artifact.NewOverlay(artifact.Disk{Root: root})}
	if err := r.overlay.Put(artifact.File{Path: "/ca.crt", Data: []byte("next"), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("the key is not here")
	if err := r.commit(t.Context(), failed); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "ca.crt")); !os.IsNotExist(err) {
		t.Errorf("the file was written: %v", err)
	}
	if err := r.commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "ca.crt")); err != nil {
		t.Error(err)
	}
}
