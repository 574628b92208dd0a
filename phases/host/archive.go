package host

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// maxIndex is far above any real index: a thousand images take 200 KiB.
const maxIndex = 8 << 20

// archiveRefs returns the image references in a docker or OCI archive, sorted. Of an uncompressed archive only the
// headers and the index are read, whatever its size.
func archiveRefs(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading image archive: %w", err)
	}
	defer f.Close()
	var content io.Reader = f
	if !strings.HasSuffix(path, ".tar") {
		z, err := gzip.NewReader(f)
		if err != nil {
			return nil, fmt.Errorf("reading image archive %q: %w", path, err)
		}
		defer z.Close()
		content = z
	}
	refs, err := tarRefs(content)
	if err != nil {
		return nil, fmt.Errorf("reading image archive %q: %w", path, err)
	}
	return refs, nil
}

// tarRefs collects from manifest.json (docker) and index.json (OCI); an archive may have both.
func tarRefs(content io.Reader) ([]string, error) {
	var refs []string
	found := false
	for t := tar.NewReader(content); ; {
		header, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(header.Name, "./")
		if name != "manifest.json" && name != "index.json" {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(t, maxIndex))
		if err != nil {
			return nil, err
		}
		more, err := indexRefs(name, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		refs, found = append(refs, more...), true
	}
	if !found {
		return nil, errors.New("neither manifest.json nor index.json inside: not an image archive")
	}
	return compactSorted(refs), nil
}

// nameAnnotations carry a complete reference: containerd's own, and the OCI one when it is more than a bare tag.
var nameAnnotations = []string{"io.containerd.image.name", "org.opencontainers.image.ref.name"}

func indexRefs(name string, data []byte) ([]string, error) {
	var refs []string
	if name == "manifest.json" {
		var images []struct{ RepoTags []string }
		err := json.Unmarshal(data, &images)
		for _, image := range images {
			refs = append(refs, image.RepoTags...)
		}
		return refs, err
	}
	var index struct {
		Manifests []struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"manifests"`
	}
	err := json.Unmarshal(data, &index)
	for _, m := range index.Manifests {
		for _, annotation := range nameAnnotations {
			if ref := m.Annotations[annotation]; strings.ContainsAny(ref, ":/") {
				refs = append(refs, ref)
				break
			}
		}
	}
	return refs, err
}
