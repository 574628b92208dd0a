// Package snapshot reads the files that etcd's snapshots are saved in: whether they are whole, and what they hold.
package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// page is what bbolt's files are multiples of, and sha256.Size what etcd appends to them: the sum of all before it.
// etcd v3.6 etcdutl/snapshot/v3_snapshot.go tells a hash by this, too.
const page = 512

// Info is what a snapshot holds.
type Info struct {
	Size     int64  // bytes, etcd's sum among them
	SHA256   string // hex, of the whole file
	Revision int64
	Keys     int // that live at that revision
	// Cluster is the UID of the namespace kube-system: it is made with a cluster and never changes. "" where the snapshot
	// has none, or has it encrypted.
	Cluster string
	// Trust is the bundle of certificate authorities that pods of the cluster are given, PEM-encoded; nil where there is
	// none.
	Trust []byte
	// Configuration is kubeadm's ClusterConfiguration, from the ConfigMap kubeadm-config; nil where there is none.
	Configuration []byte
}

// Read verifies the snapshot at path and returns what it holds. It changes nothing, and looks into the database only
// when its sum is right.
func Read(path string) (Info, error) {
	size, sum, err := Verify(path)
	if err != nil {
		return Info{}, err
	}
	info, err := contents(path)
	if err != nil {
		return Info{}, fmt.Errorf("snapshot %s: %w", path, err)
	}
	info.Size, info.SHA256 = size, sum
	return info, nil
}

// Verify returns the size of the snapshot at path and its SHA-256, or what is wrong with the file: the sum that etcd
// appended is missing or is not that of what precedes it.
func Verify(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", fmt.Errorf("opening snapshot %s: %w", path, cause(err))
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return 0, "", fmt.Errorf("opening snapshot %s: %w", path, cause(err))
	}
	if !stat.Mode().IsRegular() {
		return 0, "", fmt.Errorf("snapshot %s is not a regular file", path)
	}
	size = stat.Size()
	switch {
	case size == 0:
		return 0, "", fmt.Errorf("snapshot %s is empty", path)
	case size%page == 0:
		return 0, "", fmt.Errorf("snapshot %s has no sum at its end: it is truncated, or the copy of a database and not a snapshot; "+
			"take one with: slipway etcd snapshot save", path)
	case size%page != sha256.Size:
		return 0, "", fmt.Errorf("snapshot %s is truncated: %d bytes are not a whole number of pages and a sum", path, size)
	}
	body, whole := sha256.New(), sha256.New()
	if _, err := io.Copy(io.MultiWriter(body, whole), io.LimitReader(f, size-sha256.Size)); err != nil {
		return 0, "", fmt.Errorf("reading snapshot %s: %w", path, cause(err))
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return 0, "", fmt.Errorf("reading snapshot %s: %w", path, cause(err))
	}
	if got := body.Sum(nil); string(got) != string(want) {
		return 0, "", fmt.Errorf("snapshot %s is damaged: etcd appended the SHA-256 %x, and what it holds has %x", path, want, got)
	}
	whole.Write(want)
	return size, hex.EncodeToString(whole.Sum(nil)), nil
}

// cause strips the operation and the path that os puts first: our message names them.
func cause(err error) error {
	var failed *fs.PathError
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
