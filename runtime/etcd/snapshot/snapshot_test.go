package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// write is one revision of a key; a nil value deletes it.
type write struct {
	revision int64
	key      string
	value    []byte
}

// database makes a database as etcd keeps it, and returns its path.
func database(t *testing.T, writes ...write) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		keys, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		for _, w := range writes {
			revision := binary.BigEndian.AppendUint64(nil, uint64(w.revision))
			revision = binary.BigEndian.AppendUint64(append(revision, '_'), 0)
			if w.value == nil {
				revision = append(revision, 't')
			}
			var kv []byte
			if w.key != "" {
				kv = protowire.AppendString(protowire.AppendTag(kv, 1, protowire.BytesType), w.key)
				kv = protowire.AppendVarint(protowire.AppendTag(kv, 3, protowire.VarintType), uint64(w.revision))
				kv = protowire.AppendBytes(protowire.AppendTag(kv, 5, protowire.BytesType), w.value)
			}
			if err := keys.Put(revision, kv); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// streamed is a database with the sum that etcd appends.
func streamed(t *testing.T, writes ...write) []byte {
	t.Helper()
	data, err := os.ReadFile(database(t, writes...))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

func file(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// stored is a namespace or a ConfigMap as the API server stores it.
func stored(t *testing.T, o interface{ Marshal() ([]byte, error) }) []byte {
	t.Helper()
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	unknown := runtime.Unknown{Raw: raw}
	data, err := unknown.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte("k8s\x00"), data...)
}

func kubeSystem(uid string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(uid)}}
}

func configMap(key, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{Data: map[string]string{key: value}}
}

