package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Mark records that a container's post-start hook is due: call it before the container starts, so that a supervisor
// that dies at any later instant finds the hook pending. The record is durable before Mark returns. The directory must
// exist. A record that is already there is no error.
func Mark(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("marking a hook as pending: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("marking a hook as pending at %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// Pending tells whether a container's post-start hook is due, under way, or has failed: it has not ended well.
func Pending(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Unmark removes the record. A record that is not there is no error. It is not durable at once: after a crash of the
// host the container that it speaks of does not run any more.
func Unmark(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the mark of a hook: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s to make its entries durable: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("making the entries of %s durable: %w", dir, err)
	}
	return nil
}
