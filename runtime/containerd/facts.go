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
	Snapshotter   string // overlayfs, or native where overlayfs cannot be mounted; "" is overlayfs
	LowerOOMScore bool   // whether processes may be made less likely to be killed: CAP_SYS_RESOURCE
	CNIBinDir     string // "" is /opt/cni/bin
}

// Detect looks at the machine. dir is a directory on the file system that containerd's root will be on; an overlay is
// mounted in it for a moment. Without the right to mount, overlayfs is taken to work: containerd itself runs as root.
func Detect(dir string) (Facts, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Facts{}, fmt.Errorf("reading this process's capabilities: %w", err)
	}
	f := Facts{Snapshotter: overlayfs, LowerOOMScore: mayLowerOOMScore(status), CNIBinDir: cniBinDir("/opt/cni/bin", "/usr/lib/cni")}
	if err := tryOverlay(dir); errors.Is(err, errNoOverlay) {
		f.Snapshotter = native
	} else if err != nil && !errors.Is(err, os.ErrPermission) {
		return Facts{}, err
	}
	return f, nil
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

var errNoOverlay = errors.New("overlayfs cannot be mounted")

// tryOverlay mounts an overlay with two layers under dir, as containerd would. Some file systems refuse: another
// overlay, or one without d_type.
func tryOverlay(dir string) (err error) {
	tmp, err := os.MkdirTemp(dir, "overlay-check-")
	if err != nil {
		return fmt.Errorf("trying overlayfs in %q: %w", dir, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, name := range []string{"lower1", "lower2", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(tmp, name), 0o700); err != nil {
			return fmt.Errorf("trying overlayfs in %q: %w", dir, err)
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower2:%[1]s/lower1,upperdir=%[1]s/upper,workdir=%[1]s/work", tmp)
	merged := filepath.Join(tmp, "merged")
	switch err := unix.Mount("overlay", merged, "overlay", 0, options); {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("trying overlayfs in %q: %w", dir, os.ErrPermission)
	case err != nil:
		return fmt.Errorf("trying overlayfs in %q: %w: %w", dir, errNoOverlay, err)
	}
	if err := unix.Unmount(merged, 0); err != nil {
		return fmt.Errorf("unmounting %q: %w", merged, err)
	}
	return nil
}
