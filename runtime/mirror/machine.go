package mirror

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// ReadMachine returns this machine's capacity and description, for Config. disk is a path on the file system that the
// pods write to; maxPods is the KubeletConfiguration's. The versions of kubelet and container runtime are the caller's
// to fill in.
func ReadMachine(disk string, maxPods int32) (corev1.ResourceList, corev1.NodeSystemInfo, error) {
	var memory unix.Sysinfo_t
	if err := unix.Sysinfo(&memory); err != nil {
		return nil, corev1.NodeSystemInfo{}, fmt.Errorf("asking for the memory of this machine: %w", err)
	}
	size, err := diskSize(disk)
	if err != nil {
		return nil, corev1.NodeSystemInfo{}, err
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return nil, corev1.NodeSystemInfo{}, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(int64(memory.Totalram)*int64(memory.Unit), resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(size, resource.BinarySI),
	}
	return capacity, corev1.NodeSystemInfo{
		MachineID: content("/etc/machine-id"), SystemUUID: cmp.Or(content("/sys/class/dmi/id/product_uuid"), content("/etc/machine-id")),
		BootID: content("/proc/sys/kernel/random/boot_id"), KernelVersion: unix.ByteSliceToString(name.Release[:]), OSImage: osImage(),
		OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}, nil
}

// diskSize is the size of the file system of the nearest directory above path that exists.
func diskSize(path string) (int64, error) {
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(path, &fs)
		if err == nil {
			return int64(fs.Blocks) * fs.Bsize, nil
		}
		if err != unix.ENOENT || path == "/" || path == "." {
			return 0, fmt.Errorf("asking for the size of the file system of %q: %w", path, err)
		}
		path = filepath.Dir(path)
	}
}

// content is a file without the white space around it, "" when it cannot be read: not every machine has every identity.
func content(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}

// osImage is the distribution's name for itself, as the kubelet shows it.
func osImage() string {
	lines := bufio.NewScanner(strings.NewReader(content("/etc/os-release")))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), "PRETTY_NAME="); ok {
			if s, err := strconv.Unquote(v); err == nil {
				return s
			}
			return strings.Trim(v, `'"`)
		}
	}
	return runtime.GOOS
}
