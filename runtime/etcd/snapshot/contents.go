package snapshot

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The keys, behind whatever prefix the API server was given, of the objects that are looked at.
const (
	namespaceKey     = "/namespaces/kube-system"
	trustKey         = "/configmaps/kube-system/kube-root-ca.crt"
	configurationKey = "/configmaps/kube-system/kubeadm-config"
)

// openTimeout bounds the wait for a database that a running etcd holds.
const openTimeout = time.Second

// ErrInUse is the answer about a database that etcd has open.
var ErrInUse = errors.New("etcd has it open")

// Idle returns ErrInUse while an etcd has the database at path open. Where there is no database, none has.
func Idle(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("etcd's database %s: %w", path, cause(err))
	}
	defer f.Close()                                          // which gives the lock back
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) // bbolt's own lock, bolt_unix.go
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrInUse
	}
	if err != nil {
		return fmt.Errorf("etcd's database %s: %w", path, err)
	}
	return nil
}

// Database returns what the database of a member that does not run holds: DIR/member/snap/db. It has no sum to verify.
func Database(path string) (Info, error) {
	info, err := contents(path)
	if err != nil {
		return Info{}, fmt.Errorf("etcd's database %s: %w", path, err)
	}
	return info, nil
}

// contents walks the database's keys in the order of their revisions.
func contents(path string) (info Info, err error) {
	defer func() { // bbolt's answer to a page that makes no sense
		if r := recover(); r != nil {
			err = fmt.Errorf("the database is damaged: %v", r)
		}
	}()
	// The file is mapped: a page that is beyond its end is a fault, which ends the program unless it is a panic.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err := bbolt.Open(path, 0o400, &bbolt.Options{ReadOnly: true, Timeout: openTimeout})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return Info{}, ErrInUse
	}
	if err != nil {
		return Info{}, fmt.Errorf("opening the database: %w", cause(err))
	}
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		keys := tx.Bucket([]byte("key"))
		if keys == nil {
			return errors.New("the database is none of etcd's: it has no bucket \"key\"")
		}
		live := map[string]struct{}{}
		wanted := []struct {
			suffix, key string
			stored      []byte
		}{{suffix: namespaceKey}, {suffix: trustKey}, {suffix: configurationKey}}
		err := keys.ForEach(func(revision, value []byte) error {
			// etcd v3.6 server/storage/mvcc/revision.go: main, "_", sub; and "t" behind a deletion.
			if len(revision) < 17 {
				return fmt.Errorf("the database is damaged: a revision of %d bytes", len(revision))
			}
			info.Revision = max(info.Revision, int64(binary.BigEndian.Uint64(revision)))
			key, stored, err := keyValue(value)
			if err != nil {
				return err
			}
			if key == "" { // what a restore that raised the revision leaves
				return nil
			}
			if len(revision) > 17 {
				delete(live, key)
				stored = nil
			} else {
				live[key] = struct{}{}
			}
			for i := range wanted {
				w := &wanted[i]
				// What ends like it is longer: /serviceaccounts/namespaces/kube-system, in a namespace that somebody named so.
				if strings.HasSuffix(key, w.suffix) && (w.key == "" || len(key) <= len(w.key)) {
					w.key, w.stored = key, append([]byte(nil), stored...)
				}
			}
			return nil
		})
		info.Keys = len(live)
		info.Cluster = NamespaceUID(wanted[0].stored)
		info.Trust = configMapValue(wanted[1].stored, "ca.crt")
		info.Configuration = ClusterConfiguration(wanted[2].stored)
		return err
	})
	return info, err
}

// keyValue takes an encoded mvccpb.KeyValue apart: the key is its field 1, the value 5.
func keyValue(data []byte) (key string, value []byte, err error) {
	for len(data) > 0 {
		id, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return "", nil, fmt.Errorf("the database is damaged: %w", protowire.ParseError(n))
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(id, kind, data); n < 0 {
			return "", nil, fmt.Errorf("the database is damaged: %w", protowire.ParseError(n))
		}
		if kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(data)
			switch id {
			case 1:
				key = string(content)
			case 5:
				value = content
			}
		}
		data = data[n:]
	}
	return key, value, nil
}

// object is what slipway looks at: both can decode themselves.
type object interface{ Unmarshal([]byte) error }

// decode decodes a stored object, as protobuf or as JSON. It reports false for what is encrypted, and for nothing.
func decode(stored []byte, into object) bool {
	if raw, ok := strings.CutPrefix(string(stored), "k8s\x00"); ok {
		var wrapped runtime.Unknown
		return wrapped.Unmarshal([]byte(raw)) == nil && into.Unmarshal(wrapped.Raw) == nil
	}
	return len(stored) > 0 && stored[0] == '{' && json.Unmarshal(stored, into) == nil
}

// NamespaceUID returns the UID of a namespace as the API server stores it; "" where it cannot be read.
func NamespaceUID(stored []byte) string {
	var namespace corev1.Namespace
	if !decode(stored, &namespace) {
		return ""
	}
	return string(namespace.UID)
}

func configMapValue(stored []byte, name string) []byte {
	var m corev1.ConfigMap
	if !decode(stored, &m) || m.Data[name] == "" {
		return nil
	}
	return []byte(m.Data[name])
}

// ClusterConfiguration returns kubeadm's ClusterConfiguration of the ConfigMap kubeadm-config as the API server stores
// it; nil where it cannot be read.
func ClusterConfiguration(stored []byte) []byte {
	return configMapValue(stored, "ClusterConfiguration")
}
