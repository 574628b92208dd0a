package garbage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/runtime/garbage/marker"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// disk is a node's directories below a temporary one, with what is known of pods.
type disk struct {
	t       *testing.T
	root    string
	node    podspec.Node
	known   Known
	unknown error
	asked   int
	// comesBack is known from the second time on that Known is asked in a round.
	comesBack []string
	cgroups   cgroups
	orphans   *Orphans
	now       time.Time
}

// cgroups notes what is removed; those in busy have processes.
type cgroups struct {
	removed []string
	busy    string
}

func (c *cgroups) Remove(path string) error {
	if c.busy != "" && strings.Contains(path, c.busy) {
		return errors.New("processes are left in it: 42")
	}
	c.removed = append(c.removed, path)
	return nil
}

func newDisk(t *testing.T) *disk {
	root := t.TempDir()
	d := &disk{t: t, root: root, now: noon, node: podspec.Node{
		Name: "n1", KubeletRoot: filepath.Join(root, "kubelet"), PodLogsDir: filepath.Join(root, "pods"),
		ContainerLogsDir: filepath.Join(root, "containers"), CgroupDriver: "cgroupfs",
	}}
	d.orphans = &Orphans{
		Node: d.node,
		Known: func(context.Context) (Known, error) {
			known := d.known
			if d.asked++; d.asked > 1 {
				known.Pods = slices.Concat(known.Pods, d.comesBack)
			}
			return known, d.unknown
		},
		Remove: Remover{Node: d.node, Cgroups: &d.cgroups}.Remove,
	}
	return d
}

// put writes a file below the root, with its directories.
func (d *disk) put(path, text string) {
	d.t.Helper()
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *disk) link(target, path string) {
	d.t.Helper()
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(d.root, target), path); err != nil {
		d.t.Fatal(err)
	}
}

// pod makes what a pod of one container has on disk, with or without a marker.
func (d *disk) pod(name, uid string, marked bool) {
	d.t.Helper()
	if marked {
		d.put("kubelet/pods/"+uid+"/"+marker.Name, string(marker.Encode(marker.Pod{Namespace: "ns", Name: name, UID: uid})))
	}
	d.put("kubelet/pods/"+uid+"/volumes/kubernetes.io~empty-dir/data/file", "data")
	d.put("pods/ns_"+name+"_"+uid+"/app/0.log", "log\n")
	d.link("pods/ns_"+name+"_"+uid+"/app/0.log", "containers/"+name+"_ns_app-id"+uid+".log")
}

// round collects once, after a time.
func (d *disk) round(after time.Duration) error {
	d.t.Helper()
	d.asked, d.now = 0, d.now.Add(after)
	return d.orphans.collect(d.t.Context(), d.now, quiet())
}

// rounds collects as often as it takes for what may go to be gone.
func (d *disk) rounds() {
	d.t.Helper()
	for range 3 {
		if err := d.round(time.Minute); err != nil {
			d.t.Fatal(err)
		}
	}
}

// want checks which files and links are left: those of each pod, shortened to its parts.
func (d *disk) want(paths ...string) {
	d.t.Helper()
	var got []string
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(d.root, path)
			got = append(got, rel)
		}
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(paths)
	if diff := cmp.Diff(paths, got); diff != "" {
		d.t.Errorf("files (-want +got):\n%s", diff)
	}
}

// all are the files that pod makes.
func all(name, uid string, marked bool) []string {
	out := []string{
		"containers/" + name + "_ns_app-id" + uid + ".log", "kubelet/pods/" + uid + "/volumes/kubernetes.io~empty-dir/data/file",
		"pods/ns_" + name + "_" + uid + "/app/0.log",
	}
	if marked {
		out = append(out, "kubelet/pods/"+uid+"/"+marker.Name)
	}
	return out
}

func TestOrphanIsRemovedWithAllItHas(t *testing.T) {
	d := newDisk(t)
	d.pod("gone-n1", "aa", true)
	d.pod("kept-n1", "bb", true)
	d.known = Known{Pods: []string{"bb"}}
	d.rounds()
	d.want(all("kept-n1", "bb", true)...)
	if want := podspec.CgroupParents("aa", d.node); !slices.Equal(d.cgroups.removed, want) {
		t.Errorf("cgroups %q removed, want %q", d.cgroups.removed, want)
	}
}

