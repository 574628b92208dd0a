//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// hostSpec is what a host has beside a minimal system.
type hostSpec struct {
	hostname string // hosts that run at the same time differ in its first letter
	address  string // on its only interface
	bridge   string // name of the bridge that it shares with others; "" is a cable that ends here
	packages []string
	files    map[string]string // path → content, there before it boots
	binds    map[string]string // file or directory of this machine → where the host has it, read-only
	enabled  []string          // units, beside those of every host
}

// debianHost is a host with systemd as its init: its own processes, mounts, network and files, on this
// machine's kernel. Its cgroups are the machine's where those are of version 1, in a subtree of their own.
type debianHost struct {
	hostSpec
	name    string    // of the machine's network interface too, after "ve-" or "vb-"
	root    string    // its files, seen from this machine
	nspawn  *exec.Cmd // nil while it is off
	ended   chan error
	leader  string // pid of its init, seen from this machine
	console string // path of what it prints
}

// newDebianHost returns a booted host that has the address on its only interface. At the end of the test nothing is
// left of it.
func newDebianHost(t *testing.T, hostname, address string) *debianHost {
	t.Helper()
	return newHost(t, hostSpec{hostname: hostname, address: address})
}

// newHost returns a booted host. At the end of the test nothing is left of it.
func newHost(t *testing.T, spec hostSpec) *debianHost {
	t.Helper()
	for _, name := range []string{"debootstrap", "systemd-nspawn"} {
		if _, err := exec.LookPath(name); err != nil {
			lacking(t, "no %s here: install debootstrap and systemd-container to test on hosts with systemd", name)
		}
	}
	for path := range spec.binds {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; run make programs", err)
		}
	}
	dir := t.TempDir()
	h := &debianHost{
		hostSpec: spec, name: fmt.Sprintf("slip%d%.1s", os.Getpid(), spec.hostname), root: filepath.Join(dir, "root"),
		console: filepath.Join(dir, "console"),
	}
	run(t, 5*time.Minute, "cp", "-a", "--reflink=auto", debianTree(t, spec.packages...), h.root).must(t, "copying the Debian tree")
	t.Cleanup(func() { h.close(t) })
	h.write(t, "/etc/hostname", spec.hostname+"\n")
	h.write(t, "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+spec.hostname+"\n")
	h.write(t, "/etc/resolv.conf", "") // nothing here may ask a name server
	h.write(t, "/etc/machine-id", "")  // the host makes its own at its first boot
	h.write(t, "/etc/systemd/network/10-host0.network", "[Match]\nName=host0\n\n[Network]\nAddress="+spec.address+"/24\nLinkLocalAddressing=no\n")
	for path, data := range spec.files {
		h.write(t, path, data)
	}
	h.offline(t, "enable", append([]string{"systemd-networkd.service", "systemd-networkd-wait-online.service"}, spec.enabled...)...)
	unwanted := []string{"containerd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer"}
	h.offline(t, "mask", slices.DeleteFunc(unwanted, func(unit string) bool { return slices.Contains(spec.enabled, unit) })...)
	run(t, time.Minute, "install", slipwayBinary(), filepath.Join(h.root, "usr/local/bin/slipway")).must(t, "installing slipway")
	h.boot(t)
	return h
}

// write puts a file into the host while it is off.
func (h *debianHost) write(t *testing.T, path, data string) {
	t.Helper()
	path = filepath.Join(h.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
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
		"--capability=all", "--system-call-filter=@keyring bpf @mount",
		"--bind-ro=" + archives() + ":/opt/images", "--bind-ro=" + program("kubectl") + ":/usr/local/bin/kubectl"}
	for from, to := range h.binds {
		args = append(args, "--bind-ro="+from+":"+to)
	}
	plug := "ve-" + h.name
	if h.bridge == "" {
		args = append(args, "--network-veth")
	} else {
		args = append(args, "--network-zone="+h.bridge) // systemd-nspawn makes it with its first host and removes it with its last
		plug = "vz-" + h.bridge
	}
	var groups []string
	if !unified() {
		args = append(args, "--bind=/sys/fs/cgroup") // what systemd-nspawn shows of version 1 has no place for pods
		groups = h.makeCgroups(t)
	}
	for _, group := range groups {
		hierarchy := filepath.Dir(group)
		if keepsProcesses(hierarchy) {
			group = filepath.Join(group, payload)
		}
		args = append(args, "--bind="+group+":"+hierarchy)
	}
	// It enters its groups first: they are the root of what the host sees of the hierarchies.
	enter := `while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec systemd-nspawn "$@"`
	h.nspawn = exec.Command("sh", slices.Concat([]string{"-c", enter, "sh"}, groups, []string{"--"}, args)...)
	h.ended = make(chan error, 1)
	h.nspawn.Stdout, h.nspawn.Stderr = console, console
	h.nspawn.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM} // a test that is killed turns it off
	if err := h.nspawn.Start(); err != nil {
		t.Fatal(err)
	}
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(h.nspawn, h.ended)
	eventually(t, bootLimit, "the host's init", func() string { return h.findLeader(t) })
	run(t, time.Minute, "ip", "link", "set", plug, "up").must(t, "plugging the host's cable in")
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

// put writes a file into the running host, at once and whole.
func (h *debianHost) put(t *testing.T, path, data string) {
	t.Helper()
	dir, name := filepath.Split(filepath.Join(h.root, path))
	write(t, filepath.Join(dir, "."+name), data)
	if err := os.Rename(filepath.Join(dir, "."+name), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
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
	for _, kind := range []string{"ve-", "vb-"} {
		if _, err := os.Lstat("/sys/class/net/" + kind + h.name); err == nil {
			t.Errorf("the interface %s is left", kind+h.name)
		}
	}
	for _, dir := range []string{"propagate", "locks", ""} { // only nspawn makes them, and another host's keep them
		os.Remove(filepath.Join("/run/systemd/nspawn", dir)) //nolint:errcheck
	}
}

func unified() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// payload is the group below its own in which systemd-nspawn starts a host's init, in the hierarchies that systemd
// keeps its processes in.
const payload = "payload"

func keepsProcesses(hierarchy string) bool {
	return slices.Contains([]string{"systemd", "unified"}, filepath.Base(hierarchy))
}

// makeCgroups makes the host's group in each of the machine's hierarchies, which are of version 1 but for systemd's.
func (h *debianHost) makeCgroups(t *testing.T) []string {
	t.Helper()
	hierarchies, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	var groups []string
	for _, procs := range hierarchies {
		parent := filepath.Dir(procs)
		group := filepath.Join(parent, h.name)
		made := group
		if keepsProcesses(parent) {
			made = filepath.Join(group, payload)
		}
		if err := os.MkdirAll(made, 0o755); err != nil {
			t.Fatal(err)
		}
		groups = append(groups, group)
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} { // a new group has none, and then takes no process
			data, err := os.ReadFile(filepath.Join(parent, name))
			if os.IsNotExist(err) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, name), data, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	return groups
}

// removeCgroups removes what the host left in the machine's hierarchies.
func (h *debianHost) removeCgroups(t *testing.T) error {
	groups, err := filepath.Glob("/sys/fs/cgroup/*/" + h.name)
	if err != nil {
		return err
	}
	for _, group := range groups {
		if r := run(t, time.Minute, "find", group, "-depth", "-type", "d", "-delete"); r.code != 0 {
			return fmt.Errorf("removing the cgroup that the host left: %s", r.stderr)
		}
	}
	return nil
}
