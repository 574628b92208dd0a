//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bootLimit     = 2 * time.Minute // a boot takes 2 s here; more only where the machine is very busy
	shutdownLimit = 2 * time.Minute // systemd itself gives each unit 90 s
)

// debianHost is a host with systemd as its init: its own processes, mounts, network and files, on this
// machine's kernel. Its cgroups are the machine's where those are of version 1.
type debianHost struct {
	name     string // of the machine's network interface too, after "ve-"
	hostname string
	root     string    // its files, seen from this machine
	groups   []string  // top cgroups of this machine before it
	nspawn   *exec.Cmd // nil while it is off
	ended    chan error
	leader   string // pid of its init, seen from this machine
	console  string // path of what it prints
}

// newDebianHost returns a booted host that has the address on its only interface. At the end of the test nothing is
// left of it.
func newDebianHost(t *testing.T, hostname, address string) *debianHost {
	t.Helper()
	for _, name := range []string{"debootstrap", "systemd-nspawn"} {
		if _, err := exec.LookPath(name); err != nil {
			lacking(t, "no %s here: install debootstrap and systemd-container to test on hosts with systemd", name)
		}
	}
	dir := t.TempDir()
	h := &debianHost{
		hostname: hostname, name: fmt.Sprintf("slip%d", os.Getpid()), root: filepath.Join(dir, "root"),
		groups: topCgroups(t), console: filepath.Join(dir, "console"),
	}
	run(t, 5*time.Minute, "cp", "-a", "--reflink=auto", debianTree(t), h.root).must(t, "copying the Debian tree")
	t.Cleanup(func() { h.close(t) })
	h.write(t, "/etc/hostname", hostname+"\n")
	h.write(t, "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+hostname+"\n")
	h.write(t, "/etc/resolv.conf", "") // nothing here may ask a name server
	h.write(t, "/etc/machine-id", "")  // the host makes its own at its first boot
	h.write(t, "/etc/systemd/network/10-host0.network", "[Match]\nName=host0\n\n[Network]\nAddress="+address+"/24\nLinkLocalAddressing=no\n")
	h.offline(t, "enable", "systemd-networkd.service", "systemd-networkd-wait-online.service")
	h.offline(t, "mask", "containerd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer")
	run(t, time.Minute, "install", slipwayBinary(), filepath.Join(h.root, "usr/local/bin/slipway")).must(t, "installing slipway")
	h.boot(t)
	return h
}

// write puts a file into the host while it is off.
func (h *debianHost) write(t *testing.T, path, data string) {
	t.Helper()
	path = filepath.Join(h.root, path)
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// offline runs systemctl on the files of the host while it is off.
func (h *debianHost) offline(t *testing.T, verb string, units ...string) {
	t.Helper()
	run(t, time.Minute, "systemctl", append([]string{"--quiet", "--root", h.root, verb}, units...)...).must(t, "systemctl "+verb)
}

// boot returns once systemd has started everything that is enabled.
func (h *debianHost) boot(t *testing.T) {
	t.Helper()
	console, err := os.Create(h.console)
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	args := []string{"--register=no", "--keep-unit", "--quiet", "--boot", "--directory", h.root, "--machine", h.name, "--hostname", h.hostname, "--link-journal=no",
		"--network-veth", "--capability=all", "--system-call-filter=@keyring bpf @mount",
		"--bind-ro=" + archives() + ":/opt/images", "--bind-ro=" + program("kubectl") + ":/usr/local/bin/kubectl"}
	if !unified() {
		args = append(args, "--bind=/sys/fs/cgroup") // nspawn's own view of version 1 has no place for pods
	}
	h.nspawn, h.ended = exec.Command("systemd-nspawn", args...), make(chan error, 1)
	h.nspawn.Stdout, h.nspawn.Stderr = console, console
	h.nspawn.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM} // a test that is killed turns it off
	if err := h.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(h.nspawn, h.ended)
	eventually(t, bootLimit, "the host's init", func() string { return h.findLeader(t) })
	run(t, time.Minute, "ip", "link", "set", "ve-"+h.name, "up").must(t, "plugging the host's cable in")
	eventually(t, bootLimit, "the host's boot", func() string {
		switch state := strings.TrimSpace(h.run(t, "systemctl", "is-system-running", "--wait").stdout); state {
		case "running":
			return ""
		case "degraded":
			t.Logf("units that failed at boot:\n%s", h.run(t, "systemctl", "--failed", "--no-legend", "--plain").stdout)
			return ""
		default:
			return fmt.Sprintf("%q, console:\n%s", state, h.printed())
		}
	})
}

// findLeader looks for the init of the host, the one child of systemd-nspawn, which is reachable once it runs systemd.
func (h *debianHost) findLeader(t *testing.T) string {
	select {
	case err := <-h.ended:
		h.nspawn = nil
		t.Fatalf("systemd-nspawn ended: %v\n%s", err, h.printed())
	default:
	}
	children := strings.Fields(run(t, time.Minute, "pgrep", "-x", "-P", fmt.Sprint(h.nspawn.Process.Pid), "systemd").stdout)
	if len(children) != 1 {
		return "not there yet:\n" + h.printed()
	}
	h.leader = children[0]
	return ""
}

func (h *debianHost) printed() string {
	data, err := os.ReadFile(h.console)
	if err != nil {
		return err.Error()
	}
	return tail(string(data), 30)
}

// run runs a command in the host as its root, with the environment of a login.
func (h *debianHost) run(t *testing.T, args ...string) result {
	t.Helper()
	enter := []string{"-t", h.leader, "-a", "env", "-i", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return run(t, 5*time.Minute, "nsenter", append(enter, args...)...)
}

// reboot turns the host off, in order, and on again.
func (h *debianHost) reboot(t *testing.T) {
	t.Helper()
	if err := h.off(t); err != nil {
		t.Fatal(err)
	}
	h.boot(t)
}

// off returns once all processes of the host have ended. On a real host the cgroups end with the kernel; so here.
func (h *debianHost) off(t *testing.T) error {
	if h.nspawn == nil {
		return nil
	}
	defer func() { h.nspawn = nil }()
	h.nspawn.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
	select {
	case <-h.ended:
		return h.removeCgroups(t)
	case <-time.After(shutdownLimit):
		h.nspawn.Process.Kill() //nolint:errcheck // as above; its init ends with it
		<-h.ended
		return fmt.Errorf("the host did not shut down within %v:\n%s", shutdownLimit, h.printed())
	}
}

// close turns the host off and fails the test if anything is left of it.
func (h *debianHost) close(t *testing.T) {
	if t.Failed() && h.nspawn != nil {
		t.Logf("the host's journal:\n%s", h.run(t, "journalctl", "--no-pager", "-b", "-n", "80", "-u", "slipway.service").stdout)
	}
	if err := h.off(t); err != nil {
		t.Error(err)
	}
	if data, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(data), h.root) {
		t.Errorf("mounts below %s are left", h.root)
	}
	if _, err := os.Lstat("/sys/class/net/ve-" + h.name); err == nil {
		t.Errorf("the interface ve-%s is left", h.name)
	}
	for _, dir := range []string{"propagate", "locks", ""} { // only nspawn makes them, and another host's keep them
		os.Remove(filepath.Join("/run/systemd/nspawn", dir)) //nolint:errcheck
	}
}

func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// topCgroups are the first level of each hierarchy, among files.
func topCgroups(t *testing.T) []string {
	t.Helper()
	pattern := "/sys/fs/cgroup/*/*"
	if unified() {
		pattern = "/sys/fs/cgroup/*"
	}
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// hostCgroup matches what systemd, systemd-nspawn and a control plane make at the top of a hierarchy.
var hostCgroup = regexp.MustCompile(`^(supervisor|payload|kubepods|.*\.(scope|slice|mount|service))$`)

// removeCgroups removes what the host left in the machine's hierarchies.
func (h *debianHost) removeCgroups(t *testing.T) error {
	for _, group := range topCgroups(t) {
		if slices.Contains(h.groups, group) || !hostCgroup.MatchString(filepath.Base(group)) {
			continue
		}
		if r := run(t, time.Minute, "find", group, "-depth", "-type", "d", "-delete"); r.code != 0 {
			return fmt.Errorf("removing the cgroup that the host left: %s", r.stderr)
		}
	}
	return nil
}
