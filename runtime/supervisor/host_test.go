package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/slipway-k8s/slipway/runtime/cgroup"
	"github.com/slipway-k8s/slipway/runtime/lifecycle"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// tree lists what lies below a directory: mode, name, target or content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "%s %s", info.Mode(), strings.TrimPrefix(path, dir+"/"))
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, " %q", data)
		}
		out.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestMakeLayout(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("kept"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("private"), 0o700); err != nil {
		t.Fatal(err)
	}
	layout := []podspec.HostPath{
		{Path: at("a/b"), Mode: 0o750},
		{Path: at("private"), Mode: 0o755},
		{Path: at("open"), Mode: 0o777, Force: true},
		{Path: at("made"), Kind: podspec.MakeFile, Mode: 0o644},
		{Path: at("kept"), Kind: podspec.MakeFile, Mode: 0o644},
		{Path: at("written"), Kind: podspec.WriteFile, Mode: 0o640, Content: []byte("new")},
		{Path: at("kept"), Kind: podspec.NeedFile},
		{Path: at("a"), Kind: podspec.NeedDir},
		{Path: "/dev/null", Kind: podspec.NeedCharDevice},
	}
	want := `drwxr-x--- a
drwxr-x--- a/b
-rw------- kept "old"
-rw-r--r-- made ""
drwxrwxrwx open
drwx------ private
-rw-r----- written "new"
`
	for range 2 { // again changes nothing
		if err := makeLayout(layout); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
			t.Errorf("layout (-want +got):\n%s", diff)
		}
	}

	// A file that is mounted in a container is changed in place.
	before, err := os.Stat(at("written"))
	if err != nil {
		t.Fatal(err)
	}
	layout[5].Content = []byte("newer")
	if err := makeLayout(layout); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(at("written")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
}

func TestLayoutErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		entry podspec.HostPath
		want  string
	}{
		{podspec.HostPath{Path: file, Field: "spec.volumes[0] data"}, "spec.volumes[0] data: making the directory " + file + ": there is a regular file"},
		{podspec.HostPath{Path: file, Kind: podspec.NeedDir}, file + " is a regular file, the manifest wants a directory"},
		{podspec.HostPath{Path: dir, Kind: podspec.NeedSocket}, dir + " is a directory, the manifest wants a socket"},
		{podspec.HostPath{Path: "/dev/null", Kind: podspec.NeedBlockDevice}, "/dev/null is a character device, the manifest wants a block device"},
		{podspec.HostPath{Path: dir + "/none", Kind: podspec.NeedFile}, "looking for " + dir + "/none: stat " + dir + "/none: no such file or directory"},
	} {
		if err := makeLayout([]podspec.HostPath{c.entry}); err == nil || err.Error() != c.want {
			t.Errorf("%v\nwant %s", err, c.want)
		}
	}
}

// handWorker is a worker that nobody runs.
func handWorker(t *testing.T) (*worker, *cgroups) {
	dir := t.TempDir()
	groups := &cgroups{there: map[string]podspec.CgroupResources{}}
	s := &Supervisor{c: Config{Cgroups: groups, Log: slog.New(slog.DiscardHandler), Node: podspec.Node{
		Name: nodeName, KubeletRoot: filepath.Join(dir, "kubelet"), PodLogsDir: filepath.Join(dir, "pods"), ContainerLogsDir: filepath.Join(dir, "containers"),
	}}}
	return newWorker(s, "kube-system/etcd-n1", nil, func() {}), groups
}

func touch(t *testing.T, path string) string {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.Symlink(target, path)); err != nil {
		t.Fatal(err)
	}
}

// TestCleanUp removes what belongs to one version of the pod, and nothing else.
func TestCleanUp(t *testing.T) {
	w, groups := handWorker(t)
	root := filepath.Dir(w.s.c.Node.KubeletRoot)
	for _, uid := range []string{"1", "11"} {
		touch(t, filepath.Join(root, "kubelet/pods", uid, "volumes/kubernetes.io~empty-dir/tmp/file"))
		log := touch(t, filepath.Join(root, "pods/kube-system_etcd-n1_"+uid, "etcd/0.log"))
		link(t, log, filepath.Join(root, "containers/etcd-n1_kube-system_etcd-"+uid+".log"))
		groups.there["/kubepods/burstable/pod"+uid] = podspec.CgroupResources{}
	}
	groups.there["/kubepods/pod1"] = podspec.CgroupResources{}
	for range 2 { // again changes nothing
		if err := w.cleanUp("1"); err != nil {
			t.Fatal(err)
		}
		if got := tree(t, root); strings.Contains(got, "/1/") || strings.Contains(got, "_1\n") || !strings.Contains(got, "kubelet/pods/11/volumes/kubernetes.io~empty-dir/tmp/file") ||
			!strings.Contains(got, "pods/kube-system_etcd-n1_11/etcd/0.log") || !strings.Contains(got, "etcd-11.log") || strings.Contains(got, "etcd-1.log") {
			t.Errorf("left:\n%s", got)
		}
		if _, other := groups.there["/kubepods/burstable/pod11"]; len(groups.there) != 1 || !other {
			t.Errorf("cgroups left: %v", groups.there)
		}
	}
	for _, uid := range []string{"", ".", "..", "../pods", "/", "11/volumes"} { // from somebody else's labels
		if err := w.cleanUp(uid); err != nil {
			t.Errorf("%q: %v", uid, err)
		}
	}
	if got := tree(t, root); !strings.Contains(got, "tmp/file") {
		t.Errorf("a uid that is none removed things; left:\n%s", got)
	}
	groups.busy = cgroup.ErrBusy
	if err := w.cleanUp("11"); !errors.Is(err, cgroup.ErrBusy) {
		t.Errorf("with processes in the cgroup: %v, want %v", err, cgroup.ErrBusy)
	}
}

