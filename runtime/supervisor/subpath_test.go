package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/slipway-k8s/slipway/runtime/garbage"
	"github.com/slipway-k8s/slipway/runtime/podspec"
)

// volumeAndPod are a volume's directory and a pod's, with nothing mounted below the latter when the test ends.
func volumeAndPod(t *testing.T) (volume, pod string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	volume, pod = filepath.Join(t.TempDir(), "volume"), filepath.Join(t.TempDir(), "pod")
	if err := errors.Join(os.Mkdir(volume, 0o755), os.Chmod(volume, 0o775|os.ModeSetgid), os.Mkdir(pod, 0o750)); err != nil {
		t.Fatal(err)
	}
	probe := filepath.Join(t.TempDir(), "probe")
	if err := os.Mkdir(probe, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(volume, probe, "", unix.MS_BIND, ""); errors.Is(err, unix.EPERM) {
		t.Skipf("this machine does not let root mount: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(probe, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range mountsBelow(t, pod) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
	})
	return volume, pod
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range mounts {
		out = append(out, m.Mountpoint)
	}
	return out
}

func part(volume, pod, sub string) podspec.HostPath {
	return podspec.HostPath{Kind: podspec.BindSubPath, Path: filepath.Join(pod, "volume-subpaths/data/main/0"), Mode: 0o750, Volume: volume, SubPath: sub,
		Field: "container main, mount /data"}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What is missing becomes a directory that is as open as the volume; it is bound once, however often it is asked for.
func TestSubPathIsMadeAndBoundOnce(t *testing.T) {
	volume, pod := volumeAndPod(t)
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	h := part(volume, pod, "a/b")
	for range 2 {
		if err := makeLayout([]podspec.HostPath{h}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{h.Path}, mountsBelow(t, pod)); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
	put(t, filepath.Join(h.Path, "file"), "from the container")
	if got := text(t, filepath.Join(volume, "a/b/file")); got != "from the container" {
		t.Errorf("the volume holds %q", got)
	}
	for dir, want := range map[string]os.FileMode{
		filepath.Join(volume, "a"): 0o775 | os.ModeSetgid, filepath.Join(volume, "a/b"): 0o775 | os.ModeSetgid,
		filepath.Join(pod, "volume-subpaths"): 0o750, filepath.Join(pod, "volume-subpaths/data/main"): 0o750,
	} {
		if info, err := os.Stat(dir); err != nil || info.Mode()&^os.ModeDir != want {
			t.Errorf("%s: %v, %v, want %v", dir, info.Mode(), err, want)
		}
	}
}

// A file is bound as a file; what took its place, of whatever kind, is bound anew by the next attempt.
func TestSubPathIsBoundAnew(t *testing.T) {
	volume, pod := volumeAndPod(t)
	put(t, filepath.Join(volume, "conf"), "one")
	h := part(volume, pod, "conf")
	if err := makePath(h); err != nil {
		t.Fatal(err)
	}
	if got := text(t, h.Path); got != "one" {
		t.Errorf("bound: %q", got)
	}
	put(t, filepath.Join(volume, "new"), "two")
	if err := os.Rename(filepath.Join(volume, "new"), filepath.Join(volume, "conf")); err != nil {
		t.Fatal(err)
	}
	if err := makePath(h); err != nil {
		t.Fatal(err)
	}
	if got := text(t, h.Path); got != "two" {
		t.Errorf("bound anew: %q", got)
	}
	if err := errors.Join(os.Remove(filepath.Join(volume, "conf")), os.Mkdir(filepath.Join(volume, "conf"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := makePath(h); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(h.Path); err != nil || !info.IsDir() {
		t.Errorf("a directory took the file's place: %v, %v", info.Mode(), err)
	}
	if got := mountsBelow(t, pod); len(got) != 1 {
		t.Errorf("mounts: %q", got)
	}
}

// A container that writes to the volume cannot have anything but the volume's content mounted.
func TestSubPathNeverLeavesTheVolume(t *testing.T) {
	volume, pod := volumeAndPod(t)
	secret := t.TempDir()
	put(t, filepath.Join(secret, "key"), "secret")
	put(t, filepath.Join(volume, "real/file"), "mine")
	for name, target := range map[string]string{
		"out": secret, "up": "../", "file": filepath.Join(secret, "key"), "missing": filepath.Join(secret, "new"), "proc": "/proc/self/root",
		"inside": "real", "inside-by-host-path": filepath.Join(volume, "real"),
	} {
		if err := os.Symlink(target, filepath.Join(volume, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, sub := range []string{"out", "out/deeper", "up", "file", "missing", "missing/deeper", "proc", "proc/etc"} {
		err := makeLayout([]podspec.HostPath{part(volume, pod, sub)})
		if err == nil || !strings.HasPrefix(err.Error(), "container main, mount /data: binding "+sub+" of the volume ") {
			t.Errorf("%s: %v", sub, err)
		}
		if got := mountsBelow(t, pod); len(got) > 0 {
			t.Errorf("%s: mounted %q", sub, got)
		}
	}
	if got := tree(t, secret); got != "-rw-r--r-- key \"secret\"\n" {
		t.Errorf("outside the volume:\n%s", got)
	}
	for _, sub := range []string{"inside", "inside-by-host-path"} {
		if err := makePath(part(volume, pod, sub)); err != nil {
			t.Errorf("%s: %v", sub, err)
		}
		if got := text(t, filepath.Join(part(volume, pod, sub).Path, "file")); got != "mine" {
			t.Errorf("%s: %q", sub, got)
		}
	}
}

// Between the moment at which a path is resolved and that at which it is opened, a container may put a link in its way.
func TestSubPathSwappedForALink(t *testing.T) {
	volume := t.TempDir()
	put(t, filepath.Join(volume, "a/b/file"), "mine")
	names, err := resolveBelow(volume, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(volume, "a")), os.Symlink(t.TempDir(), filepath.Join(volume, "a"))); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{names, names[:1]} {
		if fd, err := openBelow(volume, names); err == nil {
			unix.Close(fd)
			t.Errorf("%q was opened through a link", names)
		}
	}
	dir, err := unix.Open(volume, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	if fd, err := makeNext(dir, "a", 0o755); err == nil {
		unix.Close(fd)
		t.Error("a link was taken for the directory that was to be made")
	}
}

// The bound parts go away with the pod's directory, and what they are part of stays.
func TestSubPathIsUnmountedWithThePod(t *testing.T) {
	volume, pod := volumeAndPod(t)
	put(t, filepath.Join(volume, "a/precious"), "kept")
	put(t, filepath.Join(volume, "file"), "kept")
	dir, file := part(volume, pod, "a"), part(volume, pod, "file")
	file.Path = filepath.Join(filepath.Dir(file.Path), "1")
	if err := makeLayout([]podspec.HostPath{dir, file}); err != nil {
		t.Fatal(err)
	}
	if err := garbage.RemovePodDir(pod); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(pod); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's directory: %v", err)
	}
	if got, want := tree(t, volume), "dgrwxr-xr-x a\n-rw-r--r-- a/precious \"kept\"\n-rw-r--r-- file \"kept\"\n"; got != want {
		t.Errorf("the volume:\n%s", got)
	}
}

func TestHugePagesVolume(t *testing.T) {
	_, pod := volumeAndPod(t)
	if _, err := os.Stat("/sys/kernel/mm/hugepages/hugepages-2048kB"); err != nil {
		t.Skipf("this kernel has no pages of 2 MiB: %v", err)
	}
	h := podspec.HostPath{Kind: podspec.MountHugePages, Path: filepath.Join(pod, "pages"), Mode: 0o777, Force: true, PageSize: 2 << 20}
	for range 2 {
		if err := makePath(h); err != nil {
			t.Fatal(err)
		}
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(h.Path, &stat); err != nil || stat.Type != unix.HUGETLBFS_MAGIC || stat.Bsize != 2<<20 {
		t.Errorf("file system %x with blocks of %d, %v; want huge pages of 2 MiB", stat.Type, stat.Bsize, err)
	}
	if got := mountsBelow(t, pod); len(got) != 1 {
		t.Errorf("mounts: %q", got)
	}
	if info, err := os.Stat(h.Path); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A file of variables is written by a container: neither a link nor a pipe nor its size may harm the supervisor.
func TestReadVolumeFiles(t *testing.T) {
	volume, outside := t.TempDir(), filepath.Join(t.TempDir(), "key")
	put(t, outside, "secret")
	put(t, filepath.Join(volume, "conf/env"), "A='b'")
	put(t, filepath.Join(volume, "large"), strings.Repeat("x", maxEnvFile+1))
	err := errors.Join(os.Symlink(outside, filepath.Join(volume, "out")), os.Symlink("conf/env", filepath.Join(volume, "in")), unix.Mkfifo(filepath.Join(volume, "pipe"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	of := func(path string) podspec.VolumeFile { return podspec.VolumeFile{Volume: volume, Path: path} }
	got, err := readVolumeFiles([]podspec.VolumeFile{of("conf/env"), of("none"), of("in")})
	if want := (map[podspec.VolumeFile][]byte{of("conf/env"): []byte("A='b'"), of("in"): []byte("A='b'")}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for path, want := range map[string]string{"out": "escapes", "pipe": "it is a pipe", "large": "more than 1048576 bytes", "conf": "it is a directory"} {
		if got, err := readVolumeFiles([]podspec.VolumeFile{of(path)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %q", path, got, err, want)
		}
	}
}
