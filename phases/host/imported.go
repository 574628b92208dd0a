package host

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// imported remembers which archives went into which store, so that each goes in once. Size and time spare the digest
// of a file that has not changed.
type imported struct {
	Archives []importedArchive `json:"archives"`
}

type importedArchive struct {
	Socket string   `json:"socket"`
	SHA256 string   `json:"sha256"`
	Path   string   `json:"path"`
	Size   int64    `json:"size"`
	Time   int64    `json:"mtime"`
	Refs   []string `json:"refs"`
}

func readImported(files artifact.Store, path string) (imported, error) {
	file, err := files.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return imported{}, nil
	}
	if err != nil {
		return imported{}, fmt.Errorf("reading the record of imported archives: %w", err)
	}
	var record imported
	if err := json.Unmarshal(file.Data, &record); err != nil {
		return imported{}, nil // a damaged record only costs a second import
	}
	return record, nil
}

func (r imported) write(files artifact.Store, path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the record of imported archives: %w", err)
	}
	if err := files.Put(artifact.File{Path: path, Data: append(data, '\n'), Mode: 0o600}); err != nil {
		return fmt.Errorf("recording imported archives: %w", err)
	}
	return nil
}

// unchanged returns the entry of a file that looks as it did when it was imported, by path, size and time.
func (r imported) unchanged(socket string, a archive) (importedArchive, bool) {
	return r.find(func(e importedArchive) bool {
		return e.Socket == socket && e.Path == a.Path && e.Size == a.Size && e.Time == a.Time
	})
}

// same returns the entry of an archive with this digest, whatever its name was.
func (r imported) same(socket, digest string) (importedArchive, bool) {
	return r.find(func(e importedArchive) bool { return e.Socket == socket && e.SHA256 == digest })
}

func (r imported) find(is func(importedArchive) bool) (importedArchive, bool) {
	i := slices.IndexFunc(r.Archives, is)
	if i < 0 {
		return importedArchive{}, false
	}
	return r.Archives[i], true
}

// with returns the record with the archive in it, in place of what was known of its path.
func (r imported) with(socket, digest string, a archive) imported {
	kept := slices.DeleteFunc(slices.Clone(r.Archives), func(e importedArchive) bool {
		return e.Socket == socket && (e.Path == a.Path || e.SHA256 == digest)
	})
	entry := importedArchive{Socket: socket, SHA256: digest, Path: a.Path, Size: a.Size, Time: a.Time, Refs: a.Refs}
	return imported{Archives: append(kept, entry)}
}

// digestOf returns the file's SHA-256 in hex.
func digestOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading image archive: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", fmt.Errorf("reading image archive %q: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
