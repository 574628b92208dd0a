package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	overlayfs = "overlayfs"
	native    = "native" // copies every layer in full: works everywhere, costs disk and time
)

// Facts are what a containerd configuration depends on beyond what the user chose.
type Facts struct {
	Snapshotter   string // overlayfs, or native where overlayfs cannot be used; "" is overlayfs
	LowerOOMScore bool   // whether processes may be made less likely to be killed: CAP_SYS_RESOURCE
	CNIBinDir     string // "" is /opt/cni/bin
}

// Detect looks at the machine and changes nothing. dir is where containerd's root will be; it need not exist yet.
func Detect(dir string) (Facts, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Facts{}, fmt.Errorf("reading this process's capabilities: %w", err)
	}
	kind, err := fileSystem(dir)
	if err != nil {
		return Facts{}, fmt.Errorf("looking at the file system of %q: %w", dir, err)
	}
	return Facts{
		Snapshotter: snapshotterOn(kind), LowerOOMScore: mayLowerOOMScore(status), CNIBinDir: cniBinDir("/opt/cni/bin", "/usr/lib/cni"),
	}, nil
}

// fileSystem returns the magic number of the file system that dir is on, or will be once it is made.
func fileSystem(dir string) (int64, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Type, nil
		}
		if parent := filepath.Dir(dir); errors.Is(err, unix.ENOENT) && parent != dir {
			dir = parent
			continue
		}
		return 0, err
	}
}

// snapshotterOn returns native where the kernel refuses to put an overlay's upper layer: on another overlay, as inside
// a container, on network file systems and on FUSE.
func snapshotterOn(kind int64) string {
	switch kind {
	case unix.OVERLAYFS_SUPER_MAGIC, unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return native
	}
	return overlayfs
}

// mayLowerOOMScore looks for CAP_SYS_RESOURCE in the text of /proc/PID/status.
func mayLowerOOMScore(status []byte) bool {
	for line := range bytes.Lines(status) {
		if hex, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			caps, err := strconv.ParseUint(string(bytes.TrimSpace(hex)), 16, 64)
			return err == nil && caps&(1<<unix.CAP_SYS_RESOURCE) != 0
		}
	}
	return false
}

// cniBinDir returns the first directory that exists, the first of all when none does. /opt/cni/bin is upstream's,
// /usr/lib/cni is Debian's.
func cniBinDir(dirs ...string) string {
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
	}
	return dirs[0]
}