// TestCleanUpUnmounts never removes what lies on another file system.
func TestCleanUpUnmounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	w, _ := handWorker(t)
	volume := filepath.Join(w.s.c.Node.KubeletRoot, "pods/1/volumes/kubernetes.io~empty-dir/tmp")
	entry := podspec.HostPath{Path: volume, Kind: podspec.MountTmpfs, Mode: 0o777, Force: true, Size: 1 << 20}
	for range 2 { // the second finds it mounted
		if err := makeLayout([]podspec.HostPath{entry}); err != nil {
			if errors.Is(err, unix.EPERM) {
				t.Skipf("this machine does not let root mount: %v", err)
			}
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	var stat unix.Statfs_t
	if err := unix.Statfs(volume, &stat); err != nil || stat.Type != unix.TMPFS_MAGIC || stat.Blocks*uint64(stat.Bsize) != 1<<20 {
		t.Errorf("file system %x with %d blocks of %d, %v; want a tmpfs of 1 MiB", stat.Type, stat.Blocks, stat.Bsize, err)
	}
	precious := touch(t, filepath.Join(t.TempDir(), "precious"))
	inner := filepath.Join(volume, "inner")
	if err := errors.Join(os.Mkdir(inner, 0o755), unix.Mount(filepath.Dir(precious), inner, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(inner, unix.MNT_DETACH) })
	if err := w.cleanUp("1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("a file of a bind mount was removed: %v", err)
	}
	if got := tree(t, w.s.c.Node.KubeletRoot); got != "drwxr-xr-x pods\n" && got != "drwxrwxrwx pods\n" {
		t.Errorf("left:\n%s", got)
	}
}

// TestRemoveTraces takes a removed container's logs away and leaves those of other attempts.
func TestRemoveTraces(t *testing.T) {
	w, _ := handWorker(t)
	root := filepath.Dir(w.s.c.Node.KubeletRoot)
	logs := filepath.Join(root, "pods/kube-system_etcd-n1_1/etcd")
	for _, name := range []string{"1.log", "1.log.20260301-120000", "11.log", "2.log"} {
		touch(t, filepath.Join(logs, name))
	}
	touch(t, filepath.Join(root, "kubelet/pods/1/containers/etcd/00000001"))
	touch(t, filepath.Join(root, "kubelet/pods/1/containers/etcd/00000002"))
	link(t, filepath.Join(logs, "1.log"), filepath.Join(root, "containers/etcd-n1_kube-system_etcd-dead.log"))
	if err := w.removeTraces(lifecycle.Action{Kind: lifecycle.RemoveContainer, ID: "dead", Name: "etcd", UID: "1", Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	var files []string
	for l := range strings.Lines(tree(t, root)) {
		if !strings.HasPrefix(l, "d") {
			files = append(files, strings.Fields(l)[1])
		}
	}
	want := []string{"kubelet/pods/1/containers/etcd/00000002", "pods/kube-system_etcd-n1_1/etcd/11.log", "pods/kube-system_etcd-n1_1/etcd/2.log"}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files left (-want +got):\n%s", diff)
	}
}

func TestLastWords(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const line = "2026-03-01T12:00:00Z stderr F "
	log := file("0.log", strings.Repeat(line+"early\n", 200)+line+"panic: no disk\n")
	long := file("long", strings.Repeat("x", 5000)+"end")
	base := func(message, words, log, policy string, code int32) *runtimeapi.ContainerStatus {
		return &runtimeapi.ContainerStatus{
			State: runtimeapi.ContainerState_CONTAINER_EXITED, StartedAt: 1, ExitCode: code, Message: message, LogPath: log,
			Mounts: []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: dir}, {ContainerPath: "/dev/termination-log", HostPath: words}},
			Annotations: map[string]string{
				podspec.AnnotationTerminationMessagePath: "/dev/termination-log", podspec.AnnotationTerminationMessagePolicy: policy,
			},
		}
	}
	running := base("", file("early", "not yet"), log, "File", 0)
	running.State = runtimeapi.ContainerState_CONTAINER_RUNNING
	for name, c := range map[string]struct {
		st   *runtimeapi.ContainerStatus
		want func(string) bool
	}{
		"its message":         {base("", file("words", "out of disk"), log, "File", 1), is("out of disk")},
		"after the runtime's": {base("OOM", file("words", "out of disk"), log, "File", 1), is("OOM: out of disk")},
		"the runtime's alone": {base("OOM", file("empty", ""), log, "File", 1), is("OOM")},
		"no file":             {base("", filepath.Join(dir, "none"), log, "File", 1), is("")},
		"4096 bytes of it":    {base("", long, log, "File", 1), func(s string) bool { return len(s) == 4096 && strings.HasSuffix(s, "end") }},
		"not text":            {base("", file("bytes", "a\xffb"), log, "File", 1), is("a�b")},
		"the log on an error": {base("", file("empty", ""), log, "FallbackToLogsOnError", 1), func(s string) bool {
			return strings.HasSuffix(s, "early\npanic: no disk") && strings.Count(s, "\n") == 79
		}},
		"no log on a success":      {base("", file("empty", ""), log, "FallbackToLogsOnError", 0), is("")},
		"the message before a log": {base("", file("words", "out of disk"), log, "FallbackToLogsOnError", 1), is("out of disk")},
		"an error without a log":   {base("", file("empty", ""), filepath.Join(dir, "none.log"), "FallbackToLogsOnError", 1), is("")},
		"of one that runs":         {running, is("")},
	} {
		if got := lastWords(c.st); !c.want(got) {
			t.Errorf("%s: %.200q", name, got)
		}
	}
}

func is(want string) func(string) bool { return func(got string) bool { return got == want } }