// TestOthersAreLeftAlone: a kubelet's pods, another instance's, and whatever else lies there, are nobody's business.
func TestOthersAreLeftAlone(t *testing.T) {
	d := newDisk(t)
	d.pod("kubelets-n1", "cc", false)
	d.pod("blue-n1", "dd", false)
	d.put("kubelet/pods/dd/"+marker.Name, string(marker.Encode(marker.Pod{Instance: "blue", Namespace: "ns", Name: "blue-n1", UID: "dd"})))
	d.pod("copied-n1", "ee", false)
	d.put("kubelet/pods/ee/"+marker.Name, string(marker.Encode(marker.Pod{Namespace: "ns", Name: "copied-n1", UID: "aa"})))
	d.pod("broken-n1", "ff", false)
	d.put("kubelet/pods/ff/"+marker.Name, "{")
	d.put("elsewhere/"+marker.Name, string(marker.Encode(marker.Pod{Namespace: "ns", Name: "linked-n1", UID: "ab"})))
	d.link("elsewhere", "kubelet/pods/ab")
	d.put("pods/ns_logs-n1_ac/app/0.log", "logs without a directory\n")
	d.link("nowhere", "containers/stranger_ns_app-idxx.log")
	d.rounds()
	d.want(slices.Concat(all("kubelets-n1", "cc", false), all("blue-n1", "dd", true), all("copied-n1", "ee", true), all("broken-n1", "ff", true),
		[]string{"elsewhere/" + marker.Name, "kubelet/pods/ab", "pods/ns_logs-n1_ac/app/0.log", "containers/stranger_ns_app-idxx.log"})...)
	if len(d.cgroups.removed) > 0 {
		t.Errorf("cgroups %q removed", d.cgroups.removed)
	}
}

// TestTwoLooksAtLeastAMinuteApart, without its pod being known in between.
func TestTwoLooksAtLeastAMinuteApart(t *testing.T) {
	d := newDisk(t)
	d.pod("gone-n1", "aa", true)
	steps := []struct {
		after time.Duration
		known []string
		left  bool
	}{
		{0, nil, true}, {59 * time.Second, nil, true},
		{time.Second, []string{"aa"}, true}, // it came back: the count begins anew
		{time.Second, nil, true}, {59 * time.Second, nil, true}, {time.Second, nil, false},
	}
	for i, s := range steps {
		d.known.Pods = s.known
		if err := d.round(s.after); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(podspec.PodDir("aa", d.node)); (err == nil) != s.left {
			t.Fatalf("after step %d: %v, want it there: %t", i, err, s.left)
		}
	}
}

// TestAPodThatComesBackAtTheLastMoment is known when it is asked for again before the removal.
func TestAPodThatComesBackAtTheLastMoment(t *testing.T) {
	d := newDisk(t)
	d.pod("back-n1", "aa", true)
	d.comesBack = []string{"aa"}
	d.rounds()
	d.want(all("back-n1", "aa", true)...)
}

// TestSparedByName: something is wrong with its manifest, so its uid is not known.
func TestSparedByName(t *testing.T) {
	d := newDisk(t)
	d.pod("wrong-n1", "aa", true)
	d.known.Names = []string{"ns/wrong-n1"}
	d.rounds()
	d.want(all("wrong-n1", "aa", true)...)
}