func TestReadTellsWhatASnapshotHolds(t *testing.T) {
	data := streamed(t,
		write{2, "/registry/namespaces/kube-system", stored(t, kubeSystem("first"))},
		write{3, "/registry/configmaps/default/a", []byte("x")},
		write{4, "/registry/configmaps/default/a", []byte("y")},
		write{5, "/registry/configmaps/default/b", []byte("x")},
		write{6, "/registry/configmaps/default/b", nil},
		write{7, "/registry/configmaps/kube-system/kube-root-ca.crt", stored(t, configMap("ca.crt", "PEM"))},
		write{8, "/registry/configmaps/kube-system/kubeadm-config", stored(t, configMap("ClusterConfiguration", "kind: ClusterConfiguration\n"))},
		write{1_000_000_008, "", []byte{}},
	)
	path := file(t, data)
	got, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	want := Info{Size: int64(len(data)), SHA256: strings.ToLower(hexOf(sum[:])), Revision: 1_000_000_008, Keys: 4, Cluster: "first",
		Trust: []byte("PEM"), Configuration: []byte("kind: ClusterConfiguration\n")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(data) {
		t.Errorf("reading changed the file (%v)", err)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestNamespaceUID(t *testing.T) {
	asJSON, err := json.Marshal(kubeSystem("second"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		stored []byte
		want   string
	}{
		"protobuf":  {stored(t, kubeSystem("first")), "first"},
		"JSON":      {asJSON, "second"},
		"encrypted": {[]byte("k8s:enc:aescbc:v1:key1:\x00\x01"), ""},
		"nothing":   {nil, ""},
	} {
		if got := NamespaceUID(tc.stored); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestBadSnapshotsAreRefusedWithTheReason(t *testing.T) {
	good := streamed(t, write{2, "/registry/a", []byte("x")})
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	wrongSum := append([]byte(nil), good...)
	wrongSum[len(wrongSum)-1] ^= 1
	noise := make([]byte, 4096)
	noiseSum := sha256.Sum256(noise)
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                    {nil, "is empty"},
		"without the sum":          {good[:len(good)-sha256.Size], "has no sum at its end"},
		"cut in the sum":           {good[:len(good)-1], "is truncated"},
		"cut in the middle":        {good[:len(good)/2+100], "is truncated"},
		"cut to look whole":        {good[:512*5+sha256.Size], "is damaged"},
		"a flipped bit":            {flipped, "is damaged"},
		"a flipped bit in the sum": {wrongSum, "is damaged"},
		"no database":              {append(noise, noiseSum[:]...), "opening the database"},
	} {
		_, err := Read(file(t, tc.data))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none.db")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Read(t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}

func TestDatabaseOfARunningMemberIsInUse(t *testing.T) {
	path := database(t, write{2, "/registry/namespaces/kube-system", stored(t, kubeSystem("first"))})
	if info, err := Database(path); err != nil || info.Cluster != "first" {
		t.Errorf("at rest: %+v, %v", info, err)
	}
	held, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := Database(path); !errors.Is(err, ErrInUse) {
		t.Errorf("while it is open: %v, want %v", err, ErrInUse)
	}
}

func TestIdle(t *testing.T) {
	path := database(t)
	if err := Idle(path); err != nil {
		t.Errorf("at rest: %v", err)
	}
	if err := Idle(path + "-none"); err != nil {
		t.Errorf("without a database: %v", err)
	}
	held, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := Idle(path); !errors.Is(err, ErrInUse) {
		t.Errorf("while it is open: %v, want %v", err, ErrInUse)
	}
}

// A database has no sum: what was cut off is found where it is read, behind the end of the mapped file.
func TestATruncatedDatabaseIsAnError(t *testing.T) {
	var writes []write
	for i := range int64(300) {
		writes = append(writes, write{i + 2, "/registry/a", bytes.Repeat([]byte{'x'}, 1000)})
	}
	path := database(t, writes...)
	// Of 256 pages, all of which are mapped still; the root of the keys is the 157th.
	if err := os.Truncate(path, int64(150*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := Database(path); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %v", err)
	}
}

// Whoever may make a namespace and something in it must not decide which cluster a snapshot is of.
func TestTheNamespaceIsNotTakenForAnotherObject(t *testing.T) {
	impostor := write{3, "/registry/serviceaccounts/namespaces/kube-system", stored(t, kubeSystem("impostor"))}
	for name, writes := range map[string][]write{
		"later":   {{2, "/registry/namespaces/kube-system", stored(t, kubeSystem("real"))}, impostor},
		"earlier": {impostor, {4, "/registry/namespaces/kube-system", stored(t, kubeSystem("real"))}},
	} {
		if info, err := Database(database(t, writes...)); err != nil || info.Cluster != "real" {
			t.Errorf("%s: %q, %v", name, info.Cluster, err)
		}
	}
}

func TestSaveShowsNothingUntilItIsVerified(t *testing.T) {
	good := streamed(t, write{2, "/registry/a", []byte("x")})
	full := errors.New("no space left on device")
	for name, tc := range map[string]struct {
		fetch func(io.Writer) error
		want  string
	}{
		"whole": {func(w io.Writer) error { _, err := w.Write(good); return err }, ""},
		"cut":   {func(w io.Writer) error { _, err := w.Write(good[:len(good)-40]); return err }, "is truncated"},
		"failed": {func(w io.Writer) error {
			_, err := w.Write(good[:100])
			return errors.Join(err, full)
		}, "no space left on device"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "one.db")
			info, err := Save(path, func(w io.Writer) error {
				if names := entries(t, dir); len(names) != 1 || !strings.HasPrefix(names[0], ".one.db.tmp-") {
					t.Errorf("meanwhile the directory holds %q", names)
				}
				return tc.fetch(w)
			})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				if names := entries(t, dir); len(names) != 0 {
					t.Errorf("afterwards the directory holds %q", names)
				}
				return
			}
			if err != nil || info.Revision != 2 {
				t.Fatalf("%+v, %v", info, err)
			}
			stat, err := os.Stat(path)
			if err != nil || stat.Mode() != 0o600 {
				t.Errorf("%v, %v", stat.Mode(), err)
			}
			if _, err := Save(path, tc.fetch); err == nil || !strings.Contains(err.Error(), "is there already") {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestSaveReplacesNothingThatComesMeanwhile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "one.db")
	_, err := Save(path, func(w io.Writer) error {
		_, err := w.Write(streamed(t, write{2, "/registry/a", []byte("x")}))
		return errors.Join(err, os.WriteFile(path, []byte("another's"), 0o600))
	})
	if err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("got %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "another's" {
		t.Errorf("the other's file: %q, %v", data, err)
	}
	if names := entries(t, dir); len(names) != 1 {
		t.Errorf("the directory holds %q", names)
	}
}

func entries(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestListVerifies(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "usb[1]") // no pattern
	if list, err := List(dir); err != nil || len(list) != 0 {
		t.Errorf("a directory that is not there: %v, %v", list, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := streamed(t, write{2, "/registry/a", []byte("x")})
	other := streamed(t, write{3, "/registry/b", []byte("y")})
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	info, err := Read(put("good.db", good))
	if err != nil {
		t.Fatal(err)
	}
	note := Note{Time: at, Revision: 2, Keys: 1, Size: info.Size, SHA256: info.SHA256, KubernetesVersion: "v1.36.3"}
	if err := WriteNote(filepath.Join(dir, "good.db"), note); err != nil {
		t.Fatal(err)
	}
	note.Time = at.Add(time.Hour)
	if err := WriteNote(put("swapped.db", other), note); err != nil {
		t.Fatal(err)
	}
	put("without-note.db", other)
	put("cut.db", good[:1000])
	put(".good.db.tmp-1", good[:10])
	list, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range list {
		verdict := "verified"
		if s.Problem != "" {
			verdict = s.Problem
		}
		got[filepath.Base(s.Path)] = verdict
	}
	for name, want := range map[string]string{"good.db": "verified", "without-note.db": "verified", "cut.db": "is truncated", "swapped.db": "is not the one that"} {
		if !strings.Contains(got[name], want) {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("listed: %q", got)
	}
	if len(list) == 0 || list[0].Path != filepath.Join(dir, "good.db") || list[0].KubernetesVersion != "v1.36.3" {
		t.Errorf("the oldest first: %+v", list)
	}
}
