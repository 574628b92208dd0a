package containerd

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Archive is what an image archive holds.
type Archive struct {
	// Digest identifies the images and their names, whatever the archive's packing: sha256 over the sorted names and ids.
	Digest string
	Images []ArchiveImage // sorted by name
}

// ArchiveImage is one name in an archive.
type ArchiveImage struct {
	Ref string // in full, as the store has it after a load
	ID  string // as the store and the CRI have it
}

// Refs returns the names, sorted.
func (a Archive) Refs() []string {
	var refs []string
	for _, i := range a.Images {
		refs = append(refs, i.Ref)
	}
	return refs
}

const (
	// maxJSON bounds one metadata file. A manifest is a few kilobytes; registries refuse more than 4 MiB.
	maxJSON = 4 << 20
	// maxAllJSON bounds what is kept of one archive.
	maxAllJSON = 64 << 20
	// imageName is containerd's annotation for an image's full name.
	imageName = "io.containerd.image.name"
)

// Inspect reads which images the archive at path holds for this machine's platform, without a daemon. It takes what
// Load takes. Layers of a plain tar or a directory are skipped, not read; a gzipped tar must be decompressed in full.
func Inspect(path string) (Archive, error) {
	a, err := inspect(path)
	if err != nil {
		return Archive{}, fmt.Errorf("reading image archive %q: %w", path, err)
	}
	return a, nil
}

func inspect(path string) (Archive, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Archive{}, err
	}
	var r io.Reader
	if info.IsDir() {
		dir := tarOf(path)
		defer dir.Close()
		r = dir
	} else {
		f, err := os.Open(path)
		if err != nil {
			return Archive{}, err
		}
		defer f.Close()
		if r, err = seekable(f); err != nil {
			return Archive{}, err
		}
	}
	files, err := jsonFiles(tar.NewReader(r))
	if err != nil {
		return Archive{}, err
	}
	images, err := imagesIn(files)
	if err != nil {
		return Archive{}, err
	}
	slices.SortFunc(images, func(a, b ArchiveImage) int { return strings.Compare(a.Ref, b.Ref) })
	images = slices.Compact(images)
	sum := sha256.New()
	for _, i := range images {
		fmt.Fprintf(sum, "%s %s\n", i.Ref, i.ID)
	}
	return Archive{Digest: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Images: images}, nil
}

// seekable returns f itself if it is not compressed: tar then seeks over the layers.
func seekable(f *os.File) (io.Reader, error) {
	var magic [2]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	if magic == [2]byte{0x1f, 0x8b} || magic == [2]byte{0x28, 0xb5} {
		return decompress(f)
	}
	return f, nil
}

// jsonFiles returns the archive's JSON files by name. They are told by their first byte: in an OCI layout neither name
// nor place does.
func jsonFiles(t *tar.Reader) (map[string][]byte, error) {
	files, kept := map[string][]byte{}, 0
	for {
		header, err := t.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if header.Typeflag != tar.TypeReg || header.Size == 0 || header.Size > maxJSON {
			continue
		}
		var first [1]byte
		if _, err := io.ReadFull(t, first[:]); err != nil {
			return nil, err
		}
		if first[0] != '{' && first[0] != '[' {
			continue
		}
		data, err := io.ReadAll(io.MultiReader(bytes.NewReader(first[:]), t))
		if err != nil {
			return nil, err
		}
		if kept += len(data); kept > maxAllJSON {
			return nil, errors.New("it holds more JSON than an image archive can")
		}
		files[path.Clean(header.Name)] = data
	}
}

// imagesIn prefers the OCI layout, as containerd does: archives of newer tools are both.
func imagesIn(files map[string][]byte) ([]ArchiveImage, error) {
	if _, ok := files[ocispec.ImageLayoutFile]; ok {
		return ociImages(files)
	}
	if data, ok := files["manifest.json"]; ok {
		return dockerImages(files, data)
	}
	return nil, errors.New("it is neither a docker archive (no manifest.json) nor an OCI layout (no oci-layout)")
}

func dockerImages(files map[string][]byte, data []byte) ([]ArchiveImage, error) {
	var manifests []struct {
		Config   string
		RepoTags []string
	}
	if err := json.Unmarshal(data, &manifests); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	var images []ArchiveImage
	for _, m := range manifests {
		config, ok := files[path.Clean(m.Config)]
		if !ok {
			return nil, fmt.Errorf("manifest.json names the config %q, which is not there", m.Config)
		}
		for _, tag := range m.RepoTags {
			ref, err := Normalize(tag)
			if err != nil {
				return nil, err
			}
			images = append(images, ArchiveImage{Ref: ref, ID: digest(config)})
		}
	}
	return images, nil
}

func ociImages(files map[string][]byte) ([]ArchiveImage, error) {
	var index ocispec.Index
	if err := json.Unmarshal(files[ocispec.ImageIndexFile], &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var images []ArchiveImage
	for _, d := range index.Manifests {
		ref := d.Annotations[imageName]
		if ref == "" {
			ref = d.Annotations[ocispec.AnnotationRefName]
		}
		if ref == "" {
			continue
		}
		id, err := ociID(files, d)
		if err != nil {
			return nil, fmt.Errorf("image %q: %w", ref, err)
		}
		if id != "" {
			images = append(images, ArchiveImage{Ref: ref, ID: id})
		}
	}
	return images, nil
}

// ociID returns the digest of the config that d leads to on this platform, "" when it has none for it.
func ociID(files map[string][]byte, d ocispec.Descriptor) (string, error) {
	if p := d.Platform; p != nil && (p.OS != "linux" || p.Architecture != runtime.GOARCH) {
		return "", nil
	}
	data, ok := files[path.Join(ocispec.ImageBlobsDir, string(d.Digest.Algorithm()), d.Digest.Encoded())]
	if !ok {
		return "", fmt.Errorf("blob %s is not there", d.Digest)
	}
	// An index has manifests and a manifest has a config; the media type may be left out.
	var node struct {
		Manifests []ocispec.Descriptor `json:"manifests"`
		Config    ocispec.Descriptor   `json:"config"`
	}
	if err := json.Unmarshal(data, &node); err != nil {
		return "", fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	for _, m := range node.Manifests {
		if id, err := ociID(files, m); err != nil || id != "" {
			return id, err
		}
	}
	return string(node.Config.Digest), nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}
