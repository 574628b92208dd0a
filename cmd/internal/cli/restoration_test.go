package cli

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/phases/artifact"
	"github.com/slipway-k8s/slipway/phases/config"
	"github.com/slipway-k8s/slipway/phases/plane"
	"github.com/slipway-k8s/slipway/runtime/etcd/snapshot"
)

// dataDir makes an etcd data directory of files, and a restoration of it.
func dataDir(t *testing.T, files ...string) *restoration {
	t.Helper()
	silent := &rollout{report: func(string) {}}
	r := &restoration{standstill: &standstill{roll: silent}, member: plane.Member{DataDir: t.TempDir()}, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	for _, name := range files {
		path := filepath.Join(r.member.DataDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// holds lists the files of a data directory.
func holds(t *testing.T, r *restoration) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(r.member.DataDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(r.member.DataDir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

const keptAs = "before-restore-20261128T120000Z"

func TestExchangeOfData(t *testing.T) {
	prepared := []string{"slipway-restore/member/new", "slipway-restore/member/slipway-unused"}
	for name, tc := range map[string]struct {
		files []string
		do    func(*restoration) error
		want  []string
	}{
		"exchanged": {append([]string{"member/old"}, prepared...), (*restoration).exchange,
			[]string{"member/new", "member/slipway-unused", "slipway-restore/member/old"}},
		"there was no data": {prepared, (*restoration).exchange, []string{"member/new", "member/slipway-unused"}},
		"proven, with a snapshot of the old": {append([]string{"member/old"}, prepared...), func(r *restoration) error {
			if err := r.exchange(); err != nil {
				return err
			}
			return r.settle(true)
		}, []string{"member/new"}},
		"proven, without one": {append([]string{"member/old"}, prepared...), func(r *restoration) error {
			if err := r.exchange(); err != nil {
				return err
			}
			return r.settle(false)
		}, []string{keptAs + "/member/old", "member/new"}},
		"begun anew before the exchange": {append([]string{"member/old"}, prepared...), (*restoration).clear, []string{"member/old"}},
		"begun anew while etcdutl wrote": {[]string{"member/old", "slipway-restore/member/half"}, (*restoration).clear, []string{"member/old"}},
		"begun anew after the exchange": {[]string{"member/new", "member/slipway-unused", "slipway-restore/member/old"}, (*restoration).clear,
			[]string{keptAs + "/member/old", "member/new", "member/slipway-unused"}},
		"interrupted at its end, without a snapshot of the old": {[]string{"member/new", "member/slipway-unused", keptAs + "/member/old"}, (*restoration).clear,
			[]string{keptAs + "/member/old", "member/new"}},
		// Where the file system exchanges in steps: neither of the two is removed.
		"begun anew in the middle of the exchange": {[]string{"slipway-restore/member/old", "slipway-restore/member.swap/slipway-unused"}, (*restoration).clear,
			[]string{keptAs + "/member.swap/slipway-unused", keptAs + "/member/old"}},
		"begun anew in the middle of the way back": {[]string{"slipway-restore/member/slipway-unused", "slipway-restore/member.swap/old"}, (*restoration).clear,
			[]string{keptAs + "/member.swap/old", keptAs + "/member/slipway-unused"}},
		"begun anew after the exchange, to its end": {[]string{"member/first", "member/slipway-unused", "slipway-restore/member/old"}, func(r *restoration) error {
			if err := r.clear(); err != nil {
				return err
			}
			for _, name := range []string{"second", unused} {
				if err := os.MkdirAll(filepath.Join(r.prepared(), "member"), 0o700); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(r.prepared(), "member", name), nil, 0o600); err != nil {
					return err
				}
			}
			if err := r.exchange(); err != nil {
				return err
			}
			return r.settle(false)
		}, []string{keptAs + "-2/member/first", keptAs + "-2/member/slipway-unused", keptAs + "/member/old", "member/second"}},
		"begun for the first time": {[]string{"member/old"}, (*restoration).clear, []string{"member/old"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := dataDir(t, tc.files...)
			if err := tc.do(r); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, holds(t, r)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// While the mark is there, what the exchange has taken out is not removed by the next restore as something that etcdutl
// made.
func TestSettleKeepsTheMarkUntilTheOldDataIsOutOfTheWay(t *testing.T) {
	r := dataDir(t, "member/new", "member/slipway-unused")
	r.old = r.prepared() // which cannot be renamed: it is not there
	if err := r.settle(false); err == nil {
		t.Fatal("nothing was renamed")
	}
	if diff := cmp.Diff([]string{"member/new", "member/slipway-unused"}, holds(t, r)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDataIsNotExchangedWhileAnEtcdHasIt(t *testing.T) {
	r := dataDir(t, "member/snap/db", "slipway-restore/member/slipway-unused")
	f, err := os.Open(databaseOf(r.member.DataDir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := r.exchange(); !errors.Is(err, snapshot.ErrInUse) {
		t.Errorf("got %v, want %v", err, snapshot.ErrInUse)
	}
	if diff := cmp.Diff([]string{"member/snap/db", "slipway-restore/member/slipway-unused"}, holds(t, r)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAnExchangeInStepsThatFailsChangesNothing(t *testing.T) {
	broken := errors.New("input/output error")
	for step := range 3 {
		at := map[string]string{"a": "new", "b": "old"}
		done := 0
		err := swapInSteps("a", "b", "third", func(from, to string) error {
			if done++; done == step+1 {
				return broken
			}
			at[to] = at[from]
			delete(at, from)
			return nil
		})
		if !errors.Is(err, broken) {
			t.Errorf("step %d: %v", step, err)
		}
		if diff := cmp.Diff(map[string]string{"a": "new", "b": "old"}, at); diff != "" {
			t.Errorf("step %d, -want +got:\n%s", step, diff)
		}
	}
}

func TestRestorePodRunsEtcdutlForTheMember(t *testing.T) {
	pod := restorePod(plane.Member{Name: "edge1", DataDir: "/var/lib/etcd", Image: "etcd:3.6.8-0", PeerURLs: []string{"https://192.0.2.1:2380"}}, "/srv/a.db")
	want := "etcdutl snapshot restore /snapshot.db --data-dir=/var/lib/etcd/slipway-restore --name=edge1 --initial-cluster=edge1=https://192.0.2.1:2380 " +
		"--initial-advertise-peer-urls=https://192.0.2.1:2380 --bump-revision=1000000000 --mark-compacted"
	if diff := cmp.Diff(want, strings.Join(pod.Spec.Containers[0].Command, " ")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRestorableRefusesWhatAMembersRestoreWouldBreak(t *testing.T) {
	member := &plane.Member{Name: "edge1", DataDir: "/var/lib/etcd", PeerURLs: []string{"https://192.0.2.1:2380"}}
	for name, tc := range map[string]struct {
		member *plane.Member
		args   []string
		want   string
	}{
		"one member":      {member, []string{"--initial-cluster=edge1=https://192.0.2.1:2380"}, ""},
		"several members": {member, []string{"--initial-cluster=edge1=https://192.0.2.1:2380,edge2=https://192.0.2.2:2380"}, "several members"},
		"its log apart":   {member, []string{"--wal-dir=/wal"}, "--wal-dir"},
		"external":        {nil, nil, "external"},
	} {
		err := restorable(&plane.Plane{Member: tc.member, Components: map[string]*plane.Component{plane.Etcd: {Args: tc.args}}})
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestAnInterruptedMoveGoesOn(t *testing.T) {
	files := artifact.Disk{Root: t.TempDir()}
	address := netip.MustParseAddr
	p := &plane.Plane{Paths: config.NewPaths(""), Address: address("192.0.2.1"), Member: &plane.Member{Name: "edge1"}}
	m, err := moveOf(files, p, address("192.0.2.2"), "")
	if err != nil || m.From != p.Address || m.To != address("192.0.2.2") || m.ToName != "edge1" {
		t.Fatalf("%+v, %v", m, err)
	}
	record := `{"from":"192.0.2.1","to":"192.0.2.2"}`
	if err := files.Put(artifact.File{Path: recordPath(p.Paths), Data: []byte(record), Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	p.Address = address("192.0.2.2") // the manifests have moved already, other files have not
	if m, err = moveOf(files, p, address("192.0.2.2"), ""); err != nil || m.From != address("192.0.2.1") {
		t.Errorf("going on: %+v, %v", m, err)
	}
	for _, where := range []string{"192.0.2.1", "192.0.2.2"} { // wherever the manifests have come to
		p.Address = address(where)
		if m, err = moveOf(files, p, address("192.0.2.1"), ""); err != nil || m.From != address("192.0.2.2") || m.To != address("192.0.2.1") {
			t.Errorf("going back: %+v, %v", m, err)
		}
	}
	if _, err = moveOf(files, p, address("192.0.2.3"), ""); err == nil || !strings.Contains(err.Error(), "begun and is not finished") {
		t.Errorf("to a third address: %v", err)
	}
}
