// Package backup writes and reads the archive in which a control plane is carried to another machine.
//
// It is a compressed tar file: MANIFEST.json with what follows it and the SHA-256 of each, the node's files below
// "files", etcd's snapshot, and at last the SHA-256 of MANIFEST.json, so that an archive that ends early is known by it.
package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/slipway-k8s/slipway/phases/artifact"
)

// Format is the number of the archive's layout. Reading refuses others.
const Format = 1

// The names of the entries that are no files of the node.
const (
	manifestName = "MANIFEST.json"
	sumName      = "MANIFEST.sha256"
	snapshotName = "etcd/snapshot.db"
	filesDir     = "files"
)

// Bounds of what is read into memory, in bytes: a hundred times the largest that is known, of one file and of all.
const (
	maxManifest = 4 << 20
	maxFile     = 16 << 20
	maxFiles    = 64 << 20
)

// Manifest says what an archive holds.
type Manifest struct {
	Format            int        `json:"format"`
	Time              time.Time  `json:"time"`
	Node              string     `json:"node"`
	Instance          string     `json:"instance,omitempty"`
	Address           netip.Addr `json:"address"` // that the API server advertised
	Port              uint16     `json:"port"`
	KubernetesVersion string     `json:"kubernetesVersion"`
	Cluster           string     `json:"cluster,omitempty"` // UID of the namespace kube-system
	Revision          int64      `json:"revision"`
	Keys              int        `json:"keys"`
	Files             []Entry    `json:"files"`
	Snapshot          Entry      `json:"snapshot"`
	Left              []string   `json:"left,omitempty"` // host paths that the manifests name and the archive does not hold
}

