// Package watched tells when the content of host files has changed.
package watched

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"syscall"
)

const (
	// maxFile and maxTotal bound, in bytes, what is read for one fingerprint: certificates, keys and configuration files
	// have some kilobytes.
	maxFile  = 10 << 20
	maxTotal = 64 << 20
)

// Fingerprint returns 32 hex digits that follow the names, kinds, modes and contents of the files at the paths, and of
// those in a directory among them, whatever the order of the paths; "" for no paths. Symbolic links are followed; times,
// owners and inodes change nothing. A path where nothing is has a fingerprint, too. It is an error when something that
// is there cannot be read, or is too much: more than 10 MiB in a file, 64 MiB in all, or 1000 files. No error repeats
// anything of a file's content.
func Fingerprint(paths []string) (string, error) {
	seen, err := survey(paths)
	if err != nil {
		return "", err
	}
	return digest(seen)
}

func digest(seen []entry) (string, error) {
	if len(seen) == 0 {
		return "", nil
	}
	h := sha256.New()
	left := int64(maxTotal)
	for _, e := range seen {
		field(h, []byte(e.path))
		h.Write([]byte{e.kind})
		if e.kind == missing {
			continue
		}
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(e.mode)))
		if e.kind != regular {
			continue
		}
		sum, n, err := contentOf(e.path)
		if err != nil {
			return "", err
		}
		if left -= n; left < 0 {
			return "", fmt.Errorf("watching %s: more than %d MiB in all", e.path, maxTotal>>20)
		}
		h.Write(sum)
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// field writes b so that it cannot run into what follows.
func field(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
	h.Write(b)
}

// contentOf returns the hash of a regular file's content, and its length. A file that has gone since it was seen has
// none: the next look tells.
func contentOf(path string) ([]byte, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may have become a pipe, which would block
	if isMissing(err) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("watching a file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("watching a file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, nil
	}
	h := sha256.New()
	n, err := io.CopyN(h, f, maxFile+1)
	switch {
	case err == nil:
		return nil, 0, fmt.Errorf("watching %s: more than %d MiB", path, maxFile>>20)
	case !errors.Is(err, io.EOF):
		return nil, 0, fmt.Errorf("watching a file: %w", err)
	}
	return h.Sum(nil), n, nil
}
