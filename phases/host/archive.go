package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// archive is a file of images that a user brought.
type archive struct {
	Path string
	Size int64
	Time int64 // modification time, ns since the epoch
	Refs []string
}

// listArchives returns the archives in dir, sorted by name, without looking into them. A directory that does not
// exist has none.
func listArchives(dir string) ([]archive, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || dir == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading image archives: %w", err)
	}
	var found []archive
	for _, e := range entries {
		if !isArchive(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Stat(path) // through links: archives may live on another disk
		if err != nil {
			return nil, fmt.Errorf("reading image archives: %w", err)
		}
		if info.Mode().IsRegular() {
			found = append(found, archive{Path: path, Size: info.Size(), Time: info.ModTime().UnixNano()})
		}
	}
	return found, nil
}

func isArchive(name string) bool {
	return !strings.HasPrefix(name, ".") && slices.ContainsFunc([]string{".tar", ".tar.gz", ".tgz"}, func(ext string) bool {
		return strings.HasSuffix(name, ext)
	})
}