// Entry is one file of the archive.
type Entry struct {
	Path   string `json:"path,omitempty"` // on the node; "" for the snapshot
	Mode   uint32 `json:"mode,omitempty"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Write writes an archive. It fills in m.Format, m.Files and m.Snapshot; size and sum are those of the snapshot.
func Write(w io.Writer, m Manifest, files []artifact.File, snapshot io.Reader, size int64, sum string) error {
	m.Format, m.Files, m.Snapshot = Format, nil, Entry{Size: size, SHA256: sum}
	for _, f := range files {
		m.Files = append(m.Files, Entry{Path: f.Path, Mode: uint32(f.Mode.Perm()), Size: int64(len(f.Data)), SHA256: sumOf(f.Data)})
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the archive's manifest: %w", err)
	}
	zip, err := gzip.NewWriterLevel(w, gzip.BestSpeed) // what etcd holds shrinks to a fifth at any level
	if err != nil {
		return err
	}
	out := tar.NewWriter(zip)
	put := func(name string, size int64, r io.Reader) error {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: size, ModTime: m.Time}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(out, r)
		return err
	}
	if err := put(manifestName, int64(len(text)), bytes.NewReader(text)); err != nil {
		return err
	}
	for _, f := range files {
		if err := put(filesDir+f.Path, int64(len(f.Data)), bytes.NewReader(f.Data)); err != nil {
			return err
		}
	}
	if err := put(snapshotName, size, snapshot); err != nil {
		return err
	}
	if err := put(sumName, sha256.Size*2, strings.NewReader(sumOf(text))); err != nil {
		return err
	}
	return errors.Join(out.Close(), zip.Close())
}

func sumOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Read reads an archive to its end and returns its manifest and its files; the snapshot is written to w. Only when the
// error is nil is all of it whole, and what its manifest says. An error names what is wrong.
func Read(r io.Reader, w io.Writer) (Manifest, []artifact.File, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("it is no archive of slipway's: %w", truncated(err))
	}
	in := tar.NewReader(zip)
	m, text, err := readManifest(in)
	if err != nil {
		return Manifest{}, nil, err
	}
	var files []artifact.File
	for _, e := range m.Files {
		data, err := readEntry(in, filesDir+e.Path, e)
		if err != nil {
			return Manifest{}, nil, err
		}
		files = append(files, artifact.File{Path: e.Path, Data: data, Mode: fs.FileMode(e.Mode).Perm(), Secret: e.Mode&0o077 == 0})
	}
	if err := readSnapshot(in, m.Snapshot, w); err != nil {
		return Manifest{}, nil, err
	}
	last, err := readEntry(in, sumName, Entry{Size: sha256.Size * 2})
	if err != nil {
		return Manifest{}, nil, err
	}
	if string(last) != sumOf(text) {
		return Manifest{}, nil, fmt.Errorf("%s is damaged: its SHA-256 is not the one at the archive's end", manifestName)
	}
	if h, err := in.Next(); err == nil {
		return Manifest{}, nil, fmt.Errorf("the archive holds %q, of which its manifest knows nothing", h.Name)
	} else if !errors.Is(err, io.EOF) {
		return Manifest{}, nil, truncated(err)
	}
	if _, err := io.Copy(io.Discard, zip); err != nil { // the sum of gzip itself is at its end
		return Manifest{}, nil, truncated(err)
	}
	return m, files, nil
}

func readManifest(in *tar.Reader) (Manifest, []byte, error) {
	h, err := in.Next()
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("it is no archive of slipway's: %w", truncated(err))
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return Manifest{}, nil, fmt.Errorf("it is no archive of slipway's: it begins with %q", h.Name)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return Manifest{}, nil, truncated(err)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, nil, fmt.Errorf("%s cannot be read: %w", manifestName, err)
	}
	if m.Format != Format {
		return Manifest{}, nil, fmt.Errorf("the archive has format %d, this slipway reads format %d: use the slipway that made it", m.Format, Format)
	}
	seen, all := map[string]bool{}, int64(0)
	for _, e := range m.Files {
		if e.SHA256 == "" || !filepath.IsAbs(e.Path) || path.Clean(e.Path) != e.Path || seen[e.Path] || e.Size < 0 || e.Size > maxFile {
			return Manifest{}, nil, fmt.Errorf("%s names %q (%d bytes): not an absolute path, named twice, or too large", manifestName, e.Path, e.Size)
		}
		seen[e.Path] = true
		if all += e.Size; all > maxFiles {
			return Manifest{}, nil, fmt.Errorf("%s names files of more than %d MiB in all: a control plane has none of that size", manifestName, maxFiles>>20)
		}
	}
	return m, text, nil
}

func next(in *tar.Reader, name string, size int64) error {
	h, err := in.Next()
	switch {
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the archive ends before %s", name)
	case err != nil:
		return fmt.Errorf("reading %s: %w", name, truncated(err))
	case h.Name != name || h.Typeflag != tar.TypeReg:
		return fmt.Errorf("the archive holds %q where its manifest has %s", h.Name, name)
	case h.Size != size:
		return fmt.Errorf("%s has %d bytes, its manifest says %d", name, h.Size, size)
	}
	return nil
}

// readEntry reads one entry. Without a sum in e, only its size is checked.
func readEntry(in *tar.Reader, name string, e Entry) ([]byte, error) {
	if err := next(in, name, e.Size); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, truncated(err))
	}
	if got := sumOf(data); e.SHA256 != "" && got != e.SHA256 {
		return nil, fmt.Errorf("%s is damaged: its SHA-256 is %s, the manifest says %s", name, got, e.SHA256)
	}
	return data, nil
}

func readSnapshot(in *tar.Reader, e Entry, w io.Writer) error {
	if err := next(in, snapshotName, e.Size); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(sum, w), in); err != nil {
		return fmt.Errorf("reading %s: %w", snapshotName, truncated(err))
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != e.SHA256 {
		return fmt.Errorf("%s is damaged: its SHA-256 is %s, the manifest says %s", snapshotName, got, e.SHA256)
	}
	return nil
}

// truncated says what the end of the data in the middle of it means.
func truncated(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the archive is truncated")
	case errors.Is(err, gzip.ErrChecksum):
		return errors.New("the archive is damaged: gzip's checksum is wrong")
	}
	return err
}