func TestNothingGoesWhileNotAllIsKnown(t *testing.T) {
	d := newDisk(t)
	d.pod("gone-n1", "aa", true)
	d.unknown = ErrUnknown
	for range 3 {
		if err := d.round(time.Hour); !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	d.want(all("gone-n1", "aa", true)...)
}

// TestWhatIsInUseStays: while a process is left in a pod's cgroup, none of its files goes, and the others' do.
func TestWhatIsInUseStays(t *testing.T) {
	d := newDisk(t)
	d.pod("busy-n1", "aa", true)
	d.pod("gone-n1", "bb", true)
	d.cgroups.busy = "podaa"
	for i := range 3 {
		if err := d.round(time.Minute); (err != nil) != (i > 0) {
			t.Errorf("round %d: %v", i, err)
		}
	}
	d.want(all("busy-n1", "aa", true)...)
	d.cgroups.busy = ""
	if err := d.round(time.Minute); err != nil {
		t.Error(err)
	}
	d.want()
}

// TestDeadLinks of our pods go when the runtime has no such container; during a rotation it has.
func TestDeadLinks(t *testing.T) {
	d := newDisk(t)
	d.pod("etcd-n1", "aa", true)
	d.pod("kubelets-n1", "cc", false)
	d.known = Known{Pods: []string{"aa"}, Containers: []string{"idrotated"}}
	d.link("pods/ns_etcd-n1_aa/app/1.log", "containers/etcd-n1_ns_app-iddead.log")
	d.link("pods/ns_etcd-n1_aa/app/2.log", "containers/etcd-n1_ns_app-idrotated.log")
	d.link("pods/ns_kubelets-n1_cc/app/1.log", "containers/kubelets-n1_ns_app-iddead.log")
	d.rounds()
	d.want(slices.Concat(all("etcd-n1", "aa", true), all("kubelets-n1", "cc", false),
		[]string{"containers/etcd-n1_ns_app-idrotated.log", "containers/kubelets-n1_ns_app-iddead.log"})...)
}

// TestAnEmptyNode has no directories at all.
func TestAnEmptyNode(t *testing.T) {
	d := newDisk(t)
	d.rounds()
	d.want()
}

// TestRemovePodDirUnmountsFirst: what is mounted below is not emptied, and nothing goes while it cannot be unmounted.
func TestRemovePodDirUnmountsFirst(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	d := newDisk(t)
	d.pod("mounts-n1", "aa", true)
	dir := podspec.PodDir("aa", d.node)
	d.put("elsewhere/precious", "data")
	bound, memory := filepath.Join(dir, "bound"), filepath.Join(dir, "memory")
	for _, path := range []string{bound, memory} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	}
	if err := unix.Mount(filepath.Join(d.root, "elsewhere"), bound, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(memory, "inner")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", inner, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	open, err := os.Create(filepath.Join(memory, "open"))
	if err != nil {
		t.Fatal(err)
	}
	if err := RemovePodDir(dir); err == nil || !strings.Contains(err.Error(), "unmounting "+memory) {
		t.Errorf("while a file on a mount is open: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, marker.Name)); err != nil {
		t.Errorf("the marker went although the directory stays: %v", err)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one that is gone is no error
		if err := RemovePodDir(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	if _, err := os.Stat(filepath.Join(d.root, "elsewhere/precious")); err != nil {
		t.Errorf("what was only mounted is gone: %v", err)
	}
}

// TestTheMarkerGoesLast: as long as anything of the directory cannot be removed, it is still known as ours.
func TestTheMarkerGoesLast(t *testing.T) {
	d := newDisk(t)
	d.pod("stuck-n1", "aa", true)
	dir := podspec.PodDir("aa", d.node)
	f, err := os.Open(filepath.Join(dir, "volumes/kubernetes.io~empty-dir/data/file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		t.Skipf("no file can be made immutable here: %v", err)
	}
	err = RemovePodDir(dir)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Error("the directory of an immutable file was removed")
	}
	if _, err := os.Stat(filepath.Join(dir, marker.Name)); err != nil {
		t.Errorf("the marker went before the rest: %v", err)
	}
	if err := RemovePodDir(dir); err != nil {
		t.Error(err)
	}
}

// TestRun: images at once, again after the minute in which all became known, then every 5 minutes; orphans every minute; a
// failure told once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		looks := map[string]int{}
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer stop()
		s := &store{}
		images := s.collector(nil)
		images.List = func(context.Context) ([]Image, error) {
			if looks["images"]++; looks["images"] == 1 {
				return nil, ErrUnknown // which is tried again after a minute
			}
			return nil, nil
		}
		known := make(chan int, 100)
		c := Collector{
			Images: images, Now: time.Now, Log: slog.New(slog.NewTextHandler(&said, nil)),
			Orphans: &Orphans{Known: func(context.Context) (Known, error) { known <- 1; return Known{}, fmt.Errorf("no answer") }},
		}
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
		if looks["images"] != 3 || len(known) != 11 {
			t.Errorf("%d looks at images and %d at orphans within 10 minutes, want 3 and 11", looks["images"], len(known))
		}
		if n := strings.Count(said.String(), "no answer"); n != 1 || strings.Contains(said.String(), ErrUnknown.Error()) {
			t.Errorf("it said:\n%s", said.String())
		}
	})
}

// TestRunWithImagesOff asks for nothing.
func TestRunWithImagesOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		c := Collector{Images: &Images{Policy: Policy{High: 100, Low: 80}}, Now: time.Now, Log: quiet()}
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	})
}
