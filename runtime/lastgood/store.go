package lastgood

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/slipway-k8s/slipway/runtime/manifest"
)

const (
	// maxFiles bounds a listing: a node has at most some hundred pods.
	maxFiles = 10000
	// maxLogLines and maxLogLine bound what a rejection keeps of a container's log.
	maxLogLines = 50
	maxLogLine  = 2 << 10
)

const (
	suffix  = ".json"
	broken  = ".broken"
	newFile = ".new-"
)

// Record is what is stored of one pod.
type Record struct {
	Good     *manifest.StaticPod // the last version that was ready; nil for none
	Rejected *Rejection          // the version that was given up for Good; nil for none
}

// Store keeps records in a directory, one file per pod. Manifests may hold secrets: only the owner can read the files,
// and no error repeats any of their content. Methods for different pods may be called at the same time; those for one
// pod are its owner's. What a method has written is durable before it returns.
type Store struct{ dir string }

// OpenStore returns the store in dir, which it makes if there is none. What writes that were interrupted have left is
// removed.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the store of good versions: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keeping the store of good versions to its owner: %w", err)
	}
	s := &Store{dir: dir}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, newFile) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("removing a half-written version: %w", err)
			}
		}
	}
	return s, nil
}

// Load returns what is stored of a pod, an empty Record for nothing. An error says that its file cannot be read or is
// damaged, in which case it has been set aside: the Record is empty, and the caller goes on without it.
func (s *Store) Load(fullName string) (Record, error) {
	path := s.path(fullName)
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, fmt.Errorf("reading the last good version of %s: %w", fullName, err)
	}
	record, err := decode(data, fullName)
	if err == nil {
		return record, nil
	}
	err = fmt.Errorf("the last good version of %s in %s is damaged: %w", fullName, path, err)
	return Record{}, errors.Join(err, os.Rename(path, path+broken))
}

// Keep stores the version as the last good one of its pod. A rejection ends, unless it was for this very version.
func (s *Store) Keep(p *manifest.StaticPod) error {
	record, err := s.Load(p.FullName())
	record.Good = p
	if record.Rejected != nil && record.Rejected.Good != Version(p) {
		record.Rejected = nil
	}
	if err := s.write(p.FullName(), record); err != nil {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w; it was replaced", err)
	}
	return nil
}

// Reject stores that a version was given up for the stored one. Of its log, the last 50 lines are kept, of each at most
// 2 KiB.
func (s *Store) Reject(r Rejection) error {
	record, err := s.Load(r.Pod)
	if err != nil {
		return err
	}
	if record.Good == nil {
		return fmt.Errorf("rejecting a version of %s: there is none to return to", r.Pod)
	}
	r.Good, r.Reason, r.Log = Version(record.Good), clip(r.Reason), tail(r.Log)
	record.Rejected = &r
	return s.write(r.Pod, record)
}

// Forgive ends the rejection of a version; the good one stays.
func (s *Store) Forgive(fullName string) error {
	record, err := s.Load(fullName)
	if err != nil || record.Rejected == nil {
		return err
	}
	record.Rejected = nil
	return s.write(fullName, record)
}

// Forget removes what is stored of a pod. Call it once the pod is gone, not when its manifest is: one that is moved away
// and back, or written by removing it first, keeps its last good version.
func (s *Store) Forget(fullName string) error {
	err := os.Remove(s.path(fullName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("forgetting the last good version of %s: %w", fullName, err)
	}
	return syncDir(s.dir)
}

// List returns the full names of the pods of which something is stored, sorted. Files that are not the store's, and
// those that cannot be read, are left out.
func (s *Store) List() ([]string, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var pods []string
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		data, err := read(filepath.Join(s.dir, name))
		if err != nil {
			continue
		}
		if c, err := open(data); err == nil && name == fileName(c.Pod) {
			pods = append(pods, c.Pod)
		}
	}
	slices.Sort(pods)
	return pods, nil
}

func (s *Store) names() ([]string, error) {
	d, err := os.Open(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the store of good versions: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(maxFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("listing the store of good versions: %w", err)
	}
	return names, nil
}

func (s *Store) path(fullName string) string { return filepath.Join(s.dir, fileName(fullName)) }

// fileName is NAMESPACE_NAME.json: no name of Kubernetes holds an underscore. What a file system would not take, or is no
// such name, is told apart by its hash.
func fileName(fullName string) string {
	const longest = 200 // of the 255 bytes that a file system takes, with room for broken and suffix
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '/'
	}
	name := strings.ReplaceAll(fullName, "/", "_")
	if strings.Count(fullName, "/") == 1 && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "_") && !strings.ContainsFunc(fullName, odd) && len(name) <= longest {
		return name + suffix
	}
	sum := sha256.Sum256([]byte(fullName))
	return "_" + hex.EncodeToString(sum[:]) + suffix
}

func (s *Store) write(fullName string, record Record) error {
	data, err := encode(fullName, record)
	if err != nil {
		return err
	}
	if err := replace(s.path(fullName), data); err != nil {
		return fmt.Errorf("storing the last good version of %s: %w", fullName, err)
	}
	return nil
}

func tail(lines []string) []string {
	if extra := len(lines) - maxLogLines; extra > 0 {
		lines = lines[extra:]
	}
	lines = slices.Clone(lines)
	for i, line := range lines {
		if len(line) > maxLogLine {
			lines[i] = strings.ToValidUTF8(line[:maxLogLine], "") + "…"
		}
	}
	return lines
}
